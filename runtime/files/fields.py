"""Takes the fields of a mapping one by one, by a rule each, and tells of every wrong one."""

import difflib
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from protocols.durations import DurationError, parse_duration, shown
from protocols.errors import InvalidError, Problem
from protocols.nearest import Nearest
from runtime.files.places import Path

T = TypeVar("T")
D = TypeVar("D")

TEXT_CHARS_MAX: Final = 100_000
KEY_CHARS_MAX: Final = 1000
DEPTH_MAX: Final = 64
INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**63 - 1
JOB_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,199}")
_ABSENT: Final = object()


class Refused(ValueError):  # noqa: N818 - a rule's way to say no, told as a Problem
    """A value breaks its rule; the message is the sentence for the user."""

    def __init__(self, message: str, path: Path = ()) -> None:
        super().__init__(message)
        self.path = path


class Fields:
    """A mapping being read; problems are collected, and a field that is wrong reads as default."""

    def __init__(
        self, raw: object, path: Path, problems: list[Problem], *, what: str = "a mapping"
    ) -> None:
        self.path = path
        self.problems = problems
        self._raw: Mapping[Any, Any] = {}
        self._seen: set[str] = set()
        if isinstance(raw, Mapping):
            self._raw = raw
        else:
            self.refuse((), f"{shown(raw)} is not {what}")

    def refuse(self, path: Path, message: str, *, of_key: bool = False) -> None:
        """Add a problem at `path` below this mapping."""
        self.problems.append(Problem((*self.path, *path), message, of_key))

    def __contains__(self, name: str) -> bool:
        return self._raw.get(name, _ABSENT) not in (_ABSENT, None)

    def raw(self, name: str) -> Any:
        """The value as it stands, None where there is none; counts as seen."""
        self._seen.add(name)
        return self._raw.get(name)

    def take(self, name: str, rule: Callable[[Any], T], default: D) -> T | D:
        """The value of `name` by `rule`; `default` where it is absent, null or wrong."""
        value = self.raw(name)
        if value is None:
            return default
        try:
            return rule(value)
        except Refused as error:
            self.refuse((name, *error.path), str(error))
        except DurationError as error:
            self.refuse((name,), str(error))
        except InvalidError as error:
            self.problems.extend(error.problems)
        return default

    def later(self, name: str, why: str) -> None:
        """Refuse by its name a field whose rule is not built yet."""
        if name in self._raw:
            self._seen.add(name)
            self.refuse((name,), f"{why} is not built yet; leave it out")

    def close(self) -> None:
        """Refuse what nobody took, with the nearest name that is known."""
        nearest = Nearest(sorted(self._seen))
        for key in self._raw:
            if key in self._seen:
                continue
            near = nearest.to(str(key))
            hint = f'; did you mean "{near}"?' if near else ""
            message = f"there is no field {shown(str(key))}{hint}"
            self.refuse((str(key),), message, of_key=True)


def text(value: object, *, most: int = TEXT_CHARS_MAX) -> str:
    """Any text without a NUL, at most so long."""
    if not isinstance(value, str):
        raise Refused(f"{shown(value)} is not text")
    if len(value) > most:
        raise Refused(f"this is {len(value):,} characters long; at most {most:,} are allowed")
    if "\0" in value:
        raise Refused("a NUL character cannot stand in a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Refused("a lone surrogate cannot stand in a text") from None
    return value


def filled(value: object) -> str:
    """A text that is not blank."""
    if not text(value).strip():
        raise Refused("this is empty")
    return text(value)


def short(value: object) -> str:
    """A text of at most 1,000 characters."""
    return text(value, most=1000)


def matching(pattern: re.Pattern[str], form: str) -> Callable[[object], str]:
    """A text of that form."""

    def rule(value: object) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise Refused(f"{shown(value)} is not {form}")
        return value

    return rule


job_name = matching(
    JOB_ID, "a job id: a letter or digit, then up to 199 letters, digits, `.`, `_` or `-`"
)
name = matching(NAME, "a name: a letter or digit, then up to 199 letters, digits or any of `._:/-`")


def choice(*names: str) -> Callable[[object], Any]:
    """One of these words."""

    def rule(value: object) -> str:
        if not isinstance(value, str) or value not in names:
            near = difflib.get_close_matches(str(value), names, n=1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            raise Refused(f"{shown(value)} is not one of {', '.join(names)}{hint}")
        return value

    return rule


def flag(value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise Refused(f"{shown(value)} is not true or false")
    return value


def whole(least: int, most: int) -> Callable[[object], int]:
    """A whole number within bounds, both included."""

    def rule(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise Refused(f"{shown(value)} is not a whole number from {least} to {most}")
        return value

    return rule


def share(value: object) -> float:
    """A number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise Refused(f"{shown(value)} is not a number from 0 to 1")
    return float(value)


def seconds(value: object) -> float:
    """A duration, in seconds."""
    return parse_duration(value)


def list_of(rule: Callable[[Any], T], *, most: int) -> Callable[[object], tuple[T, ...]]:
    """A list of things that each keep `rule`."""

    def read(value: object) -> tuple[T, ...]:
        if not isinstance(value, list | tuple):
            raise Refused(f"{shown(value)} is not a list")
        if len(value) > most:
            raise Refused(f"this list has {len(value):,} entries; at most {most:,} are allowed")
        found = []
        for i, item in enumerate(value):
            try:
                found.append(rule(item))
            except Refused as error:
                raise Refused(str(error), (i, *error.path)) from None
        return tuple(found)

    return read


def plain(value: object) -> Any:
    """What JSON and PostgreSQL can both keep: no NUL, no NaN, no number beyond 64 bits."""
    return _plain(value, 0)


def _plain(value: object, depth: int) -> Any:
    if depth > DEPTH_MAX:
        raise Refused(f"this is nested deeper than {DEPTH_MAX} levels")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return text(value)
    if isinstance(value, int | float):
        if isinstance(value, float) and not math.isfinite(value):
            raise Refused(f"{value} is not a number that JSON knows")
        if isinstance(value, int) and not INT_MIN <= value <= INT_MAX:
            raise Refused("this number is beyond 64 bits; give it as text")
        return value
    if not isinstance(value, Mapping | list | tuple):
        raise Refused(f"a {type(value).__name__} cannot be kept as JSON")
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    for key, item in items:
        try:
            if isinstance(value, Mapping):
                text(key, most=KEY_CHARS_MAX)
            _plain(item, depth + 1)
        except Refused as error:
            raise Refused(
                str(error), (key if isinstance(key, int) else str(key), *error.path)
            ) from None
    return value


def distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    """The same list, refused where a thing stands in it twice."""
    seen: set[T] = set()
    for i, value in enumerate(values):
        if value in seen:
            raise Refused(f"{shown(value)} stands here twice", (i,))
        seen.add(value)
    return values


def texts(value: object) -> dict[str, str]:
    """A mapping of names to texts; a number or a boolean (of JSON) as JSON has it."""
    if not isinstance(value, Mapping):
        raise Refused(f"{shown(value)} is not a mapping of names to texts")
    found = {}
    for key, item in value.items():
        spelled = str(item).lower() if isinstance(item, bool) else item
        try:
            if isinstance(spelled, int | float):
                spelled = str(plain(spelled))
            found[text(key, most=KEY_CHARS_MAX)] = text(spelled)
        except Refused as error:
            raise Refused(str(error), (str(key),)) from None
    return found
