"""Instants: aware UTC datetimes, epoch nanoseconds, and the one text form users read."""

from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def epoch_us(instant: datetime) -> int:
    """Whole microseconds since 1970 of an aware instant; exact, unlike `timestamp()`."""
    return (instant - _EPOCH) // _MICROSECOND


def from_epoch_ns(ns: int) -> datetime:
    """The aware UTC instant at `ns` since 1970, cut to the microsecond below."""
    return _EPOCH + timedelta(microseconds=ns // 1000)


def to_epoch_ns(instant: datetime) -> int:
    """Nanoseconds since 1970 of an aware instant."""
    return epoch_us(instant) * 1000


def iso(instant: datetime) -> str:
    """ISO-8601 in UTC with microseconds: `2026-12-01T08:00:00.000000Z`."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
