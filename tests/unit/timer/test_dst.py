"""Cron in a zone, held to an enumerator that looks at every minute and knows no piece or seam."""

import importlib.resources
import itertools
import struct
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from actors.timer.dst import ZoneError, timetable, zone

MINUTE = timedelta(minutes=1)
MINUTES = {"0": {0}, "30": {30}, "*/15": {0, 15, 30, 45}, "*": set(range(60)), "5,50": {5, 50}}
HOURS = {
    "2": {2}, "0": {0}, "23": {23}, "*": set(range(24)), "1-3": {1, 2, 3},
    "*/2": set(range(0, 24, 2)), "0,1,22,23": {0, 1, 22, 23},
}  # fmt: skip
WEEKDAYS = {"*": set(range(7)), "0": {6}, "1-5": {0, 1, 2, 3, 4}, "6": {5}}
# An instant at or near which the zone's clock changes.
SEAMS = [
    ("America/New_York", "2026-03-08T07:00"),
    ("America/New_York", "2026-11-01T06:00"),
    ("Europe/Berlin", "2025-03-30T01:00"),
    ("Europe/Berlin", "2025-10-26T01:00"),
    ("Europe/Dublin", "2025-10-26T01:00"),
    ("Australia/Lord_Howe", "2025-10-04T15:30"),
    ("Australia/Lord_Howe", "2025-04-05T15:00"),
    ("Pacific/Apia", "2011-12-30T10:00"),
    ("Pacific/Kwajalein", "1993-08-21T12:00"),
    ("Africa/Casablanca", "2025-02-23T02:00"),
    ("Africa/Casablanca", "2025-04-06T02:00"),
    ("America/St_Johns", "2011-03-13T03:31"),  # at 00:01, from one day into the last
    ("America/St_Johns", "2010-11-07T02:31"),
    ("America/Sao_Paulo", "2018-02-18T02:00"),
    ("America/Havana", "2025-11-02T05:00"),
    ("Antarctica/Troll", "2025-10-26T01:00"),
    ("Antarctica/Casey", "2010-03-04T15:00"),
    ("America/Juneau", "1980-04-27T10:00"),
    ("Asia/Pyongyang", "2018-05-04T15:00"),
    ("America/Caracas", "2016-05-01T07:00"),
    ("Asia/Manila", "1844-12-31T15:56"),  # lived 30 December, then 1 January
    ("Africa/Monrovia", "1972-01-07T00:44"),  # 44 min 30 s
    ("Europe/Amsterdam", "1937-06-30T23:40"),
    ("Pacific/Kiritimati", "1994-12-31T10:40"),  # the last day of a year was skipped
    ("Asia/Gaza", "2040-10-20T00:00"),
    ("UTC", "2026-01-01T00:00"),
]


def instants(start: datetime, end: datetime, matches, tz: ZoneInfo, gap: str, fold: str):
    """Apply the rule minute by minute, as it is worded, to all walls from start to end."""
    found = set()
    wall = start.replace(tzinfo=None)
    while wall <= end.replace(tzinfo=None):
        if matches(wall):
            times = {wall.replace(tzinfo=tz, fold=f).astimezone(UTC) for f in (0, 1)}
            real = sorted(t for t in times if t.astimezone(tz).replace(tzinfo=None) == wall)
            if not real:
                if gap == "next_valid":
                    found.add(end_of_gap(wall, tz))
            elif fold == "both":
                found.update(real)
            else:
                found.add(real[0] if fold == "first" else real[-1])
        wall += MINUTE
    return found


def end_of_gap(wall: datetime, tz: ZoneInfo) -> datetime:
    """Return the first instant whose wall is past a skipped one, to the second."""
    low, high = (wall.replace(tzinfo=UTC) + timedelta(days=days) for days in (-2, 2))
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) // 2
        middle = middle.replace(microsecond=0)
        if middle.astimezone(tz).replace(tzinfo=None) > wall:
            high = middle
        else:
            low = middle
    return high


