"""A store in memory with PostgreSQL's meaning, each method atomic at one virtual instant.

The conformance suite in `tests/contract/store` holds both to the same port. The guards that the
simulation takes out, one at a time, are methods of their own: `in_term`, `as_seen`, `decided`
and `in_force`.
"""
# ruff: noqa: A001 - a row's key is called id everywhere

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from protocols.errors import FencedError, KeyReusedError, NotFoundError
from protocols.instants import from_epoch_ns
from protocols.jobs import JobSpec
from protocols.ports.store import (
    Budget,
    Claimed,
    DueInstant,
    DueSchedule,
    Finish,
    Finished,
    Fired,
    Firing,
    GiveBack,
    Lane,
    Lanes,
    Term,
    Triggered,
    TriggerRequest,
)
from tests.sim.model_books import Books, Job, Row
from tests.sim.model_dags import NoDags
from tests.sim.model_keeping import Keeping
from tests.sim.model_placing import Asked, place
from tests.sim.model_tasks import Tasks

LEVEL = 1
"""The protocol level that every version of the model needs."""


class ModelStore(Keeping, Tasks, NoDags):
    """The Store port.

    Args:
        books: What it holds.
        clock: The database's own, for beats.
    """

    def __init__(
        self,
        books: Books,
        clock: Callable[[], datetime] = lambda: datetime(2026, 12, 1, tzinfo=UTC),
    ) -> None:
        self.books = books
        self.clock = clock

    # --- the guards -----------------------------------------------------------------------

    def in_term(self, term: Term) -> bool:
        """Whether the term's epoch is the leadership's."""
        terms = self.books.terms
        return term.number < len(terms) and terms[term.number].epoch == term.epoch

    def as_seen(self, job: Job, firing: Firing) -> bool:
        """Whether the schedule's row is where the firing saw it."""
        return (job.version, job.cursor, job.catchup_from) == (
            firing.version,
            firing.seen_cursor,
            firing.seen_catchup_from,
        )

    def decided(self, key: int, instant: DueInstant) -> bool:
        """Whether the instant has a row already, which a unique index knows."""
        return (key, instant.scheduled_for) in self.books.instants

    def in_force(self, row: Row | None, incarnation: int, token: int) -> bool:
        """Whether a worker's proof is good for this row."""
        return (
            row is not None
            and row.state == "running"
            and row.token == token
            and row.incarnation == incarnation
        )

    # --- what fires -----------------------------------------------------------------------

    async def take_epoch(self, number: int, incarnation: int, *, now: datetime) -> Term:
        terms = self.books.terms
        if not 0 <= number < len(terms):
            raise NotFoundError(f"there is no leadership {number}")
        terms[number].epoch += 1
        return Term(number, len(terms), terms[number].epoch)

    async def due(self, term: Term, *, until: datetime, limit: int) -> Sequence[DueSchedule]:
        if not self.in_term(term):
            raise FencedError(f"epoch {term.epoch} of leadership {term.number} is over")
        mine = [
            job
            for job in self.books.jobs.values()
            if job.scheduled and job.shard % term.leaderships == term.number
        ]
        soon = [job for job in mine if job.next_fire_at is not None and job.next_fire_at <= until]
        behind = [job for job in mine if job.catchup_from is not None and job not in soon]
        soon.sort(key=lambda job: (job.next_fire_at, job.shard))
        return [_due(job) for job in (*soon, *behind)][:limit]

    async def definitions(self, keys: Sequence[tuple[int, int]]) -> Sequence[JobSpec | None]:
        jobs = self.books.jobs
        return [jobs[key].versions.get(v) if key in jobs else None for key, v in keys]

    async def fire(self, term: Term, firings: Sequence[Firing], *, now: datetime) -> Fired:
        if not firings:
            return Fired(moved=(), pools=())
        if not self.in_term(term):
            raise FencedError(f"epoch {term.epoch} of leadership {term.number} is over")
        books, moved, asked = self.books, [], []
        paused = books.terms[term.number].paused
        for firing in sorted(firings, key=lambda firing: firing.job_key):
            job = books.jobs[firing.job_key]
            if not self.as_seen(job, firing):
                continue
            if firing.cursor > now and (paused or job.paused):
                continue
            moved.append(job.key)
            job.cursor, job.next_fire_at = firing.cursor, firing.next_fire_at
            job.catchup_from, job.catchup_until = firing.catchup_from, firing.catchup_until
            asked += [
                self._fired(job, firing, instant, paused=paused or job.paused)
                for instant in firing.instants
                if not self.decided(job.key, instant)
            ]
        placed = place(books, asked, kind="fired", now=now)
        return Fired(moved=moved, pools=placed.pools, followers=placed.followers)

    def _fired(self, job: Job, firing: Firing, instant: DueInstant, *, paused: bool) -> Asked:
        spec = job.versions[firing.version]
        return Asked(
            id=self.books.next_id(),
            origin=0,
            job_key=job.key,
            version=firing.version,
            spec=spec,
            scheduled_for=instant.scheduled_for,
            run_at=instant.run_at,
            skip="paused" if paused and instant.skip is None else instant.skip,
            last=instant.last,
            instants=instant.count,
            patient=instant.caught_up,
            gated=bool(spec.dependencies),
        )

    # --- what runs ------------------------------------------------------------------------

    async def lanes(self, pool: str, *, now: datetime, level: int) -> Lanes:
        due, coming = set(), []
        for row in self._claimable(pool, level):
            if row.run_at > now:
                coming.append(row.run_at)
            elif row.limit_key is None or self.books.room(row.limit_key) > 0:
                due.add((row.limit_key is not None, row.tenant, row.priority, row.limit_key or ""))
        lanes = (Lane(tenant, priority, key or None) for _, tenant, priority, key in sorted(due))
        return Lanes(tuple(lanes), min(coming, default=None))

    async def claim(
        self,
        pool: str,
        incarnation: int,
        budgets: Sequence[Budget],
        *,
        now: datetime,
        level: int,
        refused: Sequence[tuple[int, int]] = (),
    ) -> Sequence[Claimed]:
        node = self.books.nodes.get(incarnation)
        if node is None or node.state != "up" or self.books.house_paused:
            return ()
        ready = [
            row
            for row in self._claimable(pool, level)
            if row.run_at <= now
            and (row.job_key, row.version) not in refused
            and (row.expires_at is None or row.expires_at > now)
        ]
        ready.sort(key=lambda row: (row.run_at, row.id))
        lanes: dict[tuple, list[Row]] = {}
        for row in ready:
            lanes.setdefault((row.tenant, row.priority, row.limit_key), []).append(row)
        claimed = []
        for budget in sorted(budgets, key=lambda b: (b.lane.limit_key or "", b.lane.priority)):
            lane, most = budget.lane, budget.count
            if lane.limit_key is not None:
                most = min(most, self.books.room(lane.limit_key))
            found = lanes.get((lane.tenant, lane.priority, lane.limit_key), [])
            claimed += [self._take(row, incarnation, now) for row in found[: max(0, most)]]
        return claimed

    def _claimable(self, pool: str, level: int) -> list[Row]:
        if level < LEVEL:
            return []
        return [r for r in self.books.hot.values() if r.state == "scheduled" and r.pool == pool]

    def _take(self, row: Row, incarnation: int, now: datetime) -> Claimed:
        row.become("running")
        row.token = token = self.books.next_token()
        row.attempt += 1
        row.incarnation, row.started_at, row.reason = incarnation, now, None
        if row.limit_key is not None:
            self.books.holders.setdefault(row.limit_key, []).append(row.id)
        return Claimed(
            id=row.id,
            created_at=row.created_at,
            tenant=row.tenant,
            job_id=row.job_id,
            job_key=row.job_key,
            version=row.version,
            priority=row.priority,
            scheduled_for=row.scheduled_for,
            attempt=row.attempt,
            failures=row.failures,
            losses=row.losses,
            fencing_token=token,
            input=row.input,
        )

    async def give_back(self, incarnation: int, given: Sequence[GiveBack]) -> None:
        for one in given:
            row = self.books.hot.get(one.id)
            if self.in_force(row, incarnation, one.fencing_token):
                row.attempt -= 1
                if row.cancel_requested:
                    self.books.end(row, "cancelled", None, self.clock())
                    self.books.tell("cancelled", [(row, "cancelled")])
                    continue
                expires_at = row.expires_at
                self.books.again(row, row.run_at, one.reason)
                row.expires_at = expires_at

    async def finish(self, incarnation: int, finishes: Sequence[Finish]) -> Finished:
        done: list[tuple[Row, str]] = []
        followers: set[int] = set()
        for finish in sorted(finishes, key=lambda f: f.id):
            row = self.books.hot.get(finish.id)
            if not self.in_force(row, incarnation, finish.fencing_token):
                continue
            had_turn = row.holds_turn
            if self._end(row, finish):
                followers.update(self._followers(row, had_turn=had_turn))
            done.append((row, row.state))
        self.books.tell("finished", done)
        return Finished(accepted=[row.id for row, _ in done], followers=tuple(sorted(followers)))

    def _end(self, row: Row, finish: Finish) -> bool:
        """Write one end; whether it was final."""
        books = self.books
        row.failures += finish.spends == "retry"
        row.losses += finish.spends == "lost"
        if row.attempt > 1 or finish.attempt_state != "succeeded":
            books.tried(
                row,
                finish.attempt_state,
                finish.fencing_token,
                exit_code=finish.exit_code,
                error=finish.error,
            )
        if finish.output is not None:
            out = finish.output
            books.outputs.setdefault(row.id, []).append(
                (row.attempt, out.head, out.tail, out.omitted_bytes)
            )
        if finish.state == "scheduled" and not row.cancel_requested:
            assert finish.run_at is not None
            books.again(row, finish.run_at, finish.reason)
            return False
        state = "cancelled" if finish.state == "scheduled" else finish.state
        row.exit_code, row.error, row.result = finish.exit_code, finish.error, finish.result
        books.end(row, state, finish.reason, from_epoch_ns(finish.finished_ns))
        if state == "succeeded":
            self.forget(row, from_epoch_ns(finish.finished_ns))
        return True

    def _followers(self, row: Row, *, had_turn: bool) -> set[int]:
        """Jobs to settle after the end of a row."""
        books, key = self.books, row.job_key
        job = books.jobs[key]
        blocked = had_turn and any(r.state == "blocked" for r in books.of_job(key))
        parent = any(key in other.parents for other in books.jobs.values())
        watched = any(
            trigger.job == job.spec.job_id and other.spec.tenant == row.tenant
            for other in books.jobs.values()
            for trigger in other.spec.on
        )
        after = job.after_s is not None and job.next_fire_at is None
        return {key} if blocked or parent or watched or after else set()

    # --- what is asked for ----------------------------------------------------------------

    async def trigger(
        self, requests: Sequence[TriggerRequest], *, now: datetime
    ) -> Sequence[Triggered | NotFoundError | KeyReusedError]:
        answers: list = [None] * len(requests)
        asked: list[tuple[int, Asked]] = []
        for number, request in enumerate(requests):
            job = self._named(request)
            if job is None:
                answers[number] = NotFoundError(f"there is no job {request.job_id}")
                continue
            one = self._wanted(job, request, now)
            answers[number] = self._known(job, request, one, now)
            if answers[number] is None:
                asked.append((number, one))
        placed = place(
            self.books, [one for _, one in asked], kind="triggered", now=now, by_tenant=True
        )
        for (number, one), row in zip(asked, placed.rows, strict=True):
            answers[number] = Triggered(
                id=one.id, created_at=now, job_key=row.job_key, state=row.state, pool=row.pool
            )
        return answers

    def _named(self, request: TriggerRequest) -> Job | None:
        for job in self.books.jobs.values():
            wanted = (
                job.key == request.job_key
                if request.job_key is not None
                else job.spec.job_id == request.job_id
            )
            if wanted and job.spec.tenant == request.tenant:
                return job
        return None

    def _wanted(self, job: Job, request: TriggerRequest, now: datetime) -> Asked:
        id, spec = self.books.next_id(), job.spec
        at = request.run_at or now
        return Asked(
            id=id,
            origin=id,
            job_key=job.key,
            version=job.version,
            spec=spec,
            scheduled_for=at,
            run_at=at,
            input=request.input,
            skip="paused" if request.by_event and job.paused else None,
            patient=spec.overlap == "skip",
            delayed=at > now,
            gated=request.with_dependencies and bool(spec.dependencies),
        )

    def _known(
        self, job: Job, request: TriggerRequest, one: Asked, now: datetime
    ) -> Triggered | KeyReusedError | None:
        """The answer that a request's idempotency key has; else the key is `one`'s from now on."""
        if request.key is None:
            return None
        place = (request.tenant, f"trigger {job.spec.job_id}", request.key)
        found = self.books.keys.get(place)
        if found is None or found[0] <= now:
            expires = now + timedelta(hours=24)
            self.books.keys[place] = (expires, request.body_hash, one.id, now)
            return None
        _, body_hash, id, created_at = found
        if body_hash != request.body_hash:
            return KeyReusedError(f"the idempotency key {request.key} was used with another body")
        return Triggered(id=id, created_at=created_at, job_key=job.key, known=True)


def _due(job: Job) -> DueSchedule:
    return DueSchedule(
        job_key=job.key,
        version=job.version,
        cursor=job.cursor,
        next_fire_at=job.next_fire_at,
        anchor=job.anchor,
        catchup_from=job.catchup_from,
        catchup_until=job.catchup_until,
    )
