"""Sources of instants: one small protocol, and the rules of `cron`, `every` and `at` behind it.

Instants are whole microseconds since the epoch. Whatever a source names can be searched in both
directions and counted without being enumerated, so that an outage of years costs arithmetic.
"""

from collections.abc import Iterator
from typing import Final, Protocol

from actors.timer.dst import Timetable

SECOND_US: Final = 1_000_000


class Source(Protocol):
    """Due instants, in microseconds since the epoch."""

    def next_after(self, instant: int) -> int | None:
        """Return the first instant after `instant`, or None."""
        ...

    def last_until(self, instant: int) -> int | None:
        """Return the last instant at or before `instant`, or None."""
        ...

    def between(self, after: int, until: int) -> Iterator[int]:
        """Yield the instants in (after, until], in order."""
        ...

    def count(self, after: int, until: int) -> int:
        """Count the instants in (after, until]."""
        ...


class CronSource:
    """The instants of a cron expression in its zone."""

    __slots__ = ("_table",)

    def __init__(self, table: Timetable) -> None:
        self._table = table

    def next_after(self, instant: int) -> int | None:
        """Return the first instant after `instant`, or None."""
        second = self._table.next_after(instant // SECOND_US)
        return None if second is None else second * SECOND_US

    def last_until(self, instant: int) -> int | None:
        """Return the last instant at or before `instant`, or None."""
        second = self._table.last_until(instant // SECOND_US)
        return None if second is None else second * SECOND_US

    def between(self, after: int, until: int) -> Iterator[int]:
        """Yield the instants in (after, until], in order."""
        for second in self._table.between(after // SECOND_US, until // SECOND_US):
            yield second * SECOND_US

    def count(self, after: int, until: int) -> int:
        """Count the instants in (after, until]."""
        return self._table.count(after // SECOND_US, until // SECOND_US)


class EverySource:
    """`anchor + n * interval`, n from 0 on, in real time; a zone's clock changes do not matter."""

    __slots__ = ("_anchor", "_interval")

    def __init__(self, *, anchor_us: int, interval_us: int) -> None:
        self._anchor = anchor_us
        self._interval = interval_us

    def next_after(self, instant: int) -> int | None:
        """Return the first instant after `instant`."""
        if instant < self._anchor:
            return self._anchor
        return instant + self._interval - (instant - self._anchor) % self._interval

    def last_until(self, instant: int) -> int | None:
        """Return the last instant at or before `instant`, or None before the anchor."""
        if instant < self._anchor:
            return None
        return instant - (instant - self._anchor) % self._interval

    def between(self, after: int, until: int) -> Iterator[int]:
        """Yield the instants in (after, until], in order."""
        first = self.next_after(after)
        assert first is not None, "an interval never ends"
        return iter(range(first, until + 1, self._interval))

    def count(self, after: int, until: int) -> int:
        """Count the instants in (after, until]."""
        return max(0, self._number(until) - self._number(after))

    def _number(self, instant: int) -> int:
        """Count the instants at or before `instant`."""
        return max(0, (instant - self._anchor) // self._interval + 1)


class AtSource:
    """One instant, once."""

    __slots__ = ("_at",)

    def __init__(self, at_us: int) -> None:
        self._at = at_us

    def next_after(self, instant: int) -> int | None:
        """Return the instant, where it is after `instant`."""
        return self._at if self._at > instant else None

    def last_until(self, instant: int) -> int | None:
        """Return the instant, where it is at or before `instant`."""
        return self._at if self._at <= instant else None

    def between(self, after: int, until: int) -> Iterator[int]:
        """Yield the instant, where it is in (after, until]."""
        return iter((self._at,) if after < self._at <= until else ())

    def count(self, after: int, until: int) -> int:
        """Count it, where it is in (after, until]."""
        return int(after < self._at <= until)
