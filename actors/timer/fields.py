"""The fields of a cron expression as tables: which times of a day, and which days of a year.

Values come as croniter expands them: numbers, `*` for all of them, and `l` for the last day.
"""

from typing import Final

_MONTH_LENGTHS: Final = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class TimeField:
    """The values of a time field, with the next and the last one for every value."""

    __slots__ = ("final", "first", "last", "next", "values")

    def __init__(self, expanded: list[int | str], size: int) -> None:
        self.values = [v for v in range(size) if "*" in expanded or v in expanded]
        self.first, self.final = self.values[0], self.values[-1]
        self.next = [-1] * (size + 1)
        self.last = [-1] * (size + 1)
        for value in reversed(range(size)):
            self.next[value] = value if value in self.values else self.next[value + 1]
        for value in range(size):
            self.last[value] = value if value in self.values else self.last[value - 1]


class DayRule:
    """Which days match: the month, the day of month with L and W, the day of week with # and L."""

    __slots__ = ("_dom", "_dow", "_either", "_months", "_nearest", "_nth")

    def __init__(
        self,
        *,
        months: list[int | str],
        dom: list[int | str],
        dow: list[int | str],
        nth: dict[int, set[int | str]],
        nearest: set[int],
        either: bool,
    ) -> None:
        self._months = frozenset(range(1, 13) if "*" in months else months)
        self._dom, self._nearest = frozenset(dom), nearest
        self._dow, self._nth = frozenset(dow), nth
        self._either = either

    def of_year(self, *, leap: bool, first_weekday: int) -> list[int]:
        """List the matching days (0 is 1 January) of a year that begins on a weekday (0: Mon)."""
        found, offset = [], 0
        for month in range(1, 13):
            length = 29 if leap and month == 2 else _MONTH_LENGTHS[month - 1]  # noqa: PLR2004
            if month in self._months:
                days = self._of_month(length, (first_weekday + offset) % 7)
                found += [offset + day - 1 for day in days]
            offset += length
        return found

    def _of_month(self, length: int, first_weekday: int) -> list[int]:
        """List the matching days of a month of `length` days that begins on a weekday."""
        near = {_nearest_weekday(d, length, first_weekday) for d in self._nearest}
        found = []
        for day in range(1, length + 1):
            in_month = day in near if self._nearest else self._in_month(day, length)
            in_week = self._in_week(day, length, (first_weekday + day) % 7)
            if (in_month or in_week) if self._either else (in_month and in_week):
                found.append(day)
        return found

    def _in_month(self, day: int, length: int) -> bool:
        dom = self._dom
        return "*" in dom or day in dom or ("l" in dom and day == length)

    def _in_week(self, day: int, length: int, cron_weekday: int) -> bool:
        if not self._nth:
            return "*" in self._dow or cron_weekday in self._dow
        wanted = self._nth.get(cron_weekday, ())
        return (day + 6) // 7 in wanted or ("l" in wanted and day + 7 > length)


def _nearest_weekday(day: int, length: int, first_weekday: int) -> int:
    """Return the weekday (Monday to Friday) nearest to a day, within its month (Quartz's `W`)."""
    day = min(day, length)
    weekday = (first_weekday + day - 1) % 7
    if weekday == 5:  # noqa: PLR2004 - Saturday
        return day - 1 if day > 1 else day + 2
    if weekday == 6:  # noqa: PLR2004 - Sunday
        return day + 1 if day < length else day - 2
    return day
