"""Cron expressions: which wall-clock seconds an expression names, exactly and for all years.

croniter reads the grammar. What it read becomes tables here, because a search must not cost a
croniter call per instant, and because `0 0 30 2 *` must be known to be "never" at once: the
Gregorian calendar has only fourteen kinds of year, so fourteen lists of days hold every answer.

Wall time is counted in whole seconds since 1970-01-01T00:00 on a clock that knows no zone.
"""

import calendar
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from datetime import date
from functools import lru_cache
from typing import Any, Final

from croniter import croniter

from actors.timer.fields import DayRule, TimeField
from protocols.durations import shown
from protocols.schedules import NICKNAMES

EXPRESSION_LENGTH_MAX: Final = 1000
DAY_S: Final = 86_400
YEAR_MAX: Final = 9998
"""The last year searched: datetime ends with 9999, and a zone's offset must still fit."""

_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
_FIELDS: Final = (
    ("second", "0-59"),
    ("minute", "0-59"),
    ("hour", "0-23"),
    ("day-of-month", "1-31, L or 15W"),
    ("month", "1-12 or JAN-DEC"),
    ("day-of-week", "0-7, SUN-SAT, 2#1 or L5"),
)
_HASHED: Final = re.compile(r"(?:^|,)[hr](?:[(/]|$|,)", re.IGNORECASE)
_EQUAL_RANGE: Final = re.compile(r"^([a-z0-9]+)-\1(?:/[0-9]+)?$", re.IGNORECASE)
_CRONITER_ERRORS: Final = (ValueError, TypeError, KeyError, IndexError, AttributeError)


class CronError(ValueError):
    """A text is not a cron expression; the message is one sentence naming the field at fault."""


