"""A schedule made ready to be asked: when is it due next, when was it last, and how often.

Excluded instants are due all the same: they are recorded as skipped, so nothing here drops them,
and `is_excluded` says which they are.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final

from actors.timer.calendar import CLOSED_DAYS_MAX, OpenDays, open_days
from actors.timer.dst import EPOCH, timetable, zone
from actors.timer.intervals import SECOND_US, AtSource, CronSource, EverySource, Source
from actors.timer.jitter import jitter_us
from protocols.instants import epoch_us
from protocols.schedules import Calendar, Schedule

_FOREVER_US: Final = 253_000_000_000 * SECOND_US
"""Past every instant that a datetime can name (the year 9987)."""


def from_us(instant_us: int) -> datetime:
    """Return the aware UTC datetime at some microseconds since the epoch."""
    return EPOCH + timedelta(microseconds=instant_us)


class CompiledSchedule:
    """One job's schedule; methods that end in `_us` take and give microseconds since the epoch.

    An `after` schedule has no instants of its own: each follows from the finish before it, and
    waits in the schedule's row as `next_fire_at`. Its searches find nothing; `first_after_apply`
    and `after_finish` give its instants.
    """

    __slots__ = ("_end_us", "_jitter_us", "_salt", "_source", "_start_us", "open_days", "schedule")

    def __init__(
        self, schedule: Schedule, *, source: Source | None, days: OpenDays | None, salt: bytes
    ) -> None:
        self.schedule = schedule
        self.open_days = days
        self._source = source
        self._salt = salt
        self._jitter_us = round(schedule.jitter_s * SECOND_US)
        self._start_us = -_FOREVER_US if schedule.start is None else epoch_us(schedule.start)
        self._end_us = _FOREVER_US if schedule.end is None else epoch_us(schedule.end)

    # --- searching ---------------------------------------------------------------------------

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first due instant after `instant`, excluded or not; None where none comes."""
        found = self.next_after_us(epoch_us(instant))
        return None if found is None else from_us(found)

    def next_run_after(self, instant: datetime) -> datetime | None:
        """Return the first due instant after `instant` that is not excluded.

        None where none comes, or where ten years of days are closed.
        """
        at = self.next_after_us(epoch_us(instant))
        for _ in range(CLOSED_DAYS_MAX):
            if at is None or not self.is_excluded_us(at):
                return None if at is None else from_us(at)
            at = self.next_after_us(self.stretch_end_us(at))
        return None

    def between(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """Yield the due instants in (after, until], excluded or not, in order."""
        for instant in self.between_us(epoch_us(after), epoch_us(until)):
            yield from_us(instant)

    def count(self, after: datetime, until: datetime) -> int:
        """Count the due instants in (after, until] without visiting them."""
        return self.count_us(epoch_us(after), epoch_us(until))

    def next_after_us(self, instant: int) -> int | None:
        """Return the first due instant after `instant`, or None."""
        if self._source is None:
            return None
        found = self._source.next_after(max(instant, self._start_us - 1))
        return None if found is None or found > self._end_us else found

    def last_until_us(self, instant: int) -> int | None:
        """Return the last due instant at or before `instant`, or None."""
        if self._source is None:
            return None
        found = self._source.last_until(min(instant, self._end_us))
        return None if found is None or found < self._start_us else found

    def between_us(self, after: int, until: int) -> Iterator[int]:
        """Yield the due instants in (after, until], in order."""
        after, until = max(after, self._start_us - 1), min(until, self._end_us)
        return iter(()) if self._source is None else self._source.between(after, until)

    def count_us(self, after: int, until: int) -> int:
        """Count the due instants in (after, until]."""
        after, until = max(after, self._start_us - 1), min(until, self._end_us)
        return 0 if self._source is None or until <= after else self._source.count(after, until)

    # --- what an instant becomes -------------------------------------------------------------

    def is_excluded(self, instant: datetime) -> bool:
        """Say whether a calendar, or the schedule's own `exclude`, closes the instant's day."""
        return self.is_excluded_us(epoch_us(instant))

    def is_excluded_us(self, instant: int) -> bool:
        """Say the same of microseconds."""
        return self.open_days is not None and not self.open_days.is_open(instant)

    def stretch_end_us(self, instant: int) -> int:
        """Return how far all instants are excluded, or none is, just as `instant` is."""
        return _FOREVER_US if self.open_days is None else self.open_days.stretch_end(instant)

    def jitter_us(self, instant: int) -> int:
        """Return the delay of this job at this instant, the same whenever it is asked for."""
        if not self._jitter_us:
            return 0
        return jitter_us(self._salt, instant, self._jitter_us)

    def run_at(self, instant: datetime) -> datetime:
        """Return when an instant runs: the instant itself plus its jitter."""
        return instant + timedelta(microseconds=self.jitter_us(epoch_us(instant)))

    # --- beginnings --------------------------------------------------------------------------

    def first_cursor(self, applied_at: datetime) -> datetime:
        """Return the cursor of a job first applied now: instants up to it are not its concern.

        An `at` keeps its grace, so that `@at` of this very minute still runs.
        """
        if self.schedule.kind == "at":
            return applied_at - timedelta(seconds=self.schedule.misfire.grace_s)
        return applied_at

    def first_after_apply(self, applied_at: datetime) -> datetime | None:
        """Return the first fire of a job applied now; an `after` runs at once (or at `start`)."""
        if self.schedule.kind != "after":
            return self.next_after(self.first_cursor(applied_at))
        return self._open(max(epoch_us(applied_at), self._start_us))

    def after_finish(self, finished_at: datetime) -> datetime | None:
        """Return the next fire of an `after` schedule whose run has finished."""
        interval_s = self.schedule.interval_s
        assert interval_s is not None, "an after schedule has its interval"
        due = epoch_us(finished_at) + round(interval_s * SECOND_US)
        return self._open(max(due, self._start_us))

    def after_excluded(self, instant: datetime) -> datetime | None:
        """Return where an `after` instant moves whose day is closed: to the next open day."""
        return self._open(epoch_us(instant))

    def _open(self, due: int) -> datetime | None:
        found = due if self.open_days is None else self.open_days.next_open(due)
        return None if found is None or found > self._end_us else from_us(found)


def compile_schedule(
    schedule: Schedule,
    *,
    anchor: datetime,
    salt: bytes,
    calendars: Mapping[str, Calendar] | None = None,
) -> CompiledSchedule:
    """Make a schedule ready to be asked; the caller keeps the result.

    Args:
        schedule: its stored form.
        anchor: when the job was first applied; where `every` counts from without a `start`.
        salt: names the job, for its jitter: the same on every node.
        calendars: the tenant's, by name.

    Raises:
        CronError: its expression cannot be read.
        ZoneError: there is no zone of its name.
        UnknownCalendarError: it names a calendar that is not given.
    """
    days = open_days(schedule.calendars, schedule.exclude, calendars or {}, zone(schedule.timezone))
    return CompiledSchedule(schedule, source=_source(schedule, anchor), days=days, salt=salt)


def _source(schedule: Schedule, anchor: datetime) -> Source | None:
    if schedule.kind == "cron":
        assert schedule.cron is not None, "a cron schedule has its expression"
        return CronSource(
            timetable(
                schedule.cron, schedule.timezone, gap=schedule.dst_gap, fold=schedule.dst_fold
            )
        )
    if schedule.kind == "every":
        assert schedule.interval_s is not None, "an every schedule has its interval"
        return EverySource(
            anchor_us=epoch_us(schedule.start or anchor),
            interval_us=round(schedule.interval_s * SECOND_US),
        )
    if schedule.kind == "at":
        assert schedule.at is not None, "an at schedule has its instant"
        return AtSource(epoch_us(schedule.at))
    return None
