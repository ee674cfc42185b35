"""Calendars: on which local days a schedule's instants count, and how far such a day reaches."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Final

from actors.timer.cron import DAY_S
from actors.timer.dst import Zone
from protocols.days import DaySet
from protocols.schedules import Calendar

_EPOCH_DAY: Final = date(1970, 1, 1)
_SECOND_US: Final = 1_000_000
CLOSED_DAYS_MAX: Final = 3660
"""How many closed days in a row are looked through for an open one: ten years."""


class UnknownCalendarError(LookupError):
    """A schedule names a calendar that its tenant does not have."""


class OpenDays:
    """The days on which all of a schedule's calendars, and its own `exclude`, are open.

    A day is one of the zone's wall clock.
    """

    __slots__ = ("_calendars", "_known", "_zone")

    def __init__(self, rules: Sequence[Calendar], zone: Zone) -> None:
        self._calendars = [
            (DaySet(rule.include) if rule.include else None, DaySet(rule.exclude), rule)
            for rule in rules
        ]
        self._zone = zone
        self._known: dict[int, bool] = {}

    def is_open(self, instant_us: int) -> bool:
        """Say whether an instant falls on an open day."""
        second = instant_us // _SECOND_US
        return self._day_is_open((second + self._zone.piece_at(second).offset_s) // DAY_S)

    def stretch_end(self, instant_us: int) -> int:
        """Return the last microsecond from `instant_us` on that is surely of the same day."""
        second = instant_us // _SECOND_US
        piece = self._zone.piece_at(second)
        wall = second + piece.offset_s
        end = min(piece.end, (wall // DAY_S + 1) * DAY_S - piece.offset_s)
        return end * _SECOND_US - 1

    def stretch_start(self, instant_us: int) -> int:
        """Return the first microsecond before `instant_us` that is surely of the same day."""
        second = instant_us // _SECOND_US
        piece = self._zone.piece_at(second)
        wall = second + piece.offset_s
        return max(piece.start, wall // DAY_S * DAY_S - piece.offset_s) * _SECOND_US

    def next_open(self, instant_us: int) -> int | None:
        """Return `instant_us` if its day is open, else the start of the first open day after it.

        None where no day of the next ten years is open.
        """
        for _ in range(2 * CLOSED_DAYS_MAX):
            if self.is_open(instant_us):
                return instant_us
            instant_us = self.stretch_end(instant_us) + 1
        return None

    def _day_is_open(self, day: int) -> bool:
        known = self._known.get(day)
        if known is None:
            if len(self._known) > CLOSED_DAYS_MAX:
                self._known.clear()
            at = _EPOCH_DAY + timedelta(days=day)
            known = all(_is_open(at, *calendar) for calendar in self._calendars)
            self._known[day] = known
        return known


def open_days(
    names: Sequence[str],
    exclude: Sequence[str],
    calendars: Mapping[str, Calendar],
    zone: Zone,
) -> OpenDays | None:
    """Combine a schedule's calendars; None where it has none, and every day is open.

    Raises:
        UnknownCalendarError: a name is not among `calendars`.
    """
    unknown = [name for name in names if name not in calendars]
    if unknown:
        raise UnknownCalendarError(f"there is no calendar {unknown[0]!r}")
    rules = [calendars[name] for name in names]
    if exclude:
        rules.append(Calendar(exclude=tuple(exclude)))
    return OpenDays(rules, zone) if rules else None


def _is_open(day: date, include: DaySet | None, exclude: DaySet, rule: Calendar) -> bool:
    if include is not None and day in include:
        return True
    if include is not None and not rule.exclude:
        return False
    return day not in exclude
