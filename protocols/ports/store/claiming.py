"""What a dispatcher asks of the store: which lanes have work, and a share of it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec


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
