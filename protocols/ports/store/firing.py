"""What a timer asks of the store: its term, what is due, and the firing of it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from protocols.executions import SkipReason
from protocols.jobs import JobSpec

SHARDS = 256
"""How many fixed shards jobs fall into; `timer.shards` groups these into leaderships."""


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
