"""What people write under `schedule:` and `calendars:`, and every error of it at once."""

from datetime import UTC, date, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import InvalidError
from protocols.schedule_text import parse_calendar, parse_schedule
from protocols.schedules import Calendar, Misfire, Schedule


def problems(value, **options) -> dict[str, str]:
    with pytest.raises(InvalidError) as refused:
        parse_schedule(value, path=("jobs", 3, "schedule"), **options)
    for problem in refused.value.problems:
        assert problem.path[:3] == ("jobs", 3, "schedule")
        assert problem.message.isprintable()
        assert len(problem.message) < 400
    return {".".join(map(str, p.path[3:])): p.message for p in refused.value.problems}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0 0 * * *", {"kind": "cron", "cron": "0 0 * * *"}),
        (" @daily ", {"kind": "cron", "cron": "0 0 * * *", "text": "@daily"}),
        ("@every 1h30m", {"kind": "every", "interval_s": 5400.0}),
        ("@Every 90", {"kind": "every", "interval_s": 90.0}),
        ("@after 24h", {"kind": "after", "interval_s": 86_400.0}),
        ("@at 2026-12-01T09+01", {"kind": "at", "at": datetime(2026, 12, 1, 8, tzinfo=UTC)}),
        ({"cron": "@hourly"}, {"kind": "cron", "cron": "0 * * * *"}),
        ({"every": 60, "jitter": "5s"}, {"kind": "every", "interval_s": 60.0, "jitter_s": 5.0}),
        ({"after": "1d"}, {"kind": "after", "interval_s": 86_400.0}),
    ],
)  # fmt: skip
def test_the_ways_to_say_when(value, expected):
    schedule = parse_schedule(value)
    assert {name: getattr(schedule, name) for name in expected} == expected


def test_a_whole_mapping():
    schedule = parse_schedule(
        {
            "cron": "0 9 * * 1-5",
            "timezone": "Europe/Berlin",
            "start": date(2026, 1, 1),
            "end": "2026-06-30 18:00",
            "jitter": "30s",
            "calendar": ["de", "company"],
            "exclude": ["2026-05-15", date(2026, 5, 16), "12-24/01-02", "Sat"],
            "dst": {"gap": "skip", "fold": "second"},
            "misfire": {
                "policy": "catch_up",
                "grace": "2m",
                "within": "1h",
                "limit": 20,
                "rate": "30/m",
            },
        },
        timezone="UTC",
    )
    assert schedule == Schedule(
        kind="cron",
        text="0 9 * * 1-5",
        cron="0 9 * * 1-5",
        timezone="Europe/Berlin",
        start=datetime(2025, 12, 31, 23, tzinfo=UTC),
        end=datetime(2026, 6, 30, 16, tzinfo=UTC),
        jitter_s=30.0,
        calendars=("de", "company"),
        exclude=("2026-05-15", "2026-05-16", "12-24/01-02", "sat"),
        dst_gap="skip",
        dst_fold="second",
        misfire=Misfire(
            policy="catch_up", grace_s=120.0, within_s=3600.0, limit=20, rate_per_s=0.5
        ),
    )
    assert msgspec.json.decode(msgspec.json.encode(schedule), type=Schedule) == schedule


def test_a_one_time_job_is_caught_up_by_default():
    assert parse_schedule("@at 2026-12-01T09:00Z").misfire == Misfire(policy="catch_up")
    assert parse_schedule("@daily").misfire == Misfire(policy="execute_once")
    late = parse_schedule({"at": "2026-12-01T09:00Z", "misfire": {"grace": "1h"}})
    assert late.misfire == Misfire(policy="catch_up", grace_s=3600.0)


