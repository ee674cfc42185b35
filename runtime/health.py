"""What is well and what is not: degraded parts since when, and whether ticks and dispatch advance.

A scheduler that is alive and not scheduling is the failure this module exists to show.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final, Literal

import msgspec

from protocols.ports.clock import Clock

STALLED_S: Final = 15.0
"""Without a sign from a timer or a dispatcher for so long, a node is not ready."""

Level = Literal["warning", "degraded"]


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """One part that is not as it should be."""

    part: str
    level: Level
    since: datetime
    reason: str


class HealthView(msgspec.Struct, frozen=True, kw_only=True):
    """What /health/ready answers; the ages, in seconds, are those of the part that is oldest."""

    ready: bool
    reasons: tuple[str, ...]
    troubles: tuple[Trouble, ...]
    last_tick_s: float | None
    last_dispatch_s: float | None


class Health:
    """Collects signs of life and of trouble; everything here is cheap and on the loop.

    Each timer and each dispatcher answers for itself: one that stands still is not hidden by the
    others that go on, nor one that never came up at all.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._troubles: dict[str, Trouble] = {}
        self._ticked: dict[int, float] = {}
        self._dispatched: dict[str, float] = {}
        self._led: Mapping[int, int] | None = None
        self._idle: str | None = "the node is starting"

    def begin(
        self,
        *,
        timers: Iterable[int] = (),
        pools: Iterable[str] = (),
        led: Mapping[int, int] | None = None,
    ) -> None:
        """The tree runs, and with it these dispatchers and timers, by group of shards.

        Of several nodes none must lead: there only the timers of `led`, which may change, count.
        """
        now = self._clock.monotonic()
        self._led = led
        self._ticked = dict.fromkeys(timers, now)
        self._dispatched = dict.fromkeys(pools, now)
        self._idle = None

    def idle(self, reason: str) -> None:
        """Not to be given work from here on."""
        self._idle = reason

    def end(self) -> None:
        """The tree is about to stop."""
        self.idle("the node is ending")

    @property
    def _timers(self) -> Mapping[int, float]:
        if self._led is None:
            return self._ticked
        return {number: at for number, at in self._ticked.items() if number in self._led}

    def tick(self, number: int) -> None:
        """A timer has looked at what is due, or has fired it."""
        self._ticked[number] = self._clock.monotonic()

    def dispatch(self, pool: str) -> None:
        """A dispatcher has asked the store for work and had its answer."""
        self._dispatched[pool] = self._clock.monotonic()

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
        reasons = []
        if self._idle is not None:
            reasons.append(self._idle)
        else:
            for what, signs in (("timers", self._timers), ("dispatchers", self._dispatched)):
                still = [str(one) for one, at in signs.items() if now - at > STALLED_S]
                if still:
                    reasons.append(f"{what} do not advance: {', '.join(still)}")
        if (away := self._troubles.get("database")) is not None:
            reasons.append(f"database: {away.reason}")
        return HealthView(
            ready=not reasons,
            reasons=tuple(reasons),
            troubles=tuple(self._troubles.values()),
            last_tick_s=_age_s(self._timers.values(), now),
            last_dispatch_s=_age_s(self._dispatched.values(), now),
        )


def _age_s(signs: Iterable[float], now: float) -> float | None:
    oldest = min(signs, default=None)
    return None if oldest is None else now - oldest
