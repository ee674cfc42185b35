"""`runtime dags`: what DAGs there are, how they look, and what becomes of their runs."""

from typing import Any

import click

from runtime.cli.arguments import DefaultGroup, JsonValue, json_option, limit_option
from runtime.cli.client import Client, uses_node
from runtime.cli.dag_runs import finish_run, runs_command, say_changed
from runtime.cli.pictures import Wish, picture_options, write_picture
from runtime.cli.show import facts, instant, print_json, table
from runtime.pictures.graph import graph_of_dag


@click.group(cls=DefaultGroup)
def dags_command() -> None:
    """List and draw DAGs and their runs; retry, mark and signal a run; bare, it lists."""


dags_command.add_command(runs_command, "runs")


@dags_command.command("list")
@limit_option()
@json_option
@uses_node
def list_(client: Client, *, limit: int, as_json: bool) -> None:
    """List DAGs, the one made last first."""
    found = client.listed("dags", limit=limit)
    if as_json:
        print_json(found)
        return
    table(
        ("dag", "schedule", "zone", "next", "last", "tasks", "tags"),
        [
            (
                dag["dag_id"],
                dag["schedule"],
                dag["timezone"],
                _next(dag),
                dag["last_state"],
                dag["tasks"],
                dag["tags"],
            )
            for dag in found
        ],
        empty="no DAGs: `runtime apply FILE` makes those of its `dags:`",
    )


@dags_command.command("show")
@click.argument("dag")
@picture_options
@json_option
@uses_node
def show(client: Client, *, dag: str, wish: Wish, as_json: bool) -> None:
    """Show a DAG, and draw its graph."""
    if dag == "runs":
        raise click.UsageError("no DAG can be named runs; `runtime dags runs` lists those of all")
    found = client.get("dags", dag)
    if as_json:
        print_json(found)
        return
    if not wish.file:
        facts(
            {
                "dag": found["dag_id"],
                "tasks": found["tasks"],
                "schedule": found["schedule"],
                "timezone": found["timezone"],
                "next": _next(found),
                "last": found["last_state"],
                "last run": found["last_run_id"],
                "on failure": found["on_failure"],
                "tags": found["tags"] or None,
                "source": found["source"],
                "version": found["version"],
                "in force": instant(found["in_force_at"]),
            }
        )
        click.echo()
    write_picture(graph_of_dag(found), wish)


@dags_command.command("retry")
@click.argument("run")
@click.option("--task", "tasks", multiple=True, help="This task; may be given several times.")
@click.option("--failed", is_flag=True, help="All tasks that failed; so it is without --task.")
@click.option("--downstream", is_flag=True, help="With all after them, succeeded or not.")
@click.option("--wait", is_flag=True, help="Wait for the run's end; exit code 1 unless succeeded.")
@json_option
@uses_node
def retry(
    client: Client,
    *,
    run: str,
    tasks: tuple[str, ...],
    failed: bool,
    downstream: bool,
    wait: bool,
    as_json: bool,
) -> int:
    """Run tasks of a run again, and what follows from them; what succeeded elsewhere stays."""
    if tasks and failed:
        raise click.UsageError("give --task or --failed, not both")
    body: dict[str, Any] = {"downstream": downstream}
    body |= {"tasks": list(tasks)} if tasks else {"failed": True}
    answer = client.post("dags", "runs", run, "retry", body=body)
    if wait:
        return finish_run(client, run, wait=True, as_json=as_json)
    say_changed(answer, "put back", as_json=as_json)
    return 0


@dags_command.command("mark")
@click.argument("run")
@click.argument("task")
@click.argument("state", type=click.Choice(["succeeded", "skipped"]))
@click.option("--reason", required=True, help="Why; the audit log keeps it, with who.")
@click.option("--result", type=JsonValue(), help="What its children read: JSON, @FILE, or -.")
@json_option
@uses_node
def mark(
    client: Client, *, run: str, task: str, state: str, reason: str, result: Any, as_json: bool
) -> None:
    """Set a task's state by hand; what hung on it is decided anew."""
    body = {"task": task, "state": state, "reason": reason}
    if result is not None:
        body["result"] = result
    answer = client.post("dags", "runs", run, "mark", body=body)
    say_changed(answer, f"marked {state}", as_json=as_json)


@dags_command.command("signal")
@click.argument("run")
@click.argument("name")
@click.option("--payload", type=JsonValue(), help="JSON, @FILE, or - for stdin.")
@json_option
@uses_node
def signal(client: Client, *, run: str, name: str, payload: Any, as_json: bool) -> None:
    """Send a run the signal that a task of it waits for; its payload is the task's result."""
    body = {"name": name, "payload": payload}
    answer = client.post("dags", "runs", run, "signal", body=body)
    say_changed(answer, f"signal {name} to", as_json=as_json)


def _next(dag: dict[str, Any]) -> Any:
    if not dag["enabled"]:
        return "disabled"
    return "paused" if dag["paused"] else instant(dag["next_fire_at"])
