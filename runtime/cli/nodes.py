"""`runtime nodes` and `runtime actors`: who runs the jobs, and the live supervision tree."""

import time
from typing import TYPE_CHECKING, Any

import click

from protocols.durations import format_duration, shown
from runtime.cli.arguments import DefaultGroup, Duration, json_option
from runtime.cli.client import Client, uses_node
from runtime.cli.failures import Failed, Unreachable
from runtime.cli.show import clean, console, instant, person, print_json, say, table
from runtime.cli.watching import Patience

if TYPE_CHECKING:
    from rich.tree import Tree

_LOOK_S = 0.5
_WAIT_S = 3600.0
"""What runs may take so long by default: a job's own timeout, where it names none."""


@click.group(cls=DefaultGroup)
def nodes_command() -> None:
    """List the nodes; bare, it lists."""


@nodes_command.command("list")
@json_option
@uses_node
def list_(client: Client, *, as_json: bool) -> None:
    """List nodes with what they lead and run, and their last beat."""
    found = client.listed("nodes", limit=0)
    if as_json:
        print_json(found)
        return
    table(
        ("node", "state", "leads", "running", "last beat", "clock", "url"),
        [
            (
                node["name"],
                node["state"],
                [f"{shard} (epoch {node['epochs'][str(shard)]})" for shard in node["leads"]],
                [f"{name} {p['running']}/{p['slots']}" for name, p in node["pools"].items()],
                instant(node["last_beat_at"]),
                f"{node['clock_offset_s'] * 1000:+.1f}ms",
                node["url"],
            )
            for node in found
        ],
        empty="no nodes",
    )


@nodes_command.command("drain")
@click.argument("node")
@click.option(
    "--wait", is_flag=True, help="Return once it has left; exit code 1 if it died instead."
)
@click.option(
    "--timeout",
    "timeout_s",
    type=Duration(),
    help=f"Wait no longer than this; default {format_duration(_WAIT_S)}.",
)
@uses_node
def drain(client: Client, *, node: str, wait: bool, timeout_s: float | None) -> None:
    """Let a node lead nothing, claim nothing, and end once what it runs has ended.

    What it runs is not cut short: SIGTERM to the node itself gives that `shutdown.grace_s`.
    """
    if timeout_s is not None and not wait:
        raise click.UsageError("--timeout says how long to --wait: give both")
    asked = client.post("nodes", node, "drain")
    say(f"{node} is draining")
    if wait:
        _see_off(client, node, asked["incarnation"], _WAIT_S if timeout_s is None else timeout_s)
        say(f"{node} has left")


def _see_off(client: Client, name: str, incarnation: int, timeout_s: float) -> None:
    """Wait until a draining node has left; its name may be another's by then.

    Raises:
        Failed: It was declared dead, or runs something for longer than `timeout_s`.
        Unreachable: The node that is asked is away for longer than a minute.
    """
    until, patience = time.monotonic() + timeout_s, Patience()
    while True:
        try:
            found = client.listed("nodes", limit=0, incarnation=incarnation)
        except Unreachable as error:
            patience.spend(error, f"{name} goes on draining; other nodes know how it ended")
            continue
        patience.restore()
        if not found:
            raise Failed(f"{name} has ended, so long ago that the books do not say how")
        if found[0]["state"] == "stopped":
            return
        if found[0]["state"] != "draining":
            raise Failed(
                f"{name} was declared dead before it had left: what it still ran is recorded lost"
            )
        left_s = until - time.monotonic()
        if left_s <= 0:
            raise Failed(
                f"{name} has not left within {format_duration(timeout_s)}: it goes on draining"
            )
        time.sleep(min(_LOOK_S, left_s))


@click.command()
@click.argument("shards", type=click.IntRange(1, 256))
@uses_node
def reshard_command(client: Client, *, shards: int) -> None:
    """Change `timer.shards`: into how many leaderships jobs are shared out, while nodes run."""
    done = client.post("shards", body={"shards": shards})
    say(f"{done['shards']} leaderships, before {done['had']}: the nodes share them out anew")


@click.command()
@click.option("--node", help="Of this node; default: the one that answers.")
@json_option
@uses_node
def actors_command(client: Client, *, node: str | None, as_json: bool) -> None:
    """Show the live supervision tree: states, mailboxes, restarts."""
    found = client.get("actors") if node is None else _actors_of(client, node)
    if as_json:
        print_json(found)
    elif person():
        console().print(_drawn(found))
    else:
        _plain(found, 0)


def _actors_of(client: Client, name: str) -> Any:
    """The tree of a node, asked of that node itself."""
    urls = {one["name"]: one["url"] for one in client.listed("nodes", limit=0)}
    if name not in urls:
        raise Failed(f"there is no node {shown(name)}: `runtime nodes` lists them")
    # A read needs no token, and so none is sent to an address that only a table tells.
    with Client(url=urls[name], token=None, tenant=None) as there:
        return there.get("actors")


def _label(actor: dict[str, Any]) -> str:
    told = [f"{actor['name'].strip('/') or 'node'}  {actor['state']}"]
    if actor.get("depth"):
        told.append(f"{actor['depth']} waiting")
    if actor.get("restarts"):
        told.append(f"{actor['restarts']} restarts")
    return clean("  ".join(told))


def _plain(actor: dict[str, Any], level: int) -> None:
    click.echo(f"{'  ' * level}{_label(actor)}")
    for child in actor["children"]:
        _plain(child, level + 1)


def _drawn(actor: dict[str, Any]) -> "Tree":
    from rich.tree import Tree  # noqa: PLC0415 - only a person waits for rich

    tree = Tree(_label(actor))
    pending = [(tree, actor)]
    while pending:
        branch, one = pending.pop()
        pending += [(branch.add(_label(child)), child) for child in one["children"]]
    return tree
