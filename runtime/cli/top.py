"""`runtime top`: the house at a glance, live on a terminal, once in a pipe."""

import time
from typing import TYPE_CHECKING, Any, Final

import click

from runtime.cli.arguments import json_option
from runtime.cli.client import Client, uses_node
from runtime.cli.failures import Unreachable
from runtime.cli.show import about, cell, clean, console, instant, person, print_json, took
from runtime.cli.watching import list_executions

if TYPE_CHECKING:
    from rich.console import RenderableType

_EVERY_S: Final = 1.0
_ROWS: Final = 15


@click.command()
@click.option("--once", is_flag=True, help="Print it once, as a pipe gets it anyway.")
@json_option
@uses_node
def top_command(client: Client, *, once: bool, as_json: bool) -> None:
    """Watch nodes, queues and what runs; Ctrl-C ends it."""
    if as_json:
        print_json(_look(client))
    elif once or not person():
        _print(_look(client))
    else:
        _watch(client)


def _look(client: Client) -> dict[str, Any]:
    return {
        "stats": client.get("stats"),
        "nodes": client.listed("nodes", limit=0),
        "running": client.listed("executions", limit=_ROWS, state="running"),
        "last": client.listed("executions", limit=_ROWS),
    }


def _print(seen: dict[str, Any]) -> None:
    for line in _summary(seen):
        click.echo(line)
    list_executions(seen["running"], empty="nothing runs")


def _summary(seen: dict[str, Any]) -> list[str]:
    stats, most = seen["stats"], seen["stats"]["counted_to"]
    counts = "  ".join(
        f"{state} {count}{'+' if count >= most else ''}"
        for state, count in stats["executions"].items()
    )
    lines = [counts or "nothing waits, nothing runs"]
    for pool, waited_s in stats["oldest_ready_s"].items():
        lines.append(f"pool {pool}: the oldest ready one has waited {about(waited_s)}")
    for node in seen["nodes"]:
        pools = "  ".join(f"{n} {p['running']}/{p['slots']}" for n, p in node["pools"].items())
        beat = cell(instant(node["last_beat_at"]))
        lines.append(f"node {node['name']}: {node['state']}, beat {beat}, {pools}")
    if stats["paused"]:
        lines.append(f"the house is paused: {stats['paused_reason'] or 'no reason was given'}")
    return [clean(line) for line in lines]


def _watch(client: Client) -> None:
    from rich.live import Live  # noqa: PLC0415 - only a person waits for rich

    seen = _look(client)
    with Live(_drawn(seen), console=console(), screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(_EVERY_S)
            try:
                seen = _look(client)
                live.update(_drawn(seen), refresh=True)
            except Unreachable as error:
                live.update(clean(error.message), refresh=True)


def _drawn(seen: dict[str, Any]) -> "RenderableType":
    from rich.console import Group  # noqa: PLC0415 - as above
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    tables = []
    for title, rows in (("running", seen["running"]), ("newest", seen["last"])):
        drawn = Table(title=title, title_justify="left", box=None, header_style="bold")
        for name in ("job", "due", "state", "attempt", "took"):
            drawn.add_column(name)
        for one in rows:
            drawn.add_row(
                *(
                    Text(cell(value))
                    for value in (
                        one["job_id"],
                        instant(one["scheduled_for"]),
                        one["state"],
                        one["attempt"] or None,
                        took(one["duration_s"]),
                    )
                )
            )
        tables.append(drawn)
    return Group(*(Text(line) for line in _summary(seen)), *tables)
