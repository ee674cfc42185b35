"""Durations as people write them: a number of seconds, or numbers with units, joined."""

import math
import re
from fractions import Fraction
from typing import Final

DURATION_S_MAX: Final = 366 * 86_400
"""No duration in Tickwright is longer than 366 days."""

_TEXT_LENGTH_MAX: Final = 64
_UNITS_S: Final = {
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
    "d": Fraction(86_400),
}
_NUMBER: Final = r"(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
_PART: Final = re.compile(rf"({_NUMBER})(ms|s|m|h|d)")
_JOINED: Final = re.compile(rf"(?:{_NUMBER}(?:ms|s|m|h|d))+")
_PLAIN: Final = re.compile(_NUMBER)


class DurationError(ValueError):
    """A value is not a duration; the message is one sentence that names it and the way out."""


def shown(value: object) -> str:
    """Quote a user's value for an error message: one line, no longer than a line."""
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:99])
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004 - a line's width


def parse_duration(value: object, *, minimum_s: float = 0.0) -> float:
    """Read a duration.

    Args:
        value: a number of seconds (`90`, `0.5`, `"90"`), or numbers with the units `ms s m h d`,
            decimals allowed, joined (`"1h30m"`).
        minimum_s: the least that is allowed, in seconds; always above 0.

    Returns:
        Seconds: finite, above 0, at most 366 days.

    Raises:
        DurationError: the value is anything else.
    """
    seconds = _seconds(value)
    if seconds is None:
        raise DurationError(
            f"{shown(value)} is not a duration: give seconds, or numbers with ms, s, m, h or d, "
            "such as 1h30m"
        )
    if not seconds > 0:
        raise DurationError(f"{shown(value)} is not a duration: it must be above 0")
    if seconds > DURATION_S_MAX:
        raise DurationError(f"{shown(value)} is too long a duration: 366 days is the longest")
    if seconds < minimum_s:
        raise DurationError(
            f"{shown(value)} is too short a duration here: {format_duration(minimum_s)} is the "
            "shortest"
        )
    return float(seconds)


def format_duration(seconds: float) -> str:
    """Write seconds the way `parse_duration` reads them, largest unit first (`1h30m`, `1.5s`).

    Milliseconds are used below a second; what is finer than a microsecond is rounded away.

    Raises:
        DurationError: the number is negative, or not finite.
    """
    if not math.isfinite(seconds) or seconds < 0:
        raise DurationError(f"{seconds!r} is not a length of time")
    left_us = round(seconds * 1_000_000)
    if left_us < 1_000_000:  # noqa: PLR2004 - a second in microseconds
        return f"{_decimal(left_us, 1000)}ms" if left_us else "0s"
    parts = []
    for unit in ("d", "h", "m"):
        unit_us = int(_UNITS_S[unit] * 1_000_000)
        count, left_us = divmod(left_us, unit_us)
        if count:
            parts.append(f"{count}{unit}")
    if left_us:
        parts.append(f"{_decimal(left_us, 1_000_000)}s")
    return "".join(parts)


def _seconds(value: object) -> Fraction | float | None:
    """Return the number a value stands for, or None where it is no duration by its form."""
    if isinstance(value, str):
        return _seconds_of_text(value.strip())
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float):
        return None if math.isnan(value) else value
    # A huge integer fits no float, so it is cut before it becomes one.
    return float(max(-1, min(value, DURATION_S_MAX + 1)))


def _seconds_of_text(text: str) -> Fraction | None:
    if len(text) > _TEXT_LENGTH_MAX:
        return None
    if _PLAIN.fullmatch(text):
        return Fraction(text)
    if _JOINED.fullmatch(text):
        return sum(
            (Fraction(number) * _UNITS_S[unit] for number, unit in _PART.findall(text)),
            start=Fraction(0),
        )
    return None


def _decimal(amount: int, scale: int) -> str:
    whole, rest = divmod(amount, scale)
    digits = str(rest).rjust(len(str(scale)) - 1, "0").rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)
