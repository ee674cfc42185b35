"""What is well and what is not: degraded parts since when, and whether ticks and dispatch advance.

A scheduler that is alive and not scheduling is the failure this module exists to show.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal

import msgspec

from protocols.ports.clock import Clock

STALLED_S: Final = 15.0
"""Without a sign from timers or dispatchers for so long, a node is not ready."""

Level = Literal["warning", "degraded"]


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """One part that is not as it should be."""

    part: str
    level: Level
    since: datetime
    reason: str


class HealthView(msgspec.Struct, frozen=True, kw_only=True):
    """What /health/ready answers."""

    ready: bool
    reasons: tuple[str, ...]
    troubles: tuple[Trouble, ...]
    last_tick_s: float | None
    last_dispatch_s: float | None


class Health:
    """Collects signs of life and of trouble; everything here is cheap and on the loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._troubles: dict[str, Trouble] = {}
        self._ticked: float | None = None
        self._dispatched: float | None = None
        self._leads = False
        self._started = False

    def begin(self) -> None:
        """The tree runs."""
        self._started = True
        self._ticked = self._dispatched = self._clock.monotonic()

    def lead(self, *, leads: bool) -> None:
        """A node that leads nothing has no ticks to show, and is ready all the same."""
        self._leads = leads

    def tick(self) -> None:
        """A timer has looked at what is due, or has fired it."""
        self._ticked = self._clock.monotonic()

    def dispatch(self) -> None:
        """A dispatcher has asked the store for work and had its answer."""
        self._dispatched = self._clock.monotonic()

    def trouble(self, part: str, reason: str, *, level: Level = "degraded") -> bool:
        """Note that a part is not well; True if that is news."""
        known = self._troubles.get(part)
        since = known.since if known is not None else self._clock.now()
        self._troubles[part] = Trouble(part=part, level=level, since=since, reason=reason)
        return known is None

    def mend(self, part: str) -> bool:
        """Note that a part is well; True if it was not."""
        return self._troubles.pop(part, None) is not None

    @property
    def troubles(self) -> Mapping[str, Trouble]:
        """What is not well now, by part."""
        return self._troubles

    def view(self) -> HealthView:
        """The answer to: does this node do its work?"""
        now = self._clock.monotonic()
        tick_s = None if self._ticked is None else now - self._ticked
        dispatch_s = None if self._dispatched is None else now - self._dispatched
        reasons = []
        if not self._started:
            reasons.append("the node is starting")
        elif self._leads and (tick_s is None or tick_s > STALLED_S):
            reasons.append("timers do not advance")
        if self._started and (dispatch_s is None or dispatch_s > STALLED_S):
            reasons.append("dispatchers do not advance")
        reasons += [
            f"{t.part}: {t.reason}" for t in self._troubles.values() if t.part == "database"
        ]
        return HealthView(
            ready=not reasons,
            reasons=tuple(reasons),
            troubles=tuple(self._troubles.values()),
            last_tick_s=tick_s,
            last_dispatch_s=dispatch_s,
        )
