"""Reads a job file's `schedule:` and `calendars:` into their stored form, telling every error.

Pure: whether a cron expression can be read is asked of `actors.timer.cron` by whoever loads.
"""

import difflib
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any, Final, TypeVar, get_args
from zoneinfo import ZoneInfo

from protocols.days import DayError, DaySet
from protocols.durations import DurationError, parse_duration, shown
from protocols.errors import InvalidError, Problem
from protocols.schedules import (
    CATCH_UP_MAX,
    NICKNAMES,
    Calendar,
    Fold,
    Gap,
    Kind,
    Misfire,
    MisfirePolicy,
    Schedule,
)

Path = tuple[str | int, ...]
_T = TypeVar("_T")

EVERY_MIN_S: Final = 1.0
AFTER_MIN_S: Final = 0.001
CALENDAR_DAYS_MAX: Final = 10_000
_YEARS: Final = range(1970, 9999)
_TEXT_LENGTH_MAX: Final = 1000
_SCHEDULE_FIELDS: Final = (
    "cron", "every", "after", "at", "timezone", "start", "end", "jitter", "calendar", "exclude",
    "dst", "misfire",
)  # fmt: skip
_WAYS: Final = "cron, every, after or at"
_RATE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*/\s*([0-9]*[0-9.]*(?:ms|s|m|h|d))")


def parse_schedule(value: object, *, timezone: str = "UTC", path: Path = ("schedule",)) -> Schedule:
    """Read a `schedule:`, a text or a mapping.

    Args:
        value: as the file has it; dates may be dates already.
        timezone: the job's own; a mapping may name another.
        path: where the value stands, the root of the places in errors.

    Raises:
        InvalidError: with every problem found, each with its place.
    """
    reader = _Reader()
    schedule = reader.schedule(value, timezone, path)
    reader.raise_problems()
    assert schedule is not None, "without a problem there is a schedule"
    return schedule


def parse_calendar(value: object, *, path: Path = ("calendar",)) -> Calendar:
    """Read one entry of `calendars:`: a list of excluded days, or a mapping of include, exclude.

    Raises:
        InvalidError: with every problem found, each with its place.
    """
    reader = _Reader()
    fields = {"exclude": value} if isinstance(value, list | str) else value
    known = reader.mapping(fields, ("exclude", "include"), path, "a list of days, or a mapping")
    at = path if fields is not value else None
    calendar = Calendar(
        exclude=reader.days(known.get("exclude", []), at or (*path, "exclude")),
        include=reader.days(known.get("include", []), (*path, "include")),
    )
    if not reader.problems and not calendar.exclude and not calendar.include:
        reader.problem(path, "names no days: give exclude, include, or both")
    reader.raise_problems()
    return calendar


