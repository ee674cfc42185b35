"""A run as it goes: bars and its graph on a terminal, a line for each change in a pipe."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from runtime.cli.arguments import now
from runtime.cli.client import Client
from runtime.cli.failures import Unreachable
from runtime.cli.pictures import legend, rich_line, width
from runtime.cli.show import about, clean, console, instant, person
from runtime.cli.watching import Patience
from runtime.pictures.graph import counted, graph_of_run
from runtime.pictures.terminal import draw

if TYPE_CHECKING:
    from rich.console import RenderableType

_OVER: Final = ("succeeded", "failed", "cancelled", "skipped")
_UNDER_WAY: Final = ("running", "waiting")
_BARS_MAX: Final = 12
_DRAW_AGAIN_S: Final = 0.5
_ROWS_BESIDE: Final = 6


class Seen:
    """A run as it is known here: looked at once, then changed by what the stream tells."""

    def __init__(self, run: dict[str, Any]) -> None:
        self.run = run
        self._tasks = {task["task_id"]: task for task in run["tasks"]}

    def change(self, event: dict[str, Any]) -> list[dict[str, Any]]:
        """Take one event on; the tasks whose state it changed."""
        self.run.update(event["run"])
        changed = []
        for told in event["tasks"]:
            task = self._tasks.get(told["task_id"])
            if task is None:
                continue
            if (task["state"], task["attempts"]) != (told["state"], told["attempts"]):
                changed.append(task)
            task.update(told)
        return changed

    @property
    def states(self) -> dict[str, int]:
        """How many tasks are in each state."""
        found: dict[str, int] = {}
        for task in self._tasks.values():
            found[task["state"]] = found.get(task["state"], 0) + 1
        return found

    @property
    def over(self) -> int:
        """How many tasks are over."""
        return sum(count for state, count in self.states.items() if state in _OVER)


def watch(client: Client, run: str, *, plain: bool) -> str:
    """Follow a run until it is over; returns the state that it came to.

    Raises:
        Unreachable: the node is away for longer than a minute.
    """
    seen = Seen(client.get("dags", "runs", run))
    if person() and not plain:
        _watch_live(client, seen)
    else:
        _watch_lines(client, seen)
    state: str = seen.run["state"]
    return state


def _events(client: Client, seen: Seen) -> Iterator[dict[str, Any]]:
    """What becomes of the run; over a node's restart, which is told of as a whole again."""
    patience = Patience()
    while True:
        try:
            for event in client.events("dags", "runs", seen.run["run_id"], "events", after=None):
                patience.restore()
                if event.data is not None:
                    yield event.data
            if seen.run["state"] in _OVER:
                return
            gone = Unreachable(f"the node at {client.url} has ended the stream")
        except Unreachable as error:
            gone = error
        patience.spend(
            gone, f"the run goes on by itself: runtime dags runs show {seen.run['run_id']}"
        )


def _watch_lines(client: Client, seen: Seen) -> None:
    state = None
    for event in _events(client, seen):
        for task in seen.change(event):
            click.echo(_line(task))
        if seen.run["state"] != state:
            state = seen.run["state"]
            click.echo(f"run {state}: {counted(seen.states)}")


def _line(task: dict[str, Any]) -> str:
    parts = [task["task_id"], task["state"], task["reason"]]
    if task["cause"]:
        parts.append(f"because of {task['cause']}")
    if task["attempts"] > 1:
        parts.append(f"attempt {task['attempts']}")
    return clean("  ".join(part for part in parts if part))


def _watch_live(client: Client, seen: Seen) -> None:
    from rich.live import Live  # noqa: PLC0415 - only a person waits for rich

    picture = _Picture()
    with Live(picture.of(seen, console().height), console=console(), refresh_per_second=8) as live:
        for event in _events(client, seen):
            seen.change(event)
            live.update(picture.of(seen, console().height))


class _Picture:
    """Draws no more often than it can be read, and only what the terminal has rows for."""

    def __init__(self) -> None:
        self._rows: list[Any] = []
        self._drawn_at = 0.0
        self._took_s = 0.0

    def of(self, seen: Seen, rows: int) -> "RenderableType":
        from rich.console import Group  # noqa: PLC0415 - as above

        now = time.monotonic()
        over = seen.run["state"] in _OVER
        if over or now - self._drawn_at >= max(_DRAW_AGAIN_S, 5 * self._took_s):
            drawing = draw(graph_of_run(seen.run), width=width())
            self._rows = [rich_line(row) for row in drawing.rows]
            self._rows.append(legend(drawing))
            self._drawn_at, self._took_s = now, time.monotonic() - now
        bars = _bars(seen)
        room = rows - _ROWS_BESIDE - min(_BARS_MAX, len(seen.run["tasks"]))
        graph = self._rows if len(self._rows) <= room else []
        return Group(*graph, bars)


def _bars(seen: Seen) -> "RenderableType":
    """The whole run's bar, one for each mapped task, and what is under way."""
    from rich.console import Group  # noqa: PLC0415 - as above
    from rich.progress_bar import ProgressBar  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    run = seen.run
    grid = Table.grid(padding=(0, 2))
    total = len(run["tasks"])
    grid.add_row(
        Text(f"{run['dag_id']} {run['state']}", style="bold"),
        ProgressBar(total=max(1, total), completed=seen.over, width=40),
        Text(f"{seen.over:,}/{total:,}  {counted(seen.states)}"),
    )
    told = 0
    for task in run["tasks"]:
        if told == _BARS_MAX or task["state"] not in _UNDER_WAY:
            continue
        told += 1
        items = task["item_states"]
        if items:
            done = sum(items.get(state, 0) for state in _OVER)
            many = sum(items.values())
            bar: RenderableType = ProgressBar(total=max(1, many), completed=done, width=40)
            words = f"{done:,}/{many:,}  {counted(items)}"
        else:
            bar = ProgressBar(total=None, width=40, pulse=True)
            words = f"{task['state']} {_since(task)}"
        grid.add_row(Text(clean(task["task_id"])), bar, Text(words))
    return Group(grid)


def _since(task: dict[str, Any]) -> str:
    begun = instant(task["started_at"])
    if begun is None:
        return ""
    return f"for {about(max(0.0, (now() - begun).total_seconds()))}"
