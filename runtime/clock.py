"""The database's time, counted on by this node's own monotonic clock between samples.

A sample brackets the database's reading between two of ours: it was taken after we asked and
before we heard. `now` is the lower bound of what all samples allow, so that nothing fires early;
between samples it counts on by CLOCK_BOOTTIME where there is one, so that a suspended laptop is
not an hour behind. The node's wall clock is read for one purpose: to say how far off it is.
"""

import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Final

import msgspec

from protocols.instants import from_epoch_ns

DRIFT_PPM: Final = 500
"""How far two clocks may run apart: NTP slews by at most 500 parts in a million (adjtimex(2))."""
WARN_STEP_S: Final = 0.010
DEGRADED_STEP_S: Final = 1.0
_SAMPLES_KEPT: Final = 16
_BOOTTIME: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def monotonic_ns() -> int:
    """Nanoseconds that pass whatever the wall clock does, a suspend included."""
    return time.clock_gettime_ns(_BOOTTIME)


def wall_ns() -> int:
    """The node's own wall clock, of which nothing depends."""
    return time.time_ns()


class Sample(msgspec.Struct, frozen=True):
    """The database said `database_ns` at some moment between `asked_ns` and `heard_ns`."""

    asked_ns: int
    database_ns: int
    heard_ns: int


class Step(msgspec.Struct, frozen=True):
    """A sample disagreed with what the earlier ones allow, by so many seconds; it was adopted."""

    by_s: float


class DatabaseClock:
    """The Clock port over samples of PostgreSQL's clock."""

    def __init__(
        self,
        *,
        monotonic: Callable[[], int] = monotonic_ns,
        wall: Callable[[], int] = wall_ns,
    ) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._samples: deque[Sample] = deque(maxlen=_SAMPLES_KEPT)
        self._offset_ns = wall() - monotonic()
        self.offset_s = 0.0
        """This node's wall clock less the database's, in seconds, at the last sample."""

    def adopt(self, sample: Sample) -> Step | None:
        """Take a sample in; return the step where it contradicts those before it."""
        low, high = self._bounds(sample.heard_ns)
        new_low = sample.database_ns - sample.heard_ns
        new_high = sample.database_ns - sample.asked_ns
        step = None
        if self._samples and (new_low > high or new_high < low):
            by_ns = new_low - high if new_low > high else new_high - low
            step = Step(by_ns / 1e9)
            self._samples.clear()
        self._samples.append(sample)
        self._offset_ns = self._bounds(sample.heard_ns)[0]
        middle_ns = (sample.asked_ns + sample.heard_ns) // 2
        wall_then_ns = self._wall() - (self._monotonic() - middle_ns)
        self.offset_s = (wall_then_ns - sample.database_ns) / 1e9
        return step if step is not None and abs(step.by_s) >= WARN_STEP_S else None

    def _bounds(self, at_ns: int) -> tuple[int, int]:
        """The least and the greatest offset, database less monotonic, that the samples allow."""
        low, high = -(1 << 63), 1 << 63
        for sample in self._samples:
            drift = max(0, at_ns - sample.heard_ns) * DRIFT_PPM // 1_000_000
            low = max(low, sample.database_ns - sample.heard_ns - drift)
            high = min(high, sample.database_ns - sample.asked_ns + drift)
        return low, high

    def now_ns(self) -> int:
        """Nanoseconds since 1970, by the database's clock, never more than it says."""
        return self._monotonic() + self._offset_ns

    def now(self) -> datetime:
        """This moment, aware, in UTC."""
        return from_epoch_ns(self.now_ns())

    def at_monotonic(self, monotonic_ns_: int) -> int:
        """The instant (ns since 1970) of a moment on this machine's monotonic clock."""
        return monotonic_ns_ + self._offset_ns

    def monotonic(self) -> float:
        """Seconds that pass whatever any wall clock does."""
        return self._monotonic() / 1e9

    def monotonic_ns(self) -> int:
        """The same in nanoseconds."""
        return self._monotonic()
