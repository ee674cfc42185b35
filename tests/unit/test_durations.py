"""Durations: what contract.md lets people write, and nothing else."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.durations import DURATION_S_MAX, DurationError, format_duration, parse_duration


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (90, 90.0),
        (0.5, 0.5),
        ("90", 90.0),
        ("90s", 90.0),
        ("0.5s", 0.5),
        (".5s", 0.5),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        ("250ms", 0.25),
        ("1m500ms", 60.5),
        ("1d", 86_400.0),
        ("366d", float(DURATION_S_MAX)),
        (" 10s ", 10.0),
        ("0.1s", 0.1),
    ],
)
def test_reads_seconds_and_joined_units(value, seconds):
    assert parse_duration(value) == seconds


@pytest.mark.parametrize(
    "value",
    [
        "soon", "", " ", "s", "1 h", "1h 30m", "-1s", "+1s", "1e3", "1h30", "1w", "1S", "1..5s",
        "1.s", "١s", "1h\x00", "0x10", "nan", "inf", "9" * 1_000_000, None, True, False, [], {},
        b"1s", math.nan, 0, 0.0, "0", "0s", -1, -0.5, math.inf, -math.inf, 10**400, "367d",
        DURATION_S_MAX + 1, "366d1ms",
    ],
)  # fmt: skip
def test_refuses_the_rest_in_one_short_sentence(value):
    with pytest.raises(DurationError) as refused:
        parse_duration(value)
    message = str(refused.value)
    assert "duration" in message
    assert len(message) < 200
    assert message.isprintable()


def test_a_minimum_is_told():
    with pytest.raises(DurationError, match="1s is the shortest"):
        parse_duration("0.5s", minimum_s=1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5400, "1h30m"), (90, "1m30s"), (0.25, "250ms"), (1.5, "1.5s"), (86_401, "1d1s"), (0, "0s")],
)
def test_writes_the_largest_units_first(seconds, text):
    assert format_duration(seconds) == text


def test_a_length_of_time_is_finite():
    with pytest.raises(DurationError):
        format_duration(math.nan)


@given(st.integers(min_value=1, max_value=DURATION_S_MAX * 1_000_000))
def test_what_is_written_reads_back_to_the_microsecond(microseconds):
    seconds = microseconds / 1_000_000
    assert round(parse_duration(format_duration(seconds)) * 1_000_000) == microseconds


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text):
    try:
        seconds = parse_duration(text)
    except DurationError:
        return
    assert 0 < seconds <= DURATION_S_MAX
