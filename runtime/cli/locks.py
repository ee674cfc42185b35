"""`runtime locks`: who holds which lock, and releasing one by hand."""

import click

from runtime.cli.arguments import DefaultGroup, json_option, limit_option
from runtime.cli.client import Client, uses_node
from runtime.cli.show import instant, note, print_json, table


@click.group(cls=DefaultGroup)
def locks_command() -> None:
    """List the locks that tasks hold, and release one; bare, it lists."""


@locks_command.command("list")
@limit_option()
@json_option
@uses_node
def list_(client: Client, *, limit: int, as_json: bool) -> None:
    """List the locks that are held, the one taken last first."""
    found = client.listed("locks", limit=limit)
    if as_json:
        print_json(found)
        return
    table(
        ("lock", "token", "job", "execution", "node", "taken", "ttl"),
        [
            (
                one["name"],
                one["token"],
                one["job_id"],
                one["execution_id"],
                one["node"],
                instant(one["taken_at"]),
                f"{one['ttl_s']:g}s",
            )
            for one in found
        ],
        empty="no locks",
    )


@locks_command.command("release")
@click.argument("name")
@json_option
@uses_node
def release(client: Client, *, name: str, as_json: bool) -> None:
    """Free a lock that a task holds; the task is cancelled, and its attempt has failed."""
    freed = client.post("locks", "release", body={"name": name})
    if as_json:
        print_json(freed)
        return
    holder = f", held by {freed['job_id']} {freed['execution_id']}" if freed["execution_id"] else ""
    note(f"released {name}{holder}")
