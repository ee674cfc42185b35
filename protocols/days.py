"""Days as people name them in a calendar: dates, ranges of dates, every year or once, weekdays."""

import re
from collections.abc import Iterable
from datetime import date
from typing import Final

from protocols.durations import shown

_WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DATE: Final = re.compile(r"(?:(\d{4})-)?(\d{2})-(\d{2})", re.ASCII)
_LEAP_YEAR: Final = 2024


class DayError(ValueError):
    """A text names no day; the message is one sentence that says what would."""


class DaySet:
    """The days that any of some patterns names.

    A pattern is a date (`2026-12-25`), a day of every year (`12-25`), a range of either with both
    ends in it (`2026-12-24/2027-01-02`, `12-24/01-02`), or a weekday (`sat`, `sun`).
    """

    __slots__ = ("_once", "_weekdays", "_yearly")

    def __init__(self, patterns: Iterable[str]) -> None:
        """Read the patterns.

        Raises:
            DayError: one of them names no day.
        """
        self._once: list[tuple[date, date]] = []
        self._yearly: list[tuple[tuple[int, int], tuple[int, int]]] = []
        self._weekdays: set[int] = set()
        for pattern in patterns:
            self._add(pattern.strip().lower(), pattern)

    def __contains__(self, day: date) -> bool:
        if day.weekday() in self._weekdays:
            return True
        if any(first <= day <= last for first, last in self._once):
            return True
        in_year = (day.month, day.day)
        return any(
            first <= in_year <= last if first <= last else (in_year >= first or in_year <= last)
            for first, last in self._yearly
        )

    def _add(self, text: str, written: str) -> None:
        if text in _WEEKDAYS:
            self._weekdays.add(_WEEKDAYS.index(text))
            return
        first_text, slash, last_text = text.partition("/")
        first = _DATE.fullmatch(first_text)
        last = _DATE.fullmatch(last_text) if slash else first
        if first is None or last is None or (first[1] is None) != (last[1] is None):
            raise DayError(
                f"{shown(written)} is not a day: give 2026-12-25, 12-25 for every year, a range "
                "such as 2026-12-24/2027-01-02, or a weekday such as sat"
            )
        # The days of a leap year stand for those of every year, so that 02-29 can be named.
        one, two = _date(first, written), _date(last, written)
        if first[1] is None:
            self._yearly.append(((one.month, one.day), (two.month, two.day)))
        elif two < one:
            raise DayError(f"{shown(written)} ends before it begins")
        else:
            self._once.append((one, two))


def _date(found: re.Match[str], written: str) -> date:
    try:
        return date(int(found[1] or _LEAP_YEAR), int(found[2]), int(found[3]))
    except ValueError:
        raise DayError(f"{shown(written)} is not a day: the calendar has no such date") from None
