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


class PoolLoad(msgspec.Struct, frozen=True):
    """Slots of a pool, and how many of them are taken."""

    slots: int
    running: int


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """A node that lives, by the books, with its load as of its last beat."""

    incarnation: int
    name: str
    pools: dict[str, PoolLoad] = {}


class Pulse(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a beat: what the books say of this incarnation and of the house."""

    state: Literal["up", "draining", "dead"]
    house_paused: bool
    leaderships: int
    peers: tuple[Peer, ...]
    """Who has beaten within the TTL, this node among them."""


class JanitorStore(Protocol):
    """What the node and its JanitorActor ask."""

    async def join(self, node: NodeInfo, *, now: datetime, alone: bool) -> int:
        """Enter a new incarnation and return it; `alone` declares all earlier ones dead.

        Raises:
            NameHeldError: A node of that name lives.
        """
        ...

    async def bury(self, incarnation: int, *, silent_since: datetime, now: datetime) -> None:
        """Declare one incarnation dead, unless it has beaten since; for whoever watched it."""
        ...

    async def beat(
        self,
        incarnation: int,
        *,
        running: dict[str, int],
        leads: dict[int, int],
        clock_offset_s: float,
        ttl_s: float,
    ) -> Pulse:
        """Say that this node lives, by the database's own clock; who beat within `ttl_s` too."""
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