class Cron:
    """A compiled expression: a search over wall-clock seconds, in both directions.

    Attributes:
        expression: the expression, as compiled (nicknames written out).
        follows_real_time: whether the minute or hour field begins with `*`, so that the
            expression runs at every real instant that matches (cron(8)).
    """

    __slots__ = (
        "_day_lists",
        "_days",
        "_hours",
        "_minutes",
        "_never",
        "_seconds",
        "_year",
        "expression",
        "follows_real_time",
    )

    def __init__(self, expression: str, fields: list[str], parsed: Any) -> None:
        self.expression = expression
        minute, hour, dom, month, dow, *second = parsed.expanded
        second = second[0] if second else [0]
        self._seconds = TimeField(second, 60)
        self._minutes = TimeField(minute, 60)
        self._hours = TimeField(hour, 24)
        self._days = DayRule(
            months=month,
            dom=dom,
            dow=dow,
            nth=parsed.nth_weekday_of_month,
            nearest=parsed.nearest_weekday,
            # crontab(5): a day matches when either field does, if both are restricted, that is
            # do not begin with `*`; otherwise it must match both.
            either=fields[-3][0] not in "*?" and fields[-1][0] not in "*?",
        )
        self.follows_real_time = fields[-5].startswith("*") or fields[-4].startswith("*")
        self._day_lists: dict[tuple[bool, int], list[int]] = {}
        self._year: tuple[int, int, list[int]] = (0, 0, [])
        self._never: bool | None = None

    def __repr__(self) -> str:
        return f"Cron({self.expression!r})"

    @property
    def never(self) -> bool:
        """Whether no day of any year matches, as in `0 0 30 2 *`."""
        if self._never is None:
            self._never = not any(
                self._days_of(leap=leap, first_weekday=first)
                for leap in (False, True)
                for first in range(7)
            )
        return self._never

    def next_wall(self, wall: int) -> int | None:
        """Return the first matching wall second after `wall`, or None up to the year 9998."""
        day, second = divmod(wall + 1, DAY_S)
        found = self.next_day(day)
        if found is None:
            return None
        if found == day:
            time = self._next_time(second)
            if time >= 0:
                return day * DAY_S + time
            found = self.next_day(day + 1)
            if found is None:
                return None
        return found * DAY_S + self._next_time(0)

    def last_wall(self, wall: int) -> int | None:
        """Return the last matching wall second at or before `wall`, or None back to year 1."""
        day, second = divmod(wall, DAY_S)
        found = self.last_day(day)
        if found is None:
            return None
        if found == day:
            time = self._last_time(second)
            if time >= 0:
                return day * DAY_S + time
            found = self.last_day(day - 1)
            if found is None:
                return None
        return found * DAY_S + self._last_time(DAY_S - 1)

    def walls(self, start: int, end: int) -> Iterator[int]:
        """Yield the matching wall seconds in [start, end), in order."""
        hours, minutes, seconds = self._hours.values, self._minutes.values, self._seconds.values
        day = self.next_day(start // DAY_S)
        while day is not None and (midnight := day * DAY_S) < end:
            for hour in hours:
                at_hour = midnight + hour * 3600
                if at_hour + 3600 <= start:
                    continue
                if at_hour >= end:
                    return
                inside = at_hour >= start and at_hour + 3600 <= end
                for minute in minutes:
                    at_minute = at_hour + minute * 60
                    if inside:
                        for second in seconds:
                            yield at_minute + second
                    else:
                        for second in seconds:
                            if start <= at_minute + second < end:
                                yield at_minute + second
            day = self.next_day(day + 1)

    def count_walls(self, start: int, end: int) -> int:
        """Count the matching wall seconds in [start, end), by arithmetic, not one by one."""
        if end <= start:
            return 0
        first_day, first_second = divmod(start, DAY_S)
        last_day, last_second = divmod(end, DAY_S)
        count = self._count_days(first_day, last_day) * self._times_before(DAY_S)
        if self.next_day(first_day) == first_day:
            count -= self._times_before(first_second)
        if last_second and self.next_day(last_day) == last_day:
            count += self._times_before(last_second)
        return count

    def next_day(self, day: int) -> int | None:
        """Return the first matching day at or after `day`, in days since 1970-01-01."""
        first, end, days = self._year_of(day)
        while True:
            index = bisect_left(days, day - first)
            if index < len(days):
                return first + days[index]
            day = end
            if day > _LAST_DAY or self.never:
                return None
            first, end, days = self._year_of(day)

    def last_day(self, day: int) -> int | None:
        """Return the last matching day at or before `day`, in days since 1970-01-01."""
        first, _, days = self._year_of(day)
        while True:
            index = bisect_right(days, day - first)
            if index:
                return first + days[index - 1]
            day = first - 1
            if day < _FIRST_DAY or self.never:
                return None
            first, _, days = self._year_of(day)

    def _year_of(self, day: int) -> tuple[int, int, list[int]]:
        """Return (first day, first day of the next year, matching days of the year)."""
        year = self._year
        if year[0] <= day < year[1]:
            return year
        number = date.fromordinal(min(max(day, _FIRST_DAY), _LAST_DAY) + _EPOCH_ORDINAL).year
        first = date(number, 1, 1)
        leap = calendar.isleap(number)
        days = self._days_of(leap=leap, first_weekday=first.weekday())
        start = first.toordinal() - _EPOCH_ORDINAL
        year = (start, start + 365 + leap, days)
        self._year = year  # one assignment: a reader in another thread sees the old or the new
        return year

    def _days_of(self, *, leap: bool, first_weekday: int) -> list[int]:
        """List the matching days (0 is 1 January) of one of the fourteen kinds of year."""
        kind = (leap, first_weekday)
        days = self._day_lists.get(kind)
        if days is None:
            days = self._days.of_year(leap=leap, first_weekday=first_weekday)
            self._day_lists[kind] = days
        return days

    def _count_days(self, start: int, end: int) -> int:
        count = 0
        while start < end:
            first, next_first, days = self._year_of(start)
            count += bisect_left(days, end - first) - bisect_left(days, start - first)
            start = next_first
        return count

    def _next_time(self, second: int) -> int:
        """Return the first matching second of a day at or after `second`, or -1."""
        hour, rest = divmod(second, 3600)
        minute, sec = divmod(rest, 60)
        hours, minutes, seconds = self._hours, self._minutes, self._seconds
        if hours.next[hour] == hour:
            if minutes.next[minute] == minute and seconds.next[sec] >= 0:
                return hour * 3600 + minute * 60 + seconds.next[sec]
            if minutes.next[minute + 1] >= 0:
                return hour * 3600 + minutes.next[minute + 1] * 60 + seconds.first
        if hours.next[hour + 1] < 0:
            return -1
        return hours.next[hour + 1] * 3600 + minutes.first * 60 + seconds.first

    def _last_time(self, second: int) -> int:
        """Return the last matching second of a day at or before `second`, or -1."""
        hour, rest = divmod(second, 3600)
        minute, sec = divmod(rest, 60)
        hours, minutes, seconds = self._hours, self._minutes, self._seconds
        if hours.last[hour] == hour:
            if minutes.last[minute] == minute and seconds.last[sec] >= 0:
                return hour * 3600 + minute * 60 + seconds.last[sec]
            if minutes.last[minute - 1] >= 0:  # the table ends with -1, so that [-1] is "none"
                return hour * 3600 + minutes.last[minute - 1] * 60 + seconds.final
        if hours.last[hour - 1] < 0:
            return -1
        return hours.last[hour - 1] * 3600 + minutes.final * 60 + seconds.final

    def _times_before(self, second: int) -> int:
        """Count the matching seconds of a day before `second`."""
        hour, rest = divmod(second, 3600)
        minute, sec = divmod(rest, 60)
        hours, minutes, seconds = self._hours, self._minutes, self._seconds
        per_minute, per_hour = len(seconds.values), len(seconds.values) * len(minutes.values)
        count = bisect_left(hours.values, hour) * per_hour
        if hours.next[hour] == hour:
            count += bisect_left(minutes.values, minute) * per_minute
            if minutes.next[minute] == minute:
                count += bisect_left(seconds.values, sec)
        return count


_FIRST_DAY: Final = date(2, 1, 1).toordinal() - _EPOCH_ORDINAL
_LAST_DAY: Final = date(YEAR_MAX, 12, 31).toordinal() - _EPOCH_ORDINAL


@lru_cache(maxsize=4096)
def compile_cron(expression: str) -> Cron:
    """Compile an expression of 5 fields, or of 6 with seconds first, or a nickname (`@daily`).

    The grammar is croniter's, with `L`, `W`, `#`, `?`, names, lists, ranges and steps. Two of its
    readings are set right by crontab(5): an equal range (`9-9`) is that one value, not the whole
    field, and a day field that begins with `*` never widens the other one.

    Raises:
        CronError: the expression cannot be read, or is of a kind that names no instants.
    """
    text = expression.strip()
    if len(text) > EXPRESSION_LENGTH_MAX:
        raise CronError(
            f"{shown(text)} is too long a cron expression: {EXPRESSION_LENGTH_MAX} characters "
            "are the most"
        )
    if text.lower() == "@reboot":
        raise CronError("@reboot is not a time: a job that follows a start belongs to that start")
    fields = NICKNAMES.get(text.lower(), text).replace("\t", " ").split(" ")
    fields = [_single(field) for field in fields if field]
    if len(fields) not in (5, 6):
        raise CronError(
            f"{shown(expression)} is not a cron expression: give 5 fields (minute hour "
            f"day-of-month month day-of-week), or 6 with seconds first, not {len(fields)}"
        )
    for place, field in enumerate(fields, start=6 - len(fields)):
        if _HASHED.search(field):
            raise CronError(
                f"{shown(expression)} is not supported: {_FIELDS[place][0]} {shown(field)} is a "
                "hashed value; name a time, and use jitter to spread jobs"
            )
    joined = " ".join(fields)
    parsed = _parse(joined)
    if parsed is None:
        raise CronError(_explain(expression, fields))
    if parsed.nth_weekday_of_month and set(parsed.expanded[4]) - set(parsed.nth_weekday_of_month):
        raise CronError(
            f"{shown(expression)} is not supported: day-of-week {shown(fields[-1])} mixes plain "
            "days with # or L"
        )
    return Cron(joined, fields, parsed)


def _single(field: str) -> str:
    """Write an equal range as its one value: croniter reads `9-9` as every hour."""
    return ",".join(_EQUAL_RANGE.sub(r"\1", part) for part in field.split(","))


def _parse(expression: str) -> Any:
    if not expression.isascii() or not expression.isprintable():
        return None
    try:
        return croniter(expression, start_time=0.0, second_at_beginning=True)
    except _CRONITER_ERRORS:
        return None


def _explain(expression: str, fields: list[str]) -> str:
    """Say which field cannot be read, by trying each on its own."""
    for place, field in enumerate(fields, start=6 - len(fields)):
        alone = ["0", "*", "*", "*", "*", "*"]
        alone[place] = field
        if _parse(" ".join(alone)) is None:
            name, values = _FIELDS[place]
            return (
                f"{shown(expression)} is not a cron expression: {name} {shown(field)} cannot be "
                f"read, it takes {values}, with lists, ranges and steps"
            )
    return f"{shown(expression)} is not a cron expression: its fields cannot be combined"
