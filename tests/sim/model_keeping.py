"""What keeps the model's house: nodes, deaths, expiry, turns, parents, `@after`, triggers."""
# ruff: noqa: A001, A002 - a row's key is called id everywhere

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import msgspec

from protocols.errors import NameHeldError
from protocols.executions import FINAL
from protocols.ports.store import NodeInfo, Peer, PoolLoad, Pulse, Settled
from tests.sim.model_books import Books, Job, Node, Row
from tests.sim.model_placing import QUEUED_MAX, Asked, displace, place


class Keeping:
    """A part of the model store."""

    books: Books
    clock: Callable[[], datetime]

    # --- nodes ----------------------------------------------------------------------------

    async def join(self, node: NodeInfo, *, now: datetime, alone: bool) -> int:
        books = self.books
        if alone:
            for other in books.nodes.values():
                self._mark_dead(other)
            self._lose(list(books.nodes.values()), now)
        for other in books.nodes.values():
            if other.name == node.name and other.state in ("up", "draining"):
                raise NameHeldError(
                    node.name,
                    incarnation=other.incarnation,
                    pid=1,
                    host="h",
                    last_beat_at=other.last_beat_at,
                )
        incarnation = books.next_node()
        books.nodes[incarnation] = Node(
            incarnation=incarnation,
            name=node.name,
            last_beat_at=self.clock(),
            pools={name: PoolLoad(slots, 0) for name, slots in node.pools.items()},
        )
        return incarnation

    async def bury(self, incarnation: int, *, silent_since: datetime, now: datetime) -> None:
        node = self.books.nodes[incarnation]
        if node.last_beat_at <= silent_since:
            self._mark_dead(node)
        self._lose([node], now)

    async def beat(
        self,
        incarnation: int,
        *,
        running: dict[str, int],
        leads: dict[int, int],
        clock_offset_s: float,
        ttl_s: float,
    ) -> Pulse:
        node = self.books.nodes.get(incarnation)
        state = "dead"
        if node is not None and node.state in ("up", "draining"):
            node.last_beat_at = self.clock()
            node.pools = {
                name: PoolLoad(load.slots, running.get(name, 0))
                for name, load in node.pools.items()
            }
            state = node.state
        since = self.clock() - timedelta(seconds=ttl_s)
        return Pulse(
            state=state,
            house_paused=self.books.house_paused,
            leaderships=len(self.books.terms),
            peers=tuple(
                Peer(incarnation=one.incarnation, name=one.name, pools=one.pools)
                for one in self.books.nodes.values()
                if one.state in ("up", "draining") and one.last_beat_at >= since
            ),
        )

    async def leave(self, incarnation: int, *, now: datetime) -> None:
        node = self.books.nodes[incarnation]
        if node.state in ("up", "draining"):
            node.state = "stopped"
        self._lose([node], now)

    async def declare_dead(self, *, ttl_s: float, now: datetime) -> Sequence[int]:
        silent_before = self.clock() - timedelta(seconds=ttl_s)
        for node in self.books.nodes.values():
            if node.last_beat_at < silent_before:
                self._mark_dead(node)
        return self._lose(list(self.books.nodes.values()), now)

    @staticmethod
    def _mark_dead(node: Node) -> None:
        if node.state in ("up", "draining"):
            node.state = "dead"

    def _lose(self, nodes: list[Node], now: datetime) -> list[int]:
        """Declare lost, once, what ended incarnations still hold; those that were settled."""
        ended = [n for n in nodes if n.state in ("dead", "stopped") and not n.closed]
        gone = {node.incarnation for node in ended}
        told = []
        for row in [r for r in self.books.hot.values() if r.incarnation in gone]:
            assert row.token is not None
            self.books.tried(row, "lost", row.token)
            row.losses += 1
            if row.cancel_requested:
                self.books.end(row, "cancelled", None, now)
            elif row.at_most_once or row.losses > row.max_lost:
                self.books.end(row, "dead", "lost", now)
            else:
                self.books.again(row, now, None)
            told.append((row, row.state))
        self.books.tell("lost", told)
        for node in ended:
            node.closed = True
        return sorted(gone)

    async def expire(self, *, now: datetime, limit: int) -> int:
        due = [
            row
            for row in self.books.hot.values()
            if row.expires_at is not None and row.expires_at <= now and row.state != "running"
        ]
        due.sort(key=lambda row: row.expires_at)
        for row in due[:limit]:
            self.books.end(row, "skipped", "expired", now)
        self.books.tell("skipped", [(row, "skipped") for row in due[:limit]])
        return len(due[:limit])

    async def tidy(self, *, now: datetime, keep_s: float) -> None:
        """Nothing: the model has no days, and folds nothing."""

    # --- what waits -----------------------------------------------------------------------

    async def settle(
        self, job_keys: Sequence[int] | None, *, now: datetime, after: int = 0
    ) -> Settled:
        assert after == 0, "one look is at all there is"
        pools: set[str] = set()
        here = set(self.books.jobs) if job_keys is None else set(job_keys)
        self._wake(now, pools)
        here |= self._decide(job_keys, now, pools)
        here |= self._gather(here, now, pools)
        self._grant(here, now, pools)
        armed = self._rearm(self.books.jobs if job_keys is None else job_keys)
        return Settled(pools=sorted(pools), schedules_changed=armed)

    def _let_go(self, row: Row, pools: set[str], *, later: bool = False) -> None:
        """What waited for something else goes, or waits for its turn from now on, or its time."""
        if row.overlap == "allow":
            row.become("scheduled")
            row.reason = None
            pools.add(row.pool)
        else:
            row.reason = "delayed" if later else "overlap"

    def _wake(self, now: datetime, pools: set[str]) -> None:
        rows = [r for r in self.books.hot.values() if r.reason == "delayed" and r.run_at <= now]
        for row in rows:
            self._let_go(row, pools)
        self.books.tell("settled", [(row, row.state) for row in rows])

    def _grant(self, here: set[int], now: datetime, pools: set[str]) -> None:
        told = []
        for key in sorted(here):
            waiting = self.books.waiting(key)
            if waiting and self.books.holder(key) is None:
                row = min(waiting, key=lambda row: (row.scheduled_for, row.id))
                row.become("scheduled")
                row.reason, row.holds_turn = None, True
                pools.add(row.pool)
                told.append((row, "scheduled"))
        self.books.tell("settled", told)

    def _rearm(self, keys) -> bool:
        armed = False
        for key in keys:
            job = self.books.jobs[key]
            if job.after_s is None or job.next_fire_at is not None or not job.scheduled:
                continue
            if any(row.origin == 0 for row in self.books.of_job(key)):
                continue
            ended = [row for row in self.books.ended_of(key) if row.origin == 0]
            last = max(ended, key=lambda row: row.scheduled_for, default=None)
            after = job.cursor if last is None else last.finished_at
            job.next_fire_at = max(
                after + timedelta(seconds=job.after_s), job.cursor + timedelta(microseconds=1)
            )
            armed = True
        return armed

    # --- parents --------------------------------------------------------------------------

    def _decide(self, keys: Sequence[int] | None, now: datetime, pools: set[str]) -> set[int]:
        """Decide what waits for parents, and what waits for that, until nothing changes."""
        touched: set[int] = set()
        look = None if keys is None else set(keys)
        for _ in range(25):
            told: list[tuple[Row, str]] = []
            for row in [r for r in self.books.hot.values() if r.reason == "dependency"]:
                parents = self.books.edges.get(row.id, ())
                if look is None or row.job_key in look or look.intersection(parents):
                    self._decide_one(row, parents, now, pools, told)
            self.books.tell("settled", told)
            look = {row.job_key for row, _ in told}
            if not look:
                break
            touched |= look
        return touched

    def _decide_one(self, row: Row, parents, now: datetime, pools: set[str], told: list) -> None:
        verdict = self._verdict(row, [self._edge(row, parent) for parent in parents], now)
        if verdict is None:
            return
        books = self.books
        ahead = len(books.waiting(row.job_key)) + (books.holder(row.job_key) is not None)
        later = row.origin != 0 and row.run_at > now
        most = {"skip": 0, "queue": QUEUED_MAX}.get(row.overlap, ahead)
        if row.patient or later:
            most = ahead
        if verdict == "skip" or ahead > most:
            books.end(row, "skipped", "dependency" if verdict == "skip" else "overlap", now)
        else:
            rivals = [*books.waiting(row.job_key)]
            if (holder := books.holder(row.job_key)) is not None:
                rivals.append(holder)
            books.edges.pop(row.id, None)
            self._let_go(row, pools, later=later)
            if row.overlap == "cancel_running" and not row.patient and not later:
                displaced: list[Row] = []
                for rival in rivals:
                    displace(books, rival, displaced, now)
                told += [(one, "cancelled") for one in displaced]
        told.append((row, row.state))

    def _edge(self, row: Row, parent: int) -> str:
        same = self.books.instants.get((parent, row.scheduled_for))
        if same in self.books.hot:
            return "wait"
        job = self.books.jobs[parent]
        decisive = self.books.history.get(same) if same is not None else None
        if decisive is None:
            if _to_come(job, row.scheduled_for):
                return "wait"
            ended = self.books.ended_of(parent)
            decisive = max(ended, key=lambda r: (r.scheduled_for, r.origin), default=None)
        if decisive is None:
            return "wait"
        return "met" if decisive.state == "succeeded" else "failed"

    def _verdict(self, row: Row, edges: list[str], now: datetime) -> str | None:
        spec = self.books.jobs[row.job_key].versions[row.version]
        if "failed" in edges and spec.on_dependency_failure == "skip":
            return "skip"
        fine = ("met", "failed") if spec.on_dependency_failure == "run" else ("met",)
        if all(edge in fine for edge in edges):
            return "go"
        if spec.dependency_timeout_s is not None:
            until = row.scheduled_for + timedelta(seconds=spec.dependency_timeout_s)
            return "skip" if until <= now else None
        later = any(
            key == row.job_key and row.scheduled_for < instant <= now
            for key, instant in self.books.instants
        )
        return "skip" if later else None

    def _gather(self, here: set[int], now: datetime, pools: set[str]) -> set[int]:
        """Run those without a schedule of which all parents have succeeded since their last run."""
        ready = []
        for key in sorted(here):
            job = self.books.jobs[key]
            whole = job.parents and job.met.issuperset(job.parents) and not job.scheduled
            idle = job.spec.overlap != "skip" or not any(
                row.holds_turn or row.state == "blocked" for row in self.books.of_job(key)
            )
            if whole and idle:
                job.met.clear()
                ready.append((job, None))
        return self._react(ready, now, pools)

    def _react(self, wanted: list[tuple[Job, bytes | None]], now: datetime, pools) -> set[int]:
        """Make an execution of each job that something happened for."""
        asked = []
        for job, input in wanted:
            if job.spec.enabled:
                id = self.books.next_id()
                asked.append(
                    Asked(
                        id=id,
                        origin=id,
                        job_key=job.key,
                        version=job.version,
                        spec=job.spec,
                        scheduled_for=now,
                        run_at=now,
                        input=input,
                        skip="paused" if job.paused else None,
                        patient=job.spec.overlap == "skip",
                    )
                )
        placed = place(self.books, asked, kind="triggered", now=now)
        pools.update(placed.pools)
        return {row.job_key for row in (*placed.rows, *placed.displaced)}

    # --- the event log --------------------------------------------------------------------

    async def run_triggers(self, *, now: datetime, limit: int) -> Settled:
        books, pools = self.books, set()
        batch = books.events[books.events_read : books.events_read + limit]
        if not batch:
            return Settled()
        books.events_read += len(batch)
        wanted = []
        for event in batch:
            if event.kind == "emitted":
                wanted += self._listeners(event)
            for id, key, state in zip(event.ids, event.job_keys, event.states, strict=True):
                if state in FINAL:
                    wanted += self._watchers(id, key, state)
        made = self._react(wanted, now, pools)
        made |= self._gather(set(books.jobs), now, pools)
        self._grant(made, now, pools)
        return Settled(pools=sorted(pools), more=len(batch) >= limit)

    def _listeners(self, event) -> list:
        payload = msgspec.json.decode(event.payload or b"null")
        return [
            (job, event.payload)
            for job in self.books.jobs.values()
            for trigger in job.spec.on
            if trigger.event == event.name
            and job.spec.tenant == event.tenant
            and all(_at(payload, path) == value for path, value in trigger.filter.items())
        ]

    def _watchers(self, id: int, key: int, state: str) -> list:
        parent, found = self.books.jobs[key], []
        for job in self.books.jobs.values():
            if key in job.parents and state == "succeeded":
                job.met.add(key)
            found += [
                (job, b"{}")
                for trigger in job.spec.on
                if trigger.job == parent.spec.job_id
                and trigger.state == state
                and job.spec.tenant == parent.spec.tenant
            ]
        return found


def _to_come(job: Job, instant: datetime) -> bool:
    """Whether a parent's schedule may still come to an instant."""
    ahead = job.next_fire_at is not None and job.cursor < instant and job.next_fire_at <= instant
    missed = (
        job.catchup_from is not None
        and job.catchup_until is not None
        and job.catchup_from < instant <= job.catchup_until
    )
    return job.scheduled and (ahead or missed)


def _at(payload, path: str):
    for name in path.split("."):
        payload = payload.get(name) if isinstance(payload, dict) else None
    return payload
