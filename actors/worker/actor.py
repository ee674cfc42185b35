"""WorkerActor: one per pool and node, it runs what was claimed and makes every end durable.

Ends are written in batches: what ended while the last batch was being written. One that cannot
be written, because the database is away, is kept and written when it is back.
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from typing import Any, Final

import msgspec

from actors.dispatcher.messages import Assign, Demand, DemandWanted, Reconcile, Unimportable
from actors.worker.assignments import assignment_of
from actors.worker.held import Held, Key
from actors.worker.requests import answer_request
from actors.worker.retry import after_attempt
from protocols.actor import Actor, Context
from protocols.dags import is_hidden
from protocols.errors import UnavailableError
from protocols.jobs import JobSpec
from protocols.messages import CancelRequested, JobsFinished, Ready, TasksEnded
from protocols.ports.executor import Assignment, Executor, Outcome, Request
from protocols.ports.hints import Hints
from protocols.ports.store import Claimed, Finish, Finished, GiveBack, WorkerStore

POLL_S: Final = 1.0
_COMPARE_EVERY: Final = 60
"""Polls between two looks at the books where nothing asks for one: the look reads all that runs."""
_STOP_POLL_S: Final = 0.02
BATCH: Final = 1000
"""At most this many ends a statement."""
_BACKOFF_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
_FETCH_AGAIN_S: Final = 0.5


class Reported(msgspec.Struct, frozen=True):
    """The executor has put reports into `Held.inbox`; any number of these may become one."""


class _Retry(msgspec.Struct, frozen=True):
    """A write that failed may be tried again."""


class _FetchAgain(msgspec.Struct, frozen=True):
    """Definitions that could not be had may be asked for again."""


class _Poll(msgspec.Struct, frozen=True):
    """Look for cancels that no hint told of, and now and then compare with the books."""


class _Known(msgspec.Struct, frozen=True):
    """Definitions arrived; None where the books have none."""

    keys: Sequence[tuple[int, int]]
    specs: Sequence[JobSpec | None]


class _Written(msgspec.Struct, frozen=True):
    finishes: Sequence[Finish]
    finished: Finished


class _GivenBack(msgspec.Struct, frozen=True):
    given: Sequence[GiveBack]


class _Books(msgspec.Struct, frozen=True):
    """What the store says this node runs, and what of it somebody wants cancelled."""

    running: Sequence[Key] | None
    cancels: Sequence[Key]


class _Failed(msgspec.Struct, frozen=True):
    what: str
    error: Exception


class WorkerActor(Actor):
    """Runs attempts of one pool on this node."""

    def __init__(
        self,
        *,
        store: WorkerStore,
        executor: Executor,
        hints: Hints,
        held: Held,
        pool: str,
        incarnation: int,
        grace_s: float,
    ) -> None:
        self._store = store
        self._executor = executor
        self._hints = hints
        self._held = held
        self._pool = pool
        self._incarnation = incarnation
        self.refused = 0
        """Ends that the books did not take: their token was not in force any more."""
        self._writing = False
        self._fetching = False
        self._looking = False
        self._waiting = False
        self._failures = 0
        self._reconcile = True
        self._polls = 0
        self._grace_s = grace_s
        self._limited: set[Key] = set()
        """Whose end, once it is durable, makes room for another of its job."""
        self._of_dags: set[Key] = set()
        """Whose end, once it is durable, moves a run on."""
        self._unheld: frozenset[Key] = frozenset()

    async def on_start(self, ctx: Context) -> None:
        """Be found by the dispatcher; take up what a former instance had not yet started."""
        ctx.register(f"worker:{self._pool}")
        self._held.reassign_unstarted(self._executor.holds())
        for request in list(self._held.requests.values()):
            self._answer(request, ctx)
        ctx.every(POLL_S, _Poll())
        self._go_on(ctx)

    async def receive(self, message: Any, ctx: Context) -> None:
        """Assignments, reports, cancels, and the outcomes of the store's statements."""
        match message:
            case Assign(claimed=claimed, session=session, sent=sent):
                if not self._held.receive(claimed, session=session, sent=sent):
                    self._reconcile = True
            case _Written():
                self._written(message)
            case _GivenBack(given=given):
                self._handed_back(given)
            case _Known():
                self._learn(message)
            case DemandWanted():
                self._demand(ctx)
            case CancelRequested(id=id_, fencing_token=token):
                self._executor.cancel(id_, token)
            case _Poll():
                self._look(ctx)
            case _Books():
                self._compare(message)
            case Reconcile():
                self._reconcile = True
            case _Retry():
                self._waiting = False
            case _FetchAgain():
                self._fetching = False
            case _Failed():
                self._failed(message, ctx)
        self._go_on(ctx)

    async def on_stop(self, ctx: Context) -> None:
        """At the node's end: hand back what has not started, let the rest end, write every end.

        Where only this actor ends, the next one takes up what is held, and nothing that runs ends.
        """
        held = self._held
        if not held.closing:
            return
        await ctx.drain()
        for row in held.drop_assigned():
            self._give_back(row, None)
        await self._disown_unheld()
        stopping = ctx.pipe(self._executor.stop(self._grace_s))
        while held.busy or not stopping.done:
            self._take(ctx)
            finishes, given = self._unwritten()
            try:
                if finishes:
                    self._written(
                        _Written(finishes, await self._store.finish(self._incarnation, finishes))
                    )
                elif given:
                    self._handed_back((await self._hand_back(given)).given)
                else:
                    await ctx.sleep(_STOP_POLL_S)
            except UnavailableError:
                await ctx.sleep(_BACKOFF_S[-1])

    async def _disown_unheld(self) -> None:
        """Hand back what was claimed and never came: nobody claims for this node any more."""
        try:
            running = await self._store.running(self._incarnation, self._pool)
        except UnavailableError:
            return  # the books will find it lost
        for key in running:
            if key not in self._held:
                self._held.disown(key)

    def _go_on(self, ctx: Context) -> None:
        """Do what can be done now: take reports, start work, write ends, ask for more."""
        held = self._held
        self._take(ctx)
        if not self._fetching and (unknown := held.unknown()):
            self._fetching = True
            ctx.pipe(self._fetch(unknown), on_error=lambda error: _Failed("definitions", error))
        if rows := held.startable():
            self._start(rows, ctx)
        if not self._writing and not self._waiting:
            self._write(ctx)
        self._demand(ctx)

    async def _fetch(self, keys: Sequence[tuple[int, int]]) -> _Known:
        return _Known(keys, await self._store.definitions(keys))

    def _learn(self, known: _Known) -> None:
        self._fetching, self._failures = False, 0
        for key, spec in zip(known.keys, known.specs, strict=True):
            if spec is not None:
                self._held.specs[key] = spec
        missing = {k for k, spec in zip(known.keys, known.specs, strict=True) if spec is None}
        if missing:
            for row in self._held.drop_assigned():
                if (row.job_key, row.version) in missing:
                    self._give_back(row, "unimportable")
                else:
                    self._held.assign([row])

    def _start(self, rows: Sequence[Claimed], ctx: Context) -> None:
        """Start these; those that may have a checkpoint get it first."""
        plain: list[Claimed] = []
        resuming: list[Claimed] = []
        for row in rows:
            spec = self._held.specs[row.job_key, row.version]
            resumes = row.attempt > 1 or spec.checkpoint == "job"
            (resuming if resumes else plain).append(row)
        if plain:
            self._executor.start([self._assignment(row, None) for row in plain])
        if resuming:
            ctx.pipe(self._resume(resuming, ctx))

    async def _resume(self, rows: Sequence[Claimed], ctx: Context) -> None:
        tries = 0
        while True:
            try:
                saved = await self._store.checkpoints([row.id for row in rows])
            except UnavailableError:
                await ctx.sleep(_BACKOFF_S[min(tries, len(_BACKOFF_S) - 1)])
                tries += 1
                continue
            break
        self._executor.start([self._assignment(row, saved.get(row.id)) for row in rows])

    def _assignment(self, row: Claimed, checkpoint: bytes | None) -> Assignment:
        return assignment_of(row, self._held.specs[row.job_key, row.version], checkpoint)

    def _take(self, ctx: Context) -> None:
        """Handle what the executor told; one at a time, so that a fault loses none of the rest."""
        inbox = self._held.inbox
        if not inbox:
            return
        now = ctx.clock.now()
        while inbox:
            report = inbox.popleft()
            if isinstance(report, Outcome):
                self._end(report, now, ctx)
            elif isinstance(report, Request):
                self._held.requests[report.number] = report
                self._answer(report, ctx)

    def _answer(self, request: Request, ctx: Context) -> None:
        """Do what an attempt asks; a worker that is restarted meanwhile does it again."""
        row = self._held.running.get((request.id, request.fencing_token))
        if row is None:
            self._held.requests.pop(request.number)
            self._executor.answer(request.number, error="this attempt has ended")
            return
        tenant = row.tenant

        async def answer() -> None:
            await answer_request(request, tenant, self._store, self._executor, self._hints, ctx)
            self._held.requests.pop(request.number, None)

        ctx.pipe(answer)

    def _end(self, outcome: Outcome, now: datetime, ctx: Context) -> None:
        key = (outcome.id, outcome.fencing_token)
        row = self._held.running.pop(key, None)
        if row is None:
            return
        if outcome.state == "unstarted":
            self._unstarted(row, outcome, ctx)
            return
        spec = self._held.specs[row.job_key, row.version]
        self._held.ended[key] = after_attempt(row, spec, outcome, now=now, rng=ctx.random)
        if spec.concurrency_limit is not None:
            self._limited.add(key)
        if is_hidden(row.job_id):
            self._of_dags.add(key)

    def _unstarted(self, row: Claimed, outcome: Outcome, ctx: Context) -> None:
        if outcome.unimportable:
            dispatcher = ctx.lookup(f"dispatcher:{self._pool}")
            if dispatcher is not None:
                dispatcher.tell(Unimportable(row.job_key, row.version))
        self._give_back(row, "unimportable" if outcome.unimportable else None)

    def _give_back(self, row: Claimed, reason: str | None) -> None:
        key = (row.id, row.fencing_token)
        self._held.given[key] = GiveBack(row.id, row.fencing_token, reason)

    def _unwritten(self) -> tuple[Sequence[Finish], Sequence[GiveBack]]:
        held = self._held
        return (
            tuple(islice(held.ended.values(), BATCH)),
            tuple(islice(held.given.values(), BATCH)),
        )

    def _write(self, ctx: Context) -> None:
        finishes, given = self._unwritten()
        if finishes:
            ctx.pipe(self._finish(finishes), on_error=lambda error: _Failed("write", error))
        elif given:
            ctx.pipe(self._hand_back(given), on_error=lambda error: _Failed("write", error))
        self._writing = bool(finishes or given)

    async def _finish(self, finishes: Sequence[Finish]) -> _Written:
        return _Written(finishes, await self._store.finish(self._incarnation, finishes))

    async def _hand_back(self, given: Sequence[GiveBack]) -> _GivenBack:
        await self._store.give_back(self._incarnation, given)
        return _GivenBack(given)

    def _written(self, written: _Written) -> None:
        self._writing, self._failures = False, 0
        ready = False
        of_dags = len(self._of_dags)
        for finish in written.finishes:
            key = (finish.id, finish.fencing_token)
            self._held.ended.pop(key, None)
            self._of_dags.discard(key)
            ready = ready or finish.state == "scheduled" or key in self._limited
            self._limited.discard(key)
        self.refused += len(written.finishes) - len(written.finished.accepted)
        if written.finished.followers:
            self._hints.send(JobsFinished(tuple(written.finished.followers)))
        if len(self._of_dags) < of_dags:
            self._hints.send(TasksEnded())
        if ready:
            self._hints.send(Ready(self._pool))

    def _handed_back(self, given: Sequence[GiveBack]) -> None:
        self._writing, self._failures = False, 0
        for row in given:
            self._held.given.pop((row.id, row.fencing_token), None)
        self._hints.send(Ready(self._pool))

    def _failed(self, failed: _Failed, ctx: Context) -> None:
        """The store could not be reached: keep all, and try again after a while."""
        if failed.what == "definitions":
            ctx.after(_FETCH_AGAIN_S, _FetchAgain())
        elif failed.what == "books":
            self._looking = False
        else:
            self._writing = False
        if not isinstance(failed.error, UnavailableError):
            raise failed.error
        if failed.what == "write":
            self._waiting = True
            wait = _BACKOFF_S[min(self._failures, len(_BACKOFF_S) - 1)]
            self._failures += 1
            ctx.after(wait, _Retry())

    def _look(self, ctx: Context) -> None:
        self._polls += 1
        compare = self._reconcile or self._polls % _COMPARE_EVERY == 0
        if not self._looking and (compare or self._held.busy):
            self._looking = True
            ctx.pipe(self._read_books(compare), on_error=lambda error: _Failed("books", error))

    async def _read_books(self, compare: bool) -> _Books:  # noqa: FBT001
        cancels = await self._store.cancel_requests(self._incarnation)
        running = await self._store.running(self._incarnation, self._pool) if compare else None
        return _Books(running, cancels)

    def _compare(self, books: _Books) -> None:
        """What the books say runs here and nobody holds, twice in a row, never started."""
        self._looking = False
        for id_, token in books.cancels:
            self._executor.cancel(id_, token)
        if books.running is None:
            return
        unheld = frozenset(key for key in books.running if key not in self._held)
        for key in unheld & self._unheld:
            self._held.disown(key)
        self._unheld = unheld
        self._reconcile = bool(unheld)

    def _demand(self, ctx: Context) -> None:
        dispatcher = ctx.lookup(f"dispatcher:{self._pool}")
        if dispatcher is not None:
            dispatcher.tell(Demand(self._held.free, *self._held.received))
