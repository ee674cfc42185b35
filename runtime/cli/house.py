"""`runtime pause --all` and `resume --all`: the whole house, for an incident or a restored copy."""

import click

from runtime.cli.client import Client, uses_node
from runtime.cli.show import say


@click.command()
@click.option("--all", "every", is_flag=True, help="The whole house.")
@click.option("--reason", help="Why; `runtime top` and the doctor show it.")
@uses_node
def pause_command(client: Client, *, every: bool, reason: str | None) -> None:
    """Pause the whole house: nothing fires and nothing begins, what runs goes on."""
    _insist(every=every, one="runtime jobs pause JOB")
    client.post("pause", body={} if reason is None else {"reason": reason})
    say("paused: nothing fires until `runtime resume --all`")


@click.command()
@click.option("--all", "every", is_flag=True, help="The whole house.")
@click.option("--reason", help="Why; the audit log keeps it.")
@uses_node
def resume_command(client: Client, *, every: bool, reason: str | None) -> None:
    """Resume the whole house; each job's misfire policy says what becomes of what it missed."""
    _insist(every=every, one="runtime jobs resume JOB")
    client.post("resume", body={} if reason is None else {"reason": reason})
    say("resumed")


def _insist(*, every: bool, one: str) -> None:
    if not every:
        raise click.UsageError(f"say --all for the whole house; for one job: `{one}`")