def test_an_instant_without_an_offset_is_on_the_jobs_wall_clock():
    schedule = parse_schedule("@at 2026-07-01T09:00:00", timezone="America/New_York")
    assert schedule.at == datetime(2026, 7, 1, 13, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "place", "said"),
    [
        (None, "", "is not a schedule"),
        (5, "", "is not a schedule"),
        ("", "", "is not a cron expression"),
        ("@fortnightly", "", "@monthly"),
        ("@every", "", "is not a duration"),
        ("@every soon", "", '"soon" is not a duration'),
        ("@every 0.5s", "", "1s is the shortest"),
        ("@after 0", "", "above 0"),
        ("@at tomorrow", "", '"tomorrow" is not an instant'),
        ("@at 0001-01-01T00:00:00+14:00", "", "is not an instant"),
        ("@at 9999-12-31T23:59:59-14:00", "", "is not an instant"),
        ("x" * 1_000_000, "", "too long"),
        ({}, "", "does not say when"),
        ({"cron": "@daily", "every": "1h"}, "", "cron and every"),
        ({"crno": "@daily", "every": "1h"}, "crno", "did you mean cron?"),
        ({"every": "1h", "x\x00y": 1}, "x\x00y", "unknown field"),
        ({"cron": ["@daily"]}, "cron", "is not a cron expression"),
        ({"every": "1h", "timezone": "Mars"}, "timezone", "is not a time zone"),
        ({"every": "1h", "timezone": 5}, "timezone", "is not a time zone"),
        ({"every": "1h", "jitter": -1}, "jitter", "above 0"),
        ({"every": "1h", "start": "2027-01-01", "end": "2026-01-01"}, "end", "before the start"),
        ({"every": "1h", "calendar": {"a": 1}}, "calendar", "names no calendar"),
        ({"every": "1h", "exclude": ["02-30"]}, "exclude.0", "no such date"),
        ({"every": "1h", "exclude": ["christmas"]}, "exclude.0", "is not a day"),
        ({"every": "1h", "exclude": [["sat"]]}, "exclude.0", "is not a day"),
        ({"every": "1h", "exclude": ["2026-02-01/2026-01-01"]}, "exclude.0", "before it begins"),
        ({"every": "1h", "dst": {"gap": "skip"}}, "dst", "does not apply to every"),
        ({"cron": "@daily", "dst": {"gap": "both"}}, "dst.gap", "next_valid or skip"),
        ({"cron": "@daily", "dst": "skip"}, "dst", "give a mapping"),
        ({"after": "1h", "misfire": {"policy": "skip"}}, "misfire", "does not apply to after"),
        ({"cron": "@daily", "misfire": {"policy": "forget"}}, "misfire.policy", "execute_once"),
        ({"cron": "@daily", "misfire": {"limit": 0}}, "misfire.limit", "1 to 500"),
        ({"cron": "@daily", "misfire": {"limit": True}}, "misfire.limit", "1 to 500"),
        ({"cron": "@daily", "misfire": {"rate": "fast"}}, "misfire.rate", "10/s"),
        ({"cron": "@daily", "misfire": {"rate": "0/s"}}, "misfire.rate", "10/s"),
        ({"cron": "@daily", "misfire": {"rate": "1" * 99_999}}, "misfire.rate", "10/s"),
        ({"cron": "@daily", "misfire": {"within": "never"}}, "misfire.within", "is not a duration"),
    ],
)  # fmt: skip
def test_each_wrong_thing_has_its_place_and_its_sentence(value, place, said):
    found = problems(value)
    assert said in found[place]


def test_all_errors_are_told_at_once():
    found = problems(
        {"every": "soon", "timezone": "Mars", "jitter": "x", "misfire": {"grace": 0, "limit": -1}}
    )
    assert set(found) == {"every", "timezone", "jitter", "misfire.grace", "misfire.limit"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["2026-12-25", date(2026, 12, 26)], Calendar(exclude=("2026-12-25", "2026-12-26"))),
        ("sat", Calendar(exclude=("sat",))),
        ({"include": ["mon", "tue"]}, Calendar(include=("mon", "tue"))),
        (
            {"exclude": "sun", "include": ["2026-12-20"]},
            Calendar(exclude=("sun",), include=("2026-12-20",)),
        ),
    ],
)
def test_calendars(value, expected):
    assert parse_calendar(value) == expected


@pytest.mark.parametrize("value", [None, [], {}, 5, {"exclude": []}, ["someday"], {"closed": []}])
def test_a_calendar_without_days_is_refused(value):
    with pytest.raises(InvalidError):
        parse_calendar(value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["cron", "every", "at", "misfire", "dst", "exclude", "start", "limit"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(JSON)
def test_any_value_is_read_or_refused(value):
    for read in (parse_schedule, parse_calendar):
        try:
            read(value)
        except InvalidError:
            continue
