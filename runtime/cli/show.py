"""How answers look: tables for people, plain columns in a pipe, JSON for programs."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from protocols.durations import format_duration
from runtime.cli.arguments import now

if TYPE_CHECKING:
    from rich.console import Console

_STYLES: Final = {
    "succeeded": "green",
    "running": "cyan",
    "ready": "cyan",
    "scheduled": "blue",
    "blocked": "yellow",
    "dead": "bold red",
    "failed": "red",
    "timed_out": "red",
    "lost": "red",
    "cancelled": "magenta",
    "skipped": "dim",
    "up": "green",
    "ok": "green",
    "warning": "yellow",
    "wrong": "bold red",
}
_MILLISECOND_S: Final = 0.001
_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_DAY_S: Final = 86400
_EMPTY: Final = "-"

Row = Sequence[Any]


def person() -> bool:
    """Whether a person reads stdout."""
    return sys.stdout.isatty()


@cache
def console() -> "Console":
    """The terminal; made late, since rich takes a while to load."""
    from rich.console import Console  # noqa: PLC0415 - programs and pipes do without it

    return Console(highlight=False, emoji=False, markup=False)


def print_json(value: Any) -> None:
    """One JSON document on stdout, indented where a person reads."""
    text = msgspec.json.encode(value)
    click.echo(msgspec.json.format(text, indent=2) if person() else text)


def say(text: str) -> None:
    """A line of an answer, free of what would steer a terminal."""
    click.echo(clean(text))


def note(text: str) -> None:
    """A line beside the answer, on stderr."""
    click.echo(clean(text), err=True)


def table(columns: Sequence[str], rows: Iterable[Row], *, empty: str) -> None:
    """Rows under their columns; `empty` is said where there are none.

    A cell is text, None, or a datetime: a person reads how far off it is, a pipe the instant.
    """
    held = [[cell(value) for value in row] for row in rows]
    if not held:
        note(empty)
        return
    if person():
        _rich_table(columns, held)
        return
    lines = [[name.upper() for name in columns], *held]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        padded = (text.ljust(width) for text, width in zip(line, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The rows on a terminal; a column that says nothing takes no room there."""
    from rich.table import Table  # noqa: PLC0415 - as in `console`
    from rich.text import Text  # noqa: PLC0415

    kept = [i for i in range(len(columns)) if any(row[i] != _EMPTY for row in rows)]
    drawn = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for i in kept:
        # An id that is broken over two lines cannot be copied.
        drawn.add_column(columns[i], no_wrap=i == 0, overflow="ignore" if i == 0 else "fold")
    for row in rows:
        drawn.add_row(*(Text(row[i], style=_STYLES.get(row[i], "")) for i in kept))
    console().print(drawn)


def facts(pairs: Mapping[str, Any]) -> None:
    """One thing, field by field; what is None is left out."""
    shown = {name: cell(value) for name, value in pairs.items() if value is not None}
    width = max((len(name) for name in shown), default=0)
    for name, text in shown.items():
        label = name.ljust(width)
        click.echo(f"{click.style(label, bold=True) if person() else label}  {text}")


def cell(value: Any) -> str:
    """A value as one cell of a table."""
    match value:
        case None | "" | [] | ():
            text = _EMPTY
        case bool():
            text = "yes" if value else "no"
        case datetime():
            text = relative(value) if person() else value.isoformat()
        case list() | tuple():
            text = ", ".join(map(str, value))
        case str():
            text = value
        case float():
            text = f"{value:g}"
        case _:
            text = msgspec.json.encode(value).decode()
    return clean(text)


def instant(text: str | None) -> datetime | None:
    """An instant as the API writes it, for a cell."""
    return None if text is None else datetime.fromisoformat(text)


def relative(moment: datetime) -> str:
    """How far off an instant is: `in 5s`, `3m ago`, and its day where that is far."""
    away_s = (moment - now()).total_seconds()
    length = about(abs(away_s))
    said = f"in {length}" if away_s > 0 else f"{length} ago"
    if abs(away_s) < _DAY_S:
        return said
    return f"{moment.astimezone():%Y-%m-%d %H:%M} ({said})"


def about(seconds: float) -> str:
    """A length of time with as much detail as a person wants: `0.3s`, `5s`, `3m20s`, `2d4h`."""
    if seconds < 1:
        return f"{seconds:.1g}s" if seconds >= _MILLISECOND_S else "<1ms"
    for unit, below in ((1, 10 * _MINUTE_S), (_MINUTE_S, 10 * _HOUR_S), (_HOUR_S, 10 * _DAY_S)):
        if seconds < below:
            return format_duration(round(seconds / unit) * unit)
    return format_duration(round(seconds / _DAY_S) * _DAY_S)


def took(seconds: float | None) -> str | None:
    """A duration as a cell."""
    return None if seconds is None else about(seconds)


def clean(text: str) -> str:
    """One line without control characters: a job's words must not steer a terminal."""
    return "".join(c if c.isprintable() else " " for c in text)