class _Reader:
    """Collects problems while it reads; what could not be read comes back as None."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def raise_problems(self) -> None:
        if self.problems:
            raise InvalidError(tuple(self.problems))

    def problem(self, path: Path, message: str) -> None:
        self.problems.append(Problem(path, message))

    def schedule(self, value: object, timezone: str, path: Path) -> Schedule | None:
        if isinstance(value, str):
            zone = self.zone(timezone, path)
            return self.due(*_kind_of(value), path, zone, timezone, {})
        if not isinstance(value, Mapping):
            self.problem(path, f"{shown(value)} is not a schedule: give a text or a mapping")
            return None
        known = self.mapping(value, _SCHEDULE_FIELDS, path, "a schedule")
        name: object = known.get("timezone", timezone)
        zone = self.zone(name, (*path, "timezone"))
        ways = [kind for kind in get_args(Kind) if kind in known]
        options = self.options(known, path, zone, ways[0] if ways else "")
        if len(ways) != 1:
            said = f"has {' and '.join(ways)}" if ways else "does not say when"
            self.problem(path, f"{said}: give exactly one of {_WAYS}")
            return None
        return self.due(ways[0], known[ways[0]], (*path, ways[0]), zone, str(name), options)

    def due(
        self,
        kind: str,
        value: object,
        path: Path,
        zone: ZoneInfo | None,
        timezone: str,
        options: dict[str, Any],
    ) -> Schedule | None:
        if kind == "at":
            options.setdefault("misfire", Misfire(policy="catch_up"))
            at = self.instant(value, path, zone)
            return Schedule(kind="at", text=f"@at {value}", at=at, timezone=timezone, **options)
        if kind == "every":
            every_s = self.duration(value, path, EVERY_MIN_S)
            text = f"@every {value}"
            return Schedule(
                kind="every", text=text, interval_s=every_s, timezone=timezone, **options
            )
        if kind == "after":
            after_s = self.duration(value, path, AFTER_MIN_S)
            text = f"@after {value}"
            return Schedule(
                kind="after", text=text, interval_s=after_s, timezone=timezone, **options
            )
        cron = self.cron(value, path)
        text = str(value).strip()
        return Schedule(kind="cron", text=text, cron=cron, timezone=timezone, **options)

    def cron(self, value: object, path: Path) -> str | None:
        """Read what may be a cron expression, with nicknames written out."""
        if not isinstance(value, str) or not value.strip():
            self.problem(path, f"{shown(value)} is not a cron expression: give a text")
            return None
        text = value.strip()
        if len(text) > _TEXT_LENGTH_MAX:
            self.problem(path, f"{shown(text)} is too long a schedule")
            return None
        if text.startswith("@") and text.lower() not in NICKNAMES and text.lower() != "@reboot":
            nicknames = ", ".join(NICKNAMES)
            self.problem(
                path,
                f"{shown(text)} is not a schedule: give a cron expression, {nicknames}, @every, "
                "@after or @at",
            )
            return None
        return NICKNAMES.get(text.lower(), text)

    def options(
        self, known: Mapping[str, Any], path: Path, zone: ZoneInfo | None, kind: str
    ) -> dict[str, Any]:
        """Read all fields but the one that says when."""
        options: dict[str, Any] = {}
        for bound in ("start", "end"):
            if bound in known:
                options[bound] = self.instant(known[bound], (*path, bound), zone)
        if options.get("start") and options.get("end") and options["start"] > options["end"]:
            self.problem((*path, "end"), "the end is before the start")
        if "jitter" in known:
            options["jitter_s"] = self.duration(known["jitter"], (*path, "jitter"))
        if "calendar" in known:
            options["calendars"] = self.names(known["calendar"], (*path, "calendar"))
        if "exclude" in known:
            options["exclude"] = self.days(known["exclude"], (*path, "exclude"))
        if "dst" in known:
            self.dst(known["dst"], (*path, "dst"), kind, options)
        if "misfire" in known:
            misfire = self.misfire(known["misfire"], (*path, "misfire"), kind)
            if misfire is not None:
                options["misfire"] = misfire
        return options

    def dst(self, value: object, path: Path, kind: str, options: dict[str, Any]) -> None:
        if kind and kind != "cron":
            self.problem(path, f"does not apply to {kind}, which runs in real time")
        dst = self.mapping(value, ("gap", "fold"), path, "a DST rule")
        if "gap" in dst:
            options["dst_gap"] = self.choice(dst["gap"], get_args(Gap), (*path, "gap"))
        if "fold" in dst:
            options["dst_fold"] = self.choice(dst["fold"], get_args(Fold), (*path, "fold"))

    def misfire(self, value: object, path: Path, kind: str) -> Misfire | None:
        if kind == "after":
            self.problem(path, "does not apply to after, which stays due until it has run")
        fields: dict[str, Any] = {"policy": "catch_up" if kind == "at" else "execute_once"}
        names = ("policy", "grace", "within", "limit", "rate")
        found = self.mapping(value, names, path, "a misfire rule")
        if "policy" in found:
            fields["policy"] = self.choice(
                found["policy"], get_args(MisfirePolicy), (*path, "policy")
            )
        for name in ("grace", "within"):
            if name in found:
                fields[f"{name}_s"] = self.duration(found[name], (*path, name))
        if "limit" in found:
            fields["limit"] = limit = found["limit"]
            if type(limit) is not int or not 1 <= limit <= CATCH_UP_MAX:
                said = f"{shown(limit)} is not a limit: give a number from 1 to {CATCH_UP_MAX}"
                self.problem((*path, "limit"), f"{said}, and backfill the rest")
        if "rate" in found:
            fields["rate_per_s"] = self.rate(found["rate"], (*path, "rate"))
        return None if self.problems else Misfire(**fields)

    def rate(self, value: object, path: Path) -> float | None:
        text = value.strip() if isinstance(value, str) else ""
        found = _RATE.fullmatch(text) if len(text) <= 32 else None  # noqa: PLR2004
        if found is None or not float(found[1]) > 0:
            self.problem(path, f"{shown(value)} is not a rate: give one such as 10/s or 30/5m")
            return None
        unit = found[2] if found[2][0] in "0123456789." else f"1{found[2]}"
        per_s = self.duration(unit, path)
        return per_s and float(found[1]) / per_s

    def mapping(
        self, value: object, names: tuple[str, ...], path: Path, what: str
    ) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            self.problem(path, f"{shown(value)} is not {what}: give a mapping")
            return {}
        for key in value:
            if key not in names:
                near = difflib.get_close_matches(str(key)[:99], names, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(names)}"
                self.problem((*path, str(key)), f"unknown field {shown(key)}: {hint}")
        return {key: value[key] for key in names if key in value}

    def names(self, value: object, path: Path) -> tuple[str, ...]:
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(v, str) and v for v in values):
            self.problem(path, f"{shown(value)} names no calendar: give a name, or a list of names")
            return ()
        return tuple(values)

    def days(self, value: object, path: Path) -> tuple[str, ...]:
        values = value if isinstance(value, list) else [value]
        if len(values) > CALENDAR_DAYS_MAX:
            self.problem(path, f"names more than {CALENDAR_DAYS_MAX} days; use ranges")
            return ()
        found = []
        for place, day in enumerate(values):
            at = (*path, place) if isinstance(value, list) else path
            text = day.isoformat() if type(day) is date else day
            try:
                if not isinstance(text, str):
                    raise DayError(f"{shown(text)} is not a day")  # noqa: TRY301 - one way out
                DaySet([text])
            except DayError as error:
                self.problem(at, str(error))
            else:
                found.append(text.strip().lower())
        return tuple(found)

    def choice(self, value: object, choices: tuple[_T, ...], path: Path) -> _T | None:
        for choice in choices:
            if value == choice:
                return choice
        names = " or ".join(map(str, choices))
        self.problem(path, f"{shown(value)} is not a choice here: give {names}")
        return None

    def duration(self, value: object, path: Path, minimum_s: float = 0.0) -> float | None:
        try:
            return parse_duration(value, minimum_s=minimum_s)
        except DurationError as error:
            self.problem(path, str(error))
            return None

    def zone(self, name: object, path: Path) -> ZoneInfo | None:
        try:
            if not isinstance(name, str):
                raise ValueError  # noqa: TRY301, TRY004 - one message for every wrong zone
            return ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            # OSError: a folder of the zone database, or a name too long for a file.
            self.problem(
                path, f"{shown(name)} is not a time zone: give an IANA name such as Europe/Berlin"
            )
            return None

    def instant(self, value: object, path: Path, zone: ZoneInfo | None) -> datetime | None:
        """Read an instant; one without an offset is on the wall clock of the schedule's zone."""
        try:
            found = _datetime(value)
            if found.year not in _YEARS:
                raise ValueError  # noqa: TRY301 - one message for every wrong instant
            if found.tzinfo is None:
                found = found.replace(tzinfo=zone or UTC)
            return found.astimezone(UTC)
        except (ValueError, OverflowError):
            self.problem(
                path,
                f"{shown(value)} is not an instant: give ISO-8601 such as "
                "2026-12-01T09:00:00+01:00",
            )
            return None


def _datetime(value: object) -> datetime:
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)  # noqa: DTZ001 - a zone follows
    if isinstance(value, str) and len(value) <= 64:  # noqa: PLR2004 - no instant is longer
        return datetime.fromisoformat(value.strip())
    raise ValueError


def _kind_of(text: str) -> tuple[str, str]:
    """Split `@every 1h` into its kind and its value; what has no such word is cron."""
    word, _, rest = text.strip().partition(" ")
    kind = word.lower().removeprefix("@")
    if word.startswith("@") and kind in {"every", "after", "at"}:
        return kind, rest.strip()
    return "cron", text
