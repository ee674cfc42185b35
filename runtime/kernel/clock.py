"""A Clock for a system that is given none: the wall clock read once, then counted on."""

import time
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def instant(epoch_ns: int) -> datetime:
    """Epoch nanoseconds as an aware datetime, cut to the microsecond."""
    return EPOCH + timedelta(microseconds=epoch_ns // 1000)


class LocalClock:
    """Counts on from one look at the wall clock, so that a jump of that changes nothing."""

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()
        self.monotonic = time.monotonic
        self.monotonic_ns = time.monotonic_ns

    def now(self) -> datetime:
        """This moment, aware, in UTC."""
        return instant(self.now_ns())

    def now_ns(self) -> int:
        """This moment in epoch nanoseconds."""
        return self._offset_ns + time.monotonic_ns()
