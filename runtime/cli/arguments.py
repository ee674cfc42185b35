"""The values people type: instants, durations, JSON; and the options that commands share."""

import json
import math
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from protocols.durations import DurationError, parse_duration, shown
from protocols.instants import from_epoch_ns
from runtime.clock import wall_ns

VALUE_BYTES_MAX: Final = 16 * 1024 * 1024
"""The most that `@file` and `-` read; the node's own limits are lower, and told by it."""
_INSTANT_CHARS_MAX: Final = 64

Function = TypeVar("Function", bound=Callable[..., Any])


class Instant(click.ParamType[datetime]):
    """ISO-8601. Without an offset it is refused, unless `zoned`: then it comes back naive."""

    name = "instant"

    def __init__(self, *, zoned: bool = False, ago: bool = False) -> None:
        self._zoned = zoned
        self._ago = ago

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Read the text."""
        if isinstance(value, datetime):
            return value
        if self._ago:
            try:
                return now() - timedelta(seconds=parse_duration(value))
            except DurationError:
                pass
        try:
            found = datetime.fromisoformat(value.strip()[:_INSTANT_CHARS_MAX])
            if found.tzinfo is not None:
                return found.astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"{shown(value)} is not an instant: {self._such_as()}", param, ctx)
        if not self._zoned:
            self.fail(f"{shown(value)} does not say which zone: {self._such_as()}", param, ctx)
        return found

    def _such_as(self) -> str:
        ago = ", or how long ago, such as 90m" if self._ago else ""
        return f"give ISO-8601 such as 2026-12-01T09:00:00+01:00{ago}"


class Duration(click.ParamType[float]):
    """Seconds, from `90`, `90s` or `1h30m`."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read the text."""
        try:
            return parse_duration(value)
        except DurationError as error:
            self.fail(str(error), param, ctx)


class JsonValue(click.ParamType[Any]):
    """JSON as it stands, `@FILE` for what a file holds, `-` for what stdin says."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the text, the file or stdin."""
        if not isinstance(value, str):
            return value
        try:
            text = _text(value)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            self.fail(f"{shown(value)} cannot be read: {reason}", param, ctx)
        try:
            return json.loads(
                text, parse_constant=_no_constant, parse_float=_float, object_pairs_hook=_object
            )
        except RecursionError:
            self.fail("the JSON is nested too deeply", param, ctx)
        except ValueError as error:
            hint = "; a text needs its quotes" if text.strip().isidentifier() else ""
            self.fail(f"{shown(value)} is not JSON: {error}{hint}", param, ctx)


def _text(value: str) -> str:
    if value == "-":
        held = sys.stdin.buffer.read(VALUE_BYTES_MAX + 1)
    elif value.startswith("@"):
        with Path(value[1:]).open("rb") as file:
            held = file.read(VALUE_BYTES_MAX + 1)
    else:
        return value
    if len(held) > VALUE_BYTES_MAX:
        raise ValueError(f"more than {VALUE_BYTES_MAX:,} bytes")
    return held.decode()


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{shown(text)} is too large a number")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {shown(key)} stands there twice")
        found[key] = value
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def now() -> datetime:
    """This moment by the machine's wall clock: for what people read, never for what fires."""
    return from_epoch_ns(wall_ns())


def json_option(function: Function) -> Function:
    """`--json`: one document on stdout, and nothing else there."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(
        function
    )


def limit_option(default: int = 50) -> Callable[[Function], Function]:
    """`--limit`: how many of a list, newest first."""
    return click.option(
        "--limit",
        type=click.IntRange(min=0),
        default=default,
        show_default=True,
        help="How many, newest first; 0 means all.",
    )


class DefaultGroup(click.Group):
    """A group whose bare name lists: `runtime jobs` is `runtime jobs list`."""

    default = "list"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `list` in where no subcommand is named."""
        asks_for_help = bool(args) and args[0] in {"-h", "--help"}
        if not asks_for_help and (not args or args[0].startswith("-")):
            args = [self.default, *args]
        return super().parse_args(ctx, args)
