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
    place: int = 0
    """Of a look at all: where the next one goes on; 0, at the beginning."""


class WaitingStore(Protocol):
    """What lets blocked work go, and what reads the event log for triggers."""

    async def settle(
        self, job_keys: Sequence[int] | None, *, now: datetime, after: int = 0
    ) -> Settled:
        """Unblock all that may run now, of these jobs or of all; level-triggered.

        Turns that came free, dependencies met or failed, `@after` schedules whose job finished.

        Args:
            job_keys: these; None for all, of which one call looks at a bounded number with
                something blocked.
            now: the instant.
            after: of all, those with a greater key: the `place` of the call before.
        """
        ...

    async def run_triggers(self, *, now: datetime, limit: int) -> Settled:
        """Read the event log from where the last call ended and trigger `on:` jobs, once each."""
        ...
