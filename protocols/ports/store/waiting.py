"""What lets blocked work go, and makes what follows from events."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec


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
