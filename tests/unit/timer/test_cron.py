"""Cron expressions on the wall clock: grammar, refusals, and the laws of the search."""

import calendar
from datetime import date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.timer.cron import CronError, compile_cron

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - a wall clock has no zone


def wall(text: str) -> int:
    return round((datetime.fromisoformat(text) - EPOCH).total_seconds())


def following(expression: str, start: str, count: int = 4) -> list[str]:
    cron, at, found = compile_cron(expression), wall(start), []
    for _ in range(count):
        at = cron.next_wall(at)
        if at is None:
            break
        found.append((EPOCH + timedelta(seconds=at)).isoformat())
    return found


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("@daily", ["2026-01-02T00:00:00", "2026-01-03T00:00:00"]),
        ("@Yearly", ["2027-01-01T00:00:00", "2028-01-01T00:00:00"]),
        ("\t0  12 * * *  ", ["2026-01-01T12:00:00", "2026-01-02T12:00:00"]),
        ("0 0 L * *", ["2026-01-31T00:00:00", "2026-02-28T00:00:00"]),
        ("0 0 1,L * ?", ["2026-01-31T00:00:00", "2026-02-01T00:00:00"]),
        ("0 0 15W * *", ["2026-01-15T00:00:00", "2026-02-16T00:00:00", "2026-03-16T00:00:00"]),
        ("0 0 1W * *", ["2026-02-02T00:00:00", "2026-03-02T00:00:00"]),
        ("0 0 31W * *", ["2026-01-30T00:00:00", "2026-02-27T00:00:00"]),
        ("0 0 * * 1#2", ["2026-01-12T00:00:00", "2026-02-09T00:00:00"]),
        ("0 0 * * fri#5", ["2026-01-30T00:00:00", "2026-05-29T00:00:00"]),
        ("0 0 * * L5", ["2026-01-30T00:00:00", "2026-02-27T00:00:00"]),
        ("0 0 * * 5-7", ["2026-01-02T00:00:00", "2026-01-03T00:00:00", "2026-01-04T00:00:00"]),
        ("0 0 1 nov-jan *", ["2026-11-01T00:00:00", "2026-12-01T00:00:00", "2027-01-01T00:00:00"]),
        ("59/15 * * * *", ["2026-01-01T00:59:00", "2026-01-01T01:59:00"]),
        ("30 0 0 * * *", ["2026-01-01T00:00:30", "2026-01-02T00:00:30"]),
    ],
)
def test_grammar(expression, expected):
    assert following(expression, "2026-01-01T00:00:00", len(expected)) == expected


@pytest.mark.parametrize("field", ["9-9", "9-9/2"])
def test_an_equal_range_is_its_one_value(field):
    # croniter reads it as the whole field, which would run a daily job every hour
    assert following(f"0 {field} * * *", "2026-01-01T00:00:00", 2) == [
        "2026-01-01T09:00:00",
        "2026-01-02T09:00:00",
    ]


@pytest.mark.parametrize(
    ("expression", "days"),
    [
        ("0 0 13 * 5", [2, 9, 13, 16, 23, 30]),  # both restricted: either (crontab(5))
        ("0 0 */2 * 5", [9, 23]),  # one begins with *: both
        ("0 0 */100,1-7 * 1", [5]),  # the old idiom for "the first Monday"
        ("0 0 13 * */2", [13]),
        ("0 0 1-31 * 1", list(range(1, 32))),
        ("0 0 13 * 4#2", [8, 13]),
        ("0 0 15W * 5", [2, 9, 15, 16, 23, 30]),
    ],
)
def test_day_of_month_and_day_of_week(expression, days):
    cron = compile_cron(expression)
    found = cron.walls(wall("2026-01-01T00:00:00"), wall("2026-02-01T00:00:00"))
    assert [(EPOCH + timedelta(seconds=w)).day for w in found] == days


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("", "not 0"),
        ("* * * *", "not 4"),
        ("* * * * * * 2026", "not 7"),
        ("@fortnightly", "not 1"),
        ("61 * * * *", 'minute "61"'),
        ("* 24 * * *", 'hour "24"'),
        ("0 0 0 * *", 'day-of-month "0"'),
        ("0 0 * 13 *", 'month "13"'),
        ("0 0 * * 8", 'day-of-week "8"'),
        ("60 0 0 * * *", 'second "60"'),
        ("*/0 * * * *", 'minute "*/0"'),
        ("-1 * * * *", 'minute "-1"'),
        ("0 0 * foo *", 'month "foo"'),
        ("H * * * *", "hashed"),
        ("H(0-5)/2 * * * *", "hashed"),
        ("0 r * * *", "hashed"),
        ("@reboot", "not a time"),
        ("0 0 * * 1,2#2", "day-of-week"),
        ("0 0 * * 0-6,1#2", "mixes"),
        ("0 0 1,15W * *", "day-of-month"),
        ("? * * * *", "minute"),
        ("٣ * * * *", "minute"),
        ("0 0 * * *\x00", "day-of-week"),
        ("0\u00a00 * * *", "not 4"),
        ("1," * 600 + "1 * * * *", "too long"),
        ("*" * 1_000_000, "too long"),
    ],
)
def test_refusals_name_the_field(expression, said):
    with pytest.raises(CronError) as refused:
        compile_cron(expression)
    message = str(refused.value)
    assert said in message
    assert message.isprintable()
    assert len(message) < 300