@given(
    seam=st.sampled_from(SEAMS),
    minute=st.sampled_from(sorted(MINUTES)),
    hour=st.sampled_from(sorted(HOURS)),
    weekday=st.sampled_from(sorted(WEEKDAYS)),
    gap=st.sampled_from([None, "next_valid", "skip"]),
    fold=st.sampled_from([None, "first", "second", "both"]),
    shift=st.integers(min_value=-40 * 60, max_value=20 * 60),
)
@settings(max_examples=120, deadline=None)
@example(("Africa/Casablanca", "2025-02-23T02:00"), "*", "2", "0", None, None, -1)
@example(("Africa/Casablanca", "2025-02-23T02:00"), "30", "2", "0", None, None, 10 - 2 * 1440)
@example(SEAMS[7], "0", "2", "*", None, None, -100)
@example(SEAMS[12], "30", "23", "*", None, "both", -100)
@example(SEAMS[23], "30", "0,1,22,23", "6", "next_valid", None, -600)
def test_a_zone_runs_what_the_rule_says(seam, minute, hour, weekday, gap, fold, shift):
    name, near = seam
    tz = ZoneInfo(name)
    start = datetime.fromisoformat(near).replace(tzinfo=UTC) + shift * MINUTE
    end = start + timedelta(days=2)
    real_time = minute.startswith("*") or hour.startswith("*")

    def matches(wall: datetime) -> bool:
        return (
            wall.minute in MINUTES[minute]
            and wall.hour in HOURS[hour]
            and wall.weekday() in WEEKDAYS[weekday]
        )

    every = instants(
        start - timedelta(days=1, hours=12),
        end + timedelta(days=1, hours=12),
        matches,
        tz,
        gap or ("skip" if real_time else "next_valid"),
        fold or ("both" if real_time else "first"),
    )
    expected = sorted(round(t.timestamp()) for t in every if start < t <= end)
    table = timetable(f"{minute} {hour} * * {weekday}", name, gap=gap, fold=fold)
    first, last = round(start.timestamp()), round(end.timestamp())

    assert list(table.between(first, last)) == expected
    assert table.count(first, last) == len(expected)
    forwards, at = [], first
    while (at := table.next_after(at)) is not None and at <= last:
        forwards.append(at)
    assert forwards == expected
    backwards, at = [], last
    while (at := table.last_until(at)) is not None and at > first:
        backwards.append(at)
        at -= 1
    assert backwards[::-1] == expected


@pytest.mark.parametrize(
    ("expression", "options", "spring", "autumn"),
    [
        ("30 2 * * *", {}, ["03:00+0200"], ["02:30+0200"]),
        ("*/30 2 * * *", {}, [], ["02:00+0200", "02:30+0200", "02:00+0100", "02:30+0100"]),
        ("30 2 * * *", {"gap": "skip", "fold": "second"}, [], ["02:30+0100"]),
        ("0,30 2,3 * * *", {}, ["03:00+0200", "03:30+0200"], None),
    ],
)
def test_the_examples_of_the_users_page(expression, options, spring, autumn):
    table = timetable(expression, "Europe/Berlin", **options)
    for day, expected in ((datetime(2026, 3, 29), spring), (datetime(2026, 10, 25), autumn)):  # noqa: DTZ001
        start = round(day.replace(tzinfo=UTC).timestamp())
        found = [
            datetime.fromtimestamp(at, ZoneInfo("Europe/Berlin")).strftime("%H:%M%z")
            for at in table.between(start - 3600, start + 20 * 3600)
        ]
        assert expected is None or found == expected


def test_the_seconds_of_a_gap_run_once():
    # two in the morning in the last week of March: sixty wall times, one instant
    table = timetable("* 30 2 * * *", "Europe/Berlin")
    day = round(datetime(2025, 3, 30, tzinfo=UTC).timestamp())
    assert list(table.between(day, day + 86_400)) == [day + 3600]


def test_a_rare_day_is_found_in_any_zone():
    table = timetable("0 12 */28 2 1#5", "America/New_York")
    at = round(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
    assert table.next_after(at) == round(datetime(2044, 2, 29, 17, tzinfo=UTC).timestamp())
    assert table.last_until(at) == round(datetime(2016, 2, 29, 17, tzinfo=UTC).timestamp())


def test_never_is_never_in_any_zone():
    table = timetable("0 0 30 2 *", "Europe/Berlin")
    assert table.next_after(0) is None
    assert table.last_until(0) is None
    assert table.count(0, 10**10) == 0


@pytest.mark.parametrize(
    "name",
    ["", "Mars/Olympus", "../../etc/passwd", "/etc", "Europe", "Europe/Berlin\x00", "x" * 9999],
)
def test_a_wrong_zone_is_told_in_one_line(name):
    with pytest.raises(ZoneError, match="is not a time zone") as refused:
        zone(name)
    assert str(refused.value).isprintable()


def test_no_zone_changes_its_offset_twice_in_six_days():
    """One look a day finds every change, and the rule at a seam looks at its neighbours only."""
    files = importlib.resources.files("tzdata")
    for name in files.joinpath("zones").read_text().split():
        data = files.joinpath("zoneinfo").joinpath(name).read_bytes()
        changes = _offset_changes(data)
        for one, two in itertools.pairwise(changes):
            assert two - one > 6 * 86_400, name


def _offset_changes(data: bytes) -> list[int]:
    """Read a TZif file (RFC 9636), version 2 block: the instants at which the offset changes."""
    counts = struct.unpack(">6l", data[20:44])
    utc, std, leap, times, types, chars = counts
    data = data[44 + times * 5 + types * 6 + chars + leap * 8 + std + utc :]
    _, _, _, times, types, _ = struct.unpack(">6l", data[20:44])
    instants = struct.unpack(f">{times}q", data[44 : 44 + 8 * times])
    kinds = data[44 + 8 * times : 44 + 9 * times]
    table = data[44 + 9 * times :]
    offsets = [struct.unpack(">l", table[6 * i : 6 * i + 4])[0] for i in range(types)]
    changes, current = [], offsets[0]
    for instant, kind in zip(instants, kinds, strict=True):
        if offsets[kind] != current:
            changes.append(instant)
            current = offsets[kind]
    return changes
