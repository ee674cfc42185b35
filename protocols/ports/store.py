"""The Store port: all state there is, and the only way to change it.

One small protocol per actor that asks; an adapter fulfils them all. Every method is one round
trip, takes its instants from the caller's Clock, and may be repeated after a lost answer: a
repeat finds its proof (epoch, cursor, fencing token) spent and changes nothing.
`UnavailableError` means that nothing is known to be durable; `FencedError` that a newer term
has begun.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, Protocol

import msgspec

from protocols.errors import KeyReusedError, NotFoundError
from protocols.executions import AttemptState, SkipReason
from protocols.jobs import JobSpec
from protocols.ports.executor import Output

SHARDS = 256
"""How many fixed shards jobs fall into; `timer.shards` groups these into leaderships."""


# --- what fires -----------------------------------------------------------------------------


class Term(msgspec.Struct, frozen=True):
    """One leader's time in office: its shards are those with `shard % leaderships == number`."""

    number: int
    leaderships: int
    epoch: int


class DueSchedule(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule row as last read; instants up to `cursor` are decided.

    `catchup_from` and `catchup_until` (exclusive, inclusive) bound the missed instants that are
    still to be decided, oldest first, beside the live end. `next_fire_at` is None where only
    these are left.
    """

    job_key: int
    version: int
    cursor: datetime
    next_fire_at: datetime | None
    anchor: datetime
    catchup_from: datetime | None = None
    catchup_until: datetime | None = None


class DueInstant(msgspec.Struct, frozen=True, kw_only=True):
    """One decided instant, or a run of `count` instants skipped for one reason up to `last`.

    `caught_up` marks a missed instant that runs all the same: it waits its turn, under
    `overlap: skip` too.
    """

    scheduled_for: datetime
    run_at: datetime
    skip: SkipReason | None = None
    last: datetime | None = None
    count: int = 1
    caught_up: bool = False


class Firing(msgspec.Struct, frozen=True, kw_only=True):
    """What one evaluation of a schedule decided; applied whole, or not at all.

    Refused where the row is no longer at (`version`, `seen_cursor`, `seen_catchup_from`).
    """

    job_key: int
    version: int
    spec: JobSpec
    seen_cursor: datetime
    seen_catchup_from: datetime | None = None
    cursor: datetime
    next_fire_at: datetime | None
    catchup_from: datetime | None = None
    catchup_until: datetime | None = None
    instants: Sequence[DueInstant] = ()


class Fired(msgspec.Struct, frozen=True, kw_only=True):
    """`moved`: job keys whose firing was applied; the others' rows had changed and are re-read."""

    moved: Sequence[int]
    pools: Sequence[str]
    """Pools that now have something to claim."""
    followers: Sequence[int] = ()
    """Jobs with something that waits: settle these, since what they wait for may just have
    ended."""


class TimerStore(Protocol):
    """What a TimerActor asks."""

    async def take_epoch(self, number: int, incarnation: int, *, now: datetime) -> Term:
        """Begin a term: raise the leadership's epoch by one, and return it."""
        ...

    async def due(self, term: Term, *, until: datetime, limit: int) -> Sequence[DueSchedule]:
        """Schedules of this term with `next_fire_at <= until`, soonest first.

        Behind them come those that still have missed instants to decide.
        """
        ...

    async def definitions(self, keys: Sequence[tuple[int, int]]) -> Sequence[JobSpec | None]:
        """The specs of these (job_key, version), in the order asked; None for unknown ones."""
        ...

    async def fire(self, term: Term, firings: Sequence[Firing], *, now: datetime) -> Fired:
        """Move cursors and insert the executions of all firings, in one statement.

        Overlap, pause and dependencies are decided here, against what is committed: an instant
        becomes `scheduled`, `blocked` or `skipped` with its reason. Raises `FencedError` where
        the term's epoch is not the leadership's any more.
        """
        ...


# --- what runs ------------------------------------------------------------------------------


class Lane(msgspec.Struct, frozen=True):
    """A (tenant, priority) with work that is due; `limit_key` set where a limit guards it."""

    tenant: str
    priority: int
    limit_key: str | None = None


class Lanes(msgspec.Struct, frozen=True):
    """Lanes of a pool with work due now, and when the next row of the pool falls due."""

    due: Sequence[Lane]
    next_run_at: datetime | None


class Budget(msgspec.Struct, frozen=True):
    """At most this many from this lane."""

    lane: Lane
    count: int


class Claimed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An execution that this node now runs, by the proof of `fencing_token`."""

    id: int
    created_at: datetime
    tenant: str
    job_id: str
    job_key: int
    version: int
    priority: int
    scheduled_for: datetime
    attempt: int
    failures: int
    losses: int
    fencing_token: int
    input: bytes | None


class GiveBack(msgspec.Struct, frozen=True):
    """A claimed execution that never started: handed back without a trace in its attempts."""

    id: int
    fencing_token: int
    reason: str | None = None
    """`unimportable` where this node can never run it."""


class DispatchStore(Protocol):
    """What a DispatcherActor asks."""

    async def lanes(self, pool: str, *, now: datetime, level: int) -> Lanes:
        """Where work of this pool is due, found without reading the backlog."""
        ...

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
        """Take due rows lane by lane, oldest `run_at` first, in one statement.

        `level` is the protocol level this node understands; `refused` the (job_key, version)
        that it cannot import. Limits are exact: a limited lane yields what its holders leave.
        Yields nothing while the house is paused, or the incarnation is dead or draining.
        """
        ...

    async def give_back(self, incarnation: int, given: Sequence[GiveBack]) -> None:
        """Make these claimable again; the claim's `attempt` is taken off."""
        ...


class Finish(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How an attempt ended, and what becomes of its execution.

    `state` is `scheduled` for a retry (then `run_at` is set), else final. `spends` says which
    budget the attempt used. `started_ns` and `finished_ns` are since 1970, kept to the microsecond:
    nobody here reads them, and a datetime for each cost more than the rest of the end.
    """

    id: int
    fencing_token: int
    attempt_state: AttemptState
    state: Literal["succeeded", "dead", "cancelled", "scheduled"]
    started_ns: int
    finished_ns: int
    spends: Literal["retry", "lost", "none"] = "none"
    run_at: datetime | None = None
    reason: str | None = None
    exit_code: int | None = None
    error: str | None = None
    result: bytes | None = None
    output: Output | None = None


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """`accepted`: ids whose finish was written; others carried a token that is not in force."""

    accepted: Sequence[int]
    followers: Sequence[int]
    """Job keys whose finish may let something else run: settle these."""


class WorkerStore(Protocol):
    """What a WorkerActor asks."""

    async def definitions(self, keys: Sequence[tuple[int, int]]) -> Sequence[JobSpec | None]:
        """As in `TimerStore`."""
        ...

    async def checkpoints(self, ids: Sequence[int]) -> dict[int, bytes]:
        """The last checkpoint (JSON) of each of these executions that has one."""
        ...

    async def finish(self, incarnation: int, finishes: Sequence[Finish]) -> Finished:
        """Write these ends, in one statement; a finish with a spent token changes nothing."""
        ...

    async def give_back(self, incarnation: int, given: Sequence[GiveBack]) -> None:
        """As in `DispatchStore`."""
        ...

    async def save_checkpoint(self, id: int, token: int, value: bytes, *, now: datetime) -> bool:  # noqa: A002
        """Keep a running attempt's checkpoint (JSON); False where its token is not in force."""
        ...

    async def once(
        self,
        id: int,  # noqa: A002
        token: int,
        key: str,
        ttl_s: float,
        *,
        now: datetime,
    ) -> Literal["first", "again", "no"] | None:
        """May this attempt do the piece of work named `key`? None where its token is spent."""
        ...

    async def emit(
        self,
        tenant: str,
        event: str,
        payload: bytes | None,
        *,
        now: datetime,
        key: str | None = None,
    ) -> None:
        """Append an event, by which `on: {event: ...}` jobs are triggered."""
        ...

    async def cancel_requests(self, incarnation: int) -> Sequence[tuple[int, int]]:
        """The (id, fencing token) that this node runs and that somebody asked to cancel."""
        ...

    async def running(self, incarnation: int, pool: str) -> Sequence[tuple[int, int]]:
        """The (id, fencing token) of this pool that the books say this node runs.

        It reads what is not final from end to end: for starts and doubts, not for every poll.
        """
        ...


# --- what is asked for ------------------------------------------------------------------------


class TriggerRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Run a job once, now or at `run_at`; exactly one of `job_id` and `job_key` is set.

    `key` is an idempotency key, which lives 24 hours: the same key and `body_hash` stand for the
    same execution. A trigger by an event takes a key made of the event's place in the log.
    """

    tenant: str
    job_id: str | None = None
    job_key: int | None = None
    input: bytes | None = None
    """JSON."""
    run_at: datetime | None = None
    with_dependencies: bool = False
    key: str | None = None
    body_hash: bytes = b""


class Triggered(msgspec.Struct, frozen=True, kw_only=True):
    """The execution that answers a request; `known` where its key had been used before.

    `state` and `pool` are those it was born with, None for a known one. A blocked one's job is
    to be settled.
    """

    id: int
    created_at: datetime
    job_key: int
    known: bool = False
    state: str | None = None
    pool: str | None = None


class TriggerStore(Protocol):
    """What makes executions that no schedule fired."""

    async def trigger(
        self, requests: Sequence[TriggerRequest], *, now: datetime
    ) -> Sequence[Triggered | NotFoundError | KeyReusedError]:
        """Insert one execution for each request, in one statement; answers stand in its order.

        An error is that of its request alone. One meant for later stays out of its job's turn
        (`blocked: delayed`, unless `overlap: allow`) until `settle` finds its `run_at` passed.
        """
        ...


# --- what keeps house -----------------------------------------------------------------------


class NodeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a node says of itself when it joins."""

    name: str
    url: str
    pid: int
    host: str
    version: str
    level: int
    pools: dict[str, int]
    """Slots by pool."""


class Pulse(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a beat: what the books say of this incarnation and of the house."""

    state: Literal["up", "draining", "dead"]
    house_paused: bool
    leaderships: int


class JanitorStore(Protocol):
    """What the node and its JanitorActor ask."""

    async def join(self, node: NodeInfo, *, now: datetime, alone: bool) -> int:
        """Enter a new incarnation and return it; `alone` declares all earlier ones dead."""
        ...

    async def beat(
        self,
        incarnation: int,
        *,
        running: dict[str, int],
        leads: dict[int, int],
        clock_offset_s: float,
    ) -> Pulse:
        """Say that this node lives, by the database's own clock."""
        ...

    async def leave(self, incarnation: int, *, now: datetime) -> None:
        """End this incarnation in good order."""
        ...

    async def declare_dead(self, *, ttl_s: float, now: datetime) -> Sequence[int]:
        """Incarnations with no beat for `ttl_s` are dead and what they ran is `lost`, at once.

        Each lost attempt is written, and its execution is `scheduled` again, or `dead` where
        `max_lost` is spent or the job is `at_most_once`. Returns the incarnations.
        """
        ...

    async def expire(self, *, now: datetime, limit: int) -> int:
        """Unstarted executions past their `expires` become `skipped: expired`; how many did."""
        ...

    async def tidy(self, *, now: datetime, keep_s: float) -> None:
        """Make the coming days' partitions, drop old ones, fold long runs of skipped rows."""
        ...


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """Pools that now have something to claim, and whether there is more to do at once."""

    pools: Sequence[str] = ()
    schedules_changed: bool = False
    more: bool = False


class WaitingStore(Protocol):
    """What lets blocked work go, and what reads the event log for triggers."""

    async def settle(self, job_keys: Sequence[int] | None, *, now: datetime) -> Settled:
        """Unblock all that may run now, of these jobs or of all; level-triggered.

        Turns that came free, dependencies met or failed, `@after` schedules whose job finished.
        """
        ...

    async def run_triggers(self, *, now: datetime, limit: int) -> Settled:
        """Read the event log from where the last call ended and trigger `on:` jobs, once each."""
        ...


class Store(
    TimerStore, DispatchStore, WorkerStore, TriggerStore, JanitorStore, WaitingStore, Protocol
):
    """All of it: what one adapter fulfils."""