@given(st.text(alphabet="0123456789*/-,#?LWHRlwhr@ abcdefgjmnoptuvy()\t\n\x00", max_size=30))
@settings(max_examples=400)
def test_any_text_compiles_or_is_refused(text):
    try:
        cron = compile_cron(text)
    except CronError:
        return
    assert (cron.next_wall(wall("2026-01-01T00:00:00")) is None) == cron.never


@pytest.mark.parametrize("expression", ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "0 0 30 feb ?"])
def test_what_can_never_match_is_never(expression):
    cron = compile_cron(expression)
    assert cron.never
    assert cron.next_wall(wall("2026-01-01T00:00:00")) is None
    assert cron.last_wall(wall("2026-01-01T00:00:00")) is None
    assert list(cron.walls(0, wall("2126-01-01T00:00:00"))) == []


def test_rare_days_are_found_however_far():
    # 29 February on a Monday: every 28 years, and 40 where a century is no leap year
    expected = [
        date(year, 2, 29)
        for year in range(2026, 2500)
        if calendar.isleap(year) and date(year, 2, 29).weekday() == 0
    ]
    assert expected[0] == date(2044, 2, 29)
    found = following("0 0 */28 2 1#5", "2026-01-01T00:00:00", len(expected))
    assert [datetime.fromisoformat(text).date() for text in found] == expected


@pytest.mark.parametrize("edge", ["9998-12-31T23:59:59", "9999-12-31T23:59:59"])
def test_the_search_ends_with_the_calendar(edge):
    assert compile_cron("* * * * *").next_wall(wall(edge)) is None


FIELDS = st.tuples(
    st.sampled_from(["0", "*", "*/20", "15,45"]),
    st.sampled_from(["0", "*", "*/7", "7-9", "58/1"]),
    st.sampled_from(["*", "0", "23", "*/5", "9-17"]),
    st.sampled_from(["*", "1", "L", "*/10", "15W", "31", "29,30"]),
    st.sampled_from(["*", "2", "1-3", "*/4", "dec"]),
    st.sampled_from(["*", "1-5", "*/2", "0", "5#5", "L1"]),
).map(" ".join)
STARTS = st.integers(min_value=wall("1999-12-01T00:00:00"), max_value=wall("2032-03-01T00:00:00"))


@given(FIELDS, STARTS, st.integers(min_value=0, max_value=3 * 86_400))
@settings(max_examples=150, deadline=None)
def test_searching_listing_and_counting_agree(expression, start, length):
    cron = compile_cron(expression)
    listed = list(cron.walls(start, start + length))
    assert cron.count_walls(start, start + length) == len(listed)
    walked, at = [], start - 1
    while (at := cron.next_wall(at)) is not None and at < start + length:
        walked.append(at)
        if len(walked) > 300:
            break
    assert walked == listed[: len(walked)]
    if listed:
        assert cron.last_wall(start + length - 1) == listed[-1]
    elif (before := cron.last_wall(start + length - 1)) is not None:
        assert before < start
