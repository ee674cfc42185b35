"""`runtime trigger` and `runtime emit`: a job or an event, by a person's hand."""

from datetime import datetime
from typing import Any

import click

from protocols.instants import iso
from runtime.cli.arguments import Duration, Instant, JsonValue, json_option
from runtime.cli.client import Client, uses_node
from runtime.cli.dag_runs import finish_run
from runtime.cli.show import print_json, say
from runtime.cli.watching import finish

_KEY_HELP = "Idempotency key: said again within 24 h it answers with the same."


@click.command()
@click.argument("job")
@click.option("--input", "given", type=JsonValue(), help="JSON, @FILE, or - for stdin.")
@click.option("--key", help=_KEY_HELP)
@click.option("--at", type=Instant(), help="Run it then.")
@click.option("--in", "in_s", type=Duration(), help="Run it after so long, such as 90s.")
@click.option("--with-dependencies", is_flag=True, help="Wait for the jobs it depends on.")
@click.option("--wait", is_flag=True, help="Wait for its end; exit code 1 unless it succeeded.")
@json_option
@uses_node
def trigger_command(
    client: Client,
    *,
    job: str,
    given: Any,
    key: str | None,
    at: datetime | None,
    in_s: float | None,
    with_dependencies: bool,
    wait: bool,
    as_json: bool,
) -> int:
    """Run a job or a DAG now, or at a time of its own.

    Dependencies are not looked at unless asked for; a job that skips overlaps is not skipped but
    waits its turn.
    """
    if at is not None and in_s is not None:
        raise click.UsageError("give --at or --in, not both")
    body: dict[str, Any] = {}
    if given is not None:
        body["input"] = given
    if at is not None:
        body["at"] = iso(at)
    if in_s is not None:
        body["in"] = in_s
    if with_dependencies:
        body["with_dependencies"] = True
    execution = client.post("jobs", job, "trigger", body=body, key=key)
    if execution["dag_run_id"] == execution["execution_id"]:
        return finish_run(client, execution["execution_id"], wait=wait, as_json=as_json)
    return finish(client, execution, wait=wait, as_json=as_json)


@click.command()
@click.argument("event")
@click.option("--payload", type=JsonValue(), help="JSON, @FILE, or - for stdin.")
@click.option("--key", help=_KEY_HELP)
@json_option
@uses_node
def emit_command(
    client: Client, *, event: str, payload: Any, key: str | None, as_json: bool
) -> None:
    """Emit an event: every job that listens for it, and whose filter holds, runs."""
    answer = client.post("events", event, body={"payload": payload}, key=key)
    if as_json:
        print_json(answer)
    else:
        say(f"emitted {event}")
