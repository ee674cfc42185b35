"""Which instants a schedule names, counted out minute by minute: no cron library, and not ours.

It knows what the harness and the periodic jobs of Kubernetes use: cron of 5 fields, of 6 with
seconds first, `@every` from an anchor, all in UTC, which has no gaps and no folds.
"""

from __future__ import annotations

from datetime import datetime, timedelta

_UNITS = {"h": 3600, "m": 60, "s": 1}


def field(text: str, low: int, high: int) -> set[int]:
    """The values of one field: `*`, `a`, `a-b`, each with `/step`, in a list."""
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        if first == "*":
            first, last = str(low), str(high)
        elif step and not last:
            last = str(high)
        found |= set(range(int(first), int(last or first) + 1, int(step or 1)))
    return found


def cron_instants(expression: str, start: datetime, end: datetime) -> list[datetime]:
    """The matches in (start, end]; where both day fields are given either is enough (cron(8))."""
    fields = expression.split()
    seconds = (
        {0} if len(fields) == len(("m", "h", "dom", "mon", "dow")) else field(fields[0], 0, 59)
    )
    minute, hour, day, month, weekday = fields[-5:]
    minutes, hours, months = field(minute, 0, 59), field(hour, 0, 23), field(month, 1, 12)
    days, weekdays = field(day, 1, 31), {n % 7 for n in field(weekday, 0, 7)}
    found = []
    at = start.replace(second=0, microsecond=0)
    while at <= end:
        by_day, by_weekday = at.day in days, (at.weekday() + 1) % 7 in weekdays
        either = by_day or by_weekday
        matches = by_day and by_weekday if "*" in (day, weekday) else either
        if matches and at.minute in minutes and at.hour in hours and at.month in months:
            found += [at + timedelta(seconds=second) for second in sorted(seconds)]
        at += timedelta(minutes=1)
    return [instant for instant in found if start < instant <= end]


def seconds(text: str) -> int:
    """Whole seconds of a duration such as `1h30m`."""
    total, number = 0, ""
    for char in text:
        if char.isdigit():
            number += char
        else:
            total += int(number) * _UNITS[char]
            number = ""
    return total


def instants(schedule: str, anchor: datetime, start: datetime, end: datetime) -> list[datetime]:
    """The instants of a schedule in (start, end]; `@every` counts from `anchor`.

    Raises:
        ValueError: of `@after`, whose instants hang on when the job finished.
    """
    if schedule.startswith("@after"):
        raise ValueError(f"{schedule!r} names no instants of its own")
    if not schedule.startswith("@every"):
        return cron_instants(schedule, start, end)
    step = timedelta(seconds=seconds(schedule.split()[1]))
    first = max(1, (start - anchor) // step + 1)
    found = []
    at = anchor + step * first
    while at <= end:
        found.append(at)
        at += step
    return found
