"""Compiled schedules: sources, windows, calendars, jitter, and where a job begins."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.timer.calendar import UnknownCalendarError
from actors.timer.intervals import AtSource, EverySource
from actors.timer.schedule import CompiledSchedule, compile_schedule
from protocols.days import DaySet
from protocols.schedule_text import parse_schedule
from protocols.schedules import Calendar

GOLDEN_JITTER_US = 23_768_848
ANCHOR = datetime(2026, 1, 1, 12, 0, 7, 250_000, tzinfo=UTC)


def compiled(value, *, calendars=None, salt=b"default/a", timezone="UTC") -> CompiledSchedule:
    schedule = parse_schedule(value, timezone=timezone)
    return compile_schedule(schedule, anchor=ANCHOR, salt=salt, calendars=calendars)


def following(schedule: CompiledSchedule, after: datetime, count: int) -> list[str]:
    found = []
    while len(found) < count and (after := schedule.next_after(after)) is not None:
        found.append(after.isoformat())
    return found


def test_every_counts_from_the_first_apply():
    assert following(compiled("@every 1h30m"), ANCHOR, 2) == [
        "2026-01-01T13:30:07.250000+00:00",
        "2026-01-01T15:00:07.250000+00:00",
    ]


def test_every_counts_from_its_start_which_is_an_instant_too():
    schedule = compiled({"every": "90m", "start": "2026-01-02T00:00:00Z"})
    assert following(schedule, ANCHOR, 2) == [
        "2026-01-02T00:00:00+00:00",
        "2026-01-02T01:30:00+00:00",
    ]


def test_a_window_holds_both_of_its_ends():
    schedule = compiled(
        {"cron": "0 * * * *", "start": "2026-01-05T10:00:00Z", "end": "2026-01-05T12:00:00Z"}
    )
    hours = ["2026-01-05T10:00:00+00:00", "2026-01-05T11:00:00+00:00", "2026-01-05T12:00:00+00:00"]
    assert following(schedule, ANCHOR, 9) == hours
    far = datetime(2030, 1, 1, tzinfo=UTC)
    assert [t.isoformat() for t in schedule.between(ANCHOR, far)] == hours
    assert schedule.count(ANCHOR, far) == 3
    assert schedule.next_after(far) is None


def test_at_is_due_once_and_within_its_grace_when_applied():
    schedule = compiled("@at 2026-01-01T12:00:00Z")
    assert schedule.first_after_apply(ANCHOR) == datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert schedule.first_after_apply(ANCHOR + timedelta(minutes=1)) is None
    assert compiled("@daily").first_after_apply(ANCHOR) == datetime(2026, 1, 2, tzinfo=UTC)


def test_after_runs_at_once_and_then_from_each_finish():
    schedule = compiled("@after 24h")
    assert schedule.first_after_apply(ANCHOR) == ANCHOR
    finished = ANCHOR + timedelta(minutes=7)
    assert schedule.after_finish(finished) == finished + timedelta(hours=24)
    assert schedule.next_after(ANCHOR) is None
    assert schedule.count(ANCHOR, finished) == 0
    assert list(schedule.between(ANCHOR, finished)) == []


def test_after_waits_for_its_window_and_an_open_day():
    schedule = compiled(
        {"after": "1d", "start": "2026-01-03", "end": "2026-01-06T00:00:00Z", "exclude": ["sun"]}
    )
    assert schedule.first_after_apply(ANCHOR) == datetime(2026, 1, 3, tzinfo=UTC)
    saturday = datetime(2026, 1, 3, 20, tzinfo=UTC)
    assert schedule.after_finish(saturday) == datetime(2026, 1, 5, tzinfo=UTC)
    assert schedule.after_finish(datetime(2026, 1, 5, 1, tzinfo=UTC)) is None


def test_never_is_never():
    schedule = compiled("0 0 30 2 *")
    assert schedule.next_after(ANCHOR) is None
    assert schedule.next_run_after(ANCHOR) is None


@pytest.mark.parametrize(
    ("calendar", "open_days"),
    [
        (Calendar(exclude=("sat", "sun")), [1, 2, 5, 6, 7, 8, 9]),
        (Calendar(include=("sat",)), [3]),
        (Calendar(exclude=("sat", "sun"), include=("2026-01-04",)), [1, 2, 4, 5, 6, 7, 8, 9]),
        (Calendar(exclude=("2026-01-02/2026-01-07",)), [1, 8, 9]),
        (Calendar(exclude=("12-24/01-05",)), [6, 7, 8, 9]),
    ],
)
def test_calendars_say_which_instants_are_excluded(calendar, open_days):
    schedule = compiled({"cron": "0 23 * * *", "calendar": "c"}, calendars={"c": calendar})
    due = list(
        schedule.between(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 10, tzinfo=UTC))
    )
    assert len(due) == 9
    assert [t.day for t in due if not schedule.is_excluded(t)] == open_days
    run = schedule.next_run_after(datetime(2026, 1, 2, 23, tzinfo=UTC))
    assert run is None or run.day in open_days or run > due[-1]


def test_a_day_is_one_of_the_jobs_wall_clock():
    schedule = compiled({"cron": "0 6 * * *", "timezone": "Asia/Tokyo", "exclude": ["2026-01-02"]})
    # six in the morning of 2 January in Tokyo is still the 1st in UTC
    assert schedule.is_excluded(datetime(2026, 1, 1, 21, tzinfo=UTC))
    assert not schedule.is_excluded(datetime(2026, 1, 2, 21, tzinfo=UTC))


def test_a_day_that_is_shown_twice_ends_where_the_clock_goes_back():
    # St John's, one minute into 7 November, goes back to 23:01 of the 6th
    schedule = compiled(
        {"cron": "* * * * *", "timezone": "America/St_Johns", "exclude": ["2010-11-07"]}
    )
    seam = datetime(2010, 11, 7, 2, 31, tzinfo=UTC)
    due = list(schedule.between(seam - timedelta(minutes=2), seam + timedelta(minutes=1)))
    assert [schedule.is_excluded(t) for t in due] == [True, False, False]
    assert schedule.next_run_after(seam - timedelta(minutes=2)) == seam


def test_all_calendars_must_be_open_and_must_exist():
    calendars = {"a": Calendar(exclude=("mon",)), "b": Calendar(exclude=("tue",))}
    schedule = compiled({"cron": "@daily", "calendar": ["a", "b"]}, calendars=calendars)
    assert schedule.next_run_after(datetime(2026, 1, 4, 1, tzinfo=UTC)).day == 7
    with pytest.raises(UnknownCalendarError, match="'c'"):
        compiled({"cron": "@daily", "calendar": "c"}, calendars=calendars)


def test_a_schedule_with_no_open_day_ends_its_search():
    schedule = compiled({"cron": "@daily", "exclude": ["01-01/12-31"]})
    assert schedule.next_run_after(ANCHOR) is None
    assert compiled({"after": "1h", "exclude": ["01-01/12-31"]}).first_after_apply(ANCHOR) is None


def test_jitter_is_the_same_for_a_job_and_instant_and_spreads_jobs():
    value = {"cron": "@hourly", "jitter": "1m"}
    due = datetime(2026, 1, 1, 13, tzinfo=UTC)
    delays = [compiled(value, salt=b"default/%d" % n).run_at(due) - due for n in range(200)]
    assert delays == [compiled(value, salt=b"default/%d" % n).run_at(due) - due for n in range(200)]
    assert all(timedelta(0) <= delay < timedelta(minutes=1) for delay in delays)
    assert timedelta(seconds=20) < sum(delays, timedelta(0)) / 200 < timedelta(seconds=40)
    one = compiled(value)
    assert len({one.run_at(t) - t for t in one.between(due, due + timedelta(days=1))}) > 20
    assert compiled("@hourly").run_at(due) == due


def test_the_name_of_a_job_fixes_its_jitter_for_ever():
    # a golden value: another hash would move every job of every installation
    due = datetime(2026, 1, 1, 13, tzinfo=UTC)
    schedule = compiled({"cron": "@hourly", "jitter": "1m"})
    assert (schedule.run_at(due) - due) / timedelta(microseconds=1) == GOLDEN_JITTER_US


@given(
    anchor=st.integers(-(10**9), 10**9),
    interval=st.integers(1, 10**6),
    after=st.integers(-(10**9), 10**9),
    length=st.integers(-5, 50),
)
@settings(max_examples=200)
def test_every_is_arithmetic(anchor, interval, after, length):
    source = EverySource(anchor_us=anchor, interval_us=interval)
    until = after + length * interval // 3
    first = max(0, -((anchor - after) // interval) - 2)
    wanted = [
        anchor + n * interval
        for n in range(first, first + 60)
        if after < anchor + n * interval <= until
    ]
    assert list(source.between(after, until)) == wanted
    assert source.count(after, until) == len(wanted)
    if wanted:
        assert source.next_after(after) == wanted[0]
        assert source.last_until(until) == wanted[-1]


def test_at_is_one_instant():
    source = AtSource(5)
    assert (source.next_after(4), source.next_after(5)) == (5, None)
    assert (source.last_until(4), source.last_until(5)) == (None, 5)
    assert list(source.between(4, 5)) == [5]
    assert (source.count(4, 5), source.count(5, 9)) == (1, 0)


@given(st.dates(date(2019, 1, 1), date(2031, 1, 1)))
def test_a_yearly_range_may_cross_the_new_year(day):
    inside = (day.month == 12 and day.day >= 24) or (day.month == 1 and day.day <= 2)
    assert (day in DaySet(["12-24/01-02"])) == inside
    assert (day in DaySet(["02-29"])) == ((day.month, day.day) == (2, 29))
