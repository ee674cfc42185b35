"""`runtime executions`: what ran, what runs, and why something did not."""

import json
import sys
from datetime import datetime
from typing import Any

import click

from protocols.executions import TRANSITIONS
from protocols.instants import iso
from runtime.cli.arguments import DefaultGroup, Instant, json_option, limit_option
from runtime.cli.client import Client, uses_node
from runtime.cli.show import note, print_json, say
from runtime.cli.watching import (
    finish,
    follow_events,
    list_executions,
    show_execution,
    show_output,
    wait_for,
)


@click.group(cls=DefaultGroup)
def executions_command() -> None:
    """List, show, cancel, retry and follow executions; bare, it lists."""


@executions_command.command("list")
@click.option("--job", help="Only of this job.")
@click.option("--state", type=click.Choice(sorted(TRANSITIONS)), help="Only in this state.")
@click.option("--since", type=Instant(ago=True), help="From an instant on, or so long ago.")
@limit_option()
@json_option
@uses_node
def list_(
    client: Client,
    *,
    job: str | None,
    state: str | None,
    since: datetime | None,
    limit: int,
    as_json: bool,
) -> None:
    """List executions, newest first."""
    found = client.listed(
        "executions", limit=limit, job=job, state=state, since=since and iso(since)
    )
    if as_json:
        print_json(found)
    else:
        list_executions(found, empty="no executions")


@executions_command.command("show")
@click.argument("execution_id", metavar="ID")
@json_option
@uses_node
def show(client: Client, *, execution_id: str, as_json: bool) -> None:
    """Show one execution with every attempt at it."""
    found = client.get("executions", execution_id)
    if as_json:
        print_json(found)
    else:
        show_execution(found)


@executions_command.command("cancel")
@click.argument("execution_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--wait", is_flag=True, help="Wait until what runs has ended.")
@json_option
@uses_node
def cancel(client: Client, *, execution_ids: tuple[str, ...], wait: bool, as_json: bool) -> None:
    """Cancel executions: what waits at once, what runs as soon as it stops."""
    answers = []
    for execution_id in execution_ids:
        execution = client.post("executions", execution_id, "cancel")
        answers.append(wait_for(client, execution_id) if wait else execution)
    _tell(answers, as_json=as_json, single=len(execution_ids) == 1)


@executions_command.command("retry")
@click.argument("execution_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--wait", is_flag=True, help="Wait for its end; exit code 1 unless it succeeded.")
@json_option
@uses_node
def retry(client: Client, *, execution_ids: tuple[str, ...], wait: bool, as_json: bool) -> int:
    """Run executions again that ended dead, cancelled or skipped."""
    answers = [client.post("executions", one, "retry") for one in execution_ids]
    if len(answers) == 1:
        return finish(client, answers[0], wait=wait, as_json=as_json)
    if wait:
        answers = [wait_for(client, one["execution_id"]) for one in answers]
    _tell(answers, as_json=as_json, single=False)
    return int(wait and any(one["state"] != "succeeded" for one in answers))


def _tell(answers: list[dict[str, Any]], *, as_json: bool, single: bool) -> None:
    if as_json:
        print_json(answers[0] if single else answers)
        return
    for one in answers:
        asked = one["state"] == "running" and one.get("cancel_requested")
        say(f"{one['execution_id']}  {'asked to stop' if asked else one['state']}")


@executions_command.command("logs")
@click.argument("execution_id", metavar="ID")
@click.option("--attempt", type=click.IntRange(1), help="Only of this attempt; default: the last.")
@click.option("--all", "every", is_flag=True, help="Of every attempt.")
@click.option("--grep", help="Only the lines that hold this text.")
@json_option
@uses_node
def logs(
    client: Client,
    *,
    execution_id: str,
    attempt: int | None,
    every: bool,
    grep: str | None,
    as_json: bool,
) -> None:
    """Print what an execution printed; it can be read as soon as its state is final."""
    found = client.get("executions", execution_id, "logs", attempt=attempt, grep=grep)["items"]
    found = sorted(found, key=lambda log: log["attempt"])
    if not every and attempt is None:
        found = found[-1:]
    if as_json:
        print_json(found)
    elif found:
        show_output(found)
    else:
        note("it has printed nothing, or has not ended yet")


@executions_command.command("follow")
@click.argument("execution_id", metavar="[ID]", required=False)
@click.option("--job", help="Only of this job.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document a line.")
@uses_node
def follow(client: Client, *, execution_id: str | None, job: str | None, as_json: bool) -> int:
    """Print what happens to executions, as it happens; with an ID until it has ended."""
    if execution_id is not None:
        return finish(client, client.get("executions", execution_id), wait=True, as_json=as_json)
    for event in follow_events(client, job=job):
        if as_json:
            click.echo(json.dumps(event.data))
        else:
            say(_line(event.data))
        sys.stdout.flush()
    raise AssertionError


def _line(happened: dict[str, Any]) -> str:
    """What happened, as one line for a person."""
    what = happened.get("job_id") or happened.get("event") or ""
    parts = [happened["at"][:23], happened["kind"], what, happened.get("state")]
    return "  ".join([*(str(part) for part in parts if part), happened.get("execution_id") or ""])
