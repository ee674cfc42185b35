"""What keeps house: which nodes live, what waited too long, and the days of history."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, Protocol

import msgspec


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
