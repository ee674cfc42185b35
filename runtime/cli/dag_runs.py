"""`runtime dags runs`: one after the other, one with all its tasks, and what is done to one."""

from typing import Any, Final

import click

from runtime.cli.arguments import DefaultGroup, json_option, limit_option
from runtime.cli.client import Client, uses_node
from runtime.cli.dag_watch import watch
from runtime.cli.failures import FAILED
from runtime.cli.pictures import Wish, picture_options, write_picture
from runtime.cli.show import facts, instant, note, person, print_json, say, table, took
from runtime.cli.watching import wait_for_end
from runtime.pictures.graph import counted, graph_of_run

FINAL: Final = frozenset({"succeeded", "failed", "cancelled", "skipped"})
_TOLD_MAX: Final = 20


@click.group(cls=DefaultGroup)
def runs_command() -> None:
    """List, show, cancel, pause and resume runs of DAGs; bare, it lists."""


@runs_command.command("list")
@click.argument("dag", required=False)
@limit_option()
@json_option
@uses_node
def list_(client: Client, *, dag: str | None, limit: int, as_json: bool) -> None:
    """List the runs that have begun, of all DAGs or of one, newest first."""
    found = client.listed("dags", "runs", limit=limit, dag=dag)
    if as_json:
        print_json(found)
        return
    table(
        ("run", "dag", "due", "state", "reason", "open", "failed", "started", "took"),
        [
            (
                one["run_id"],
                one["dag_id"],
                instant(one["scheduled_for"]),
                one["state"],
                one["reason"],
                f"{one['open']}/{one['total']}" if one["open"] else None,
                one["failed"] or None,
                instant(one["started_at"]),
                took(one["duration_s"]),
            )
            for one in found
        ],
        empty="no runs: `runtime trigger DAG` begins one",
    )


@runs_command.command("show")
@click.argument("run")
@click.option("--watch", "live", is_flag=True, help="Watch it until it is over.")
@click.option("--tasks", "listed", is_flag=True, help="List every task instead of drawing them.")
@picture_options
@json_option
@uses_node
def show(client: Client, *, run: str, live: bool, listed: bool, wish: Wish, as_json: bool) -> int:
    """Show a run: its graph with states, what went wrong, and what its length came of."""
    if live:
        if as_json or wish.file:
            raise click.UsageError("--watch is for reading along: leave --json, --dot, --svg out")
        state = watch(client, run, plain=wish.plain)
        return 0 if state == "succeeded" else FAILED
    found = client.get("dags", "runs", run)
    if as_json:
        print_json(found)
    elif wish.file:
        write_picture(graph_of_run(found), wish)
    else:
        show_run(found, wish=wish, listed=listed)
    return 0


@runs_command.command("cancel")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option("--wait", is_flag=True, help="Wait until all of it has ended.")
@json_option
@uses_node
def cancel(client: Client, *, runs: tuple[str, ...], wait: bool, as_json: bool) -> None:
    """Cancel runs: what runs is stopped, what has not begun is skipped, then `finally` runs."""
    answers = [client.post("dags", "runs", run, "cancel") for run in runs]
    if wait:
        answers = [wait_for_run(client, run) for run in runs]
    if as_json:
        print_json(answers[0] if len(answers) == 1 else answers)
        return
    for answer in answers:
        over = answer["state"] in FINAL
        say(f"{answer['run_id']}  {answer['state'] if over else 'asked to stop'}")


@runs_command.command("pause")
@click.argument("run")
@click.option("--reason", help="Why; lists show it.")
@json_option
@uses_node
def pause(client: Client, *, run: str, reason: str | None, as_json: bool) -> None:
    """Let nothing more of a run begin; what runs goes on."""
    body = {} if reason is None else {"reason": reason}
    answer = client.post("dags", "runs", run, "pause", body=body)
    say_changed(answer, "paused", as_json=as_json)


@runs_command.command("resume")
@click.argument("run")
@json_option
@uses_node
def resume(client: Client, *, run: str, as_json: bool) -> None:
    """Let a paused run go on."""
    say_changed(client.post("dags", "runs", run, "resume"), "resumed", as_json=as_json)


def say_changed(answer: dict[str, Any], word: str, *, as_json: bool) -> None:
    """What a change came to: the run's state, and the tasks that it touched."""
    if as_json:
        print_json(answer)
        return
    tasks = answer["tasks"]
    for task in tasks[:_TOLD_MAX]:
        say(f"{word} {task}")
    if len(tasks) > _TOLD_MAX:
        say(f"... and {len(tasks) - _TOLD_MAX:,} tasks more")
    if not tasks:
        say(f"{word}: {answer['dag_id']} {answer['run_id']}")
    note(f"the run is {answer['state']}")


def wait_for_run(client: Client, run: str) -> dict[str, Any]:
    """The run once its state is final; a node's restart is waited out."""
    return wait_for_end(
        client, ("dags", "runs", run), final=FINAL, hint=f"runtime dags runs show {run}"
    )


def finish_run(client: Client, run: str, *, wait: bool, as_json: bool) -> int:
    """Show a run, with `wait` once it has ended; the exit code that says how."""
    found = wait_for_run(client, run) if wait else client.get("dags", "runs", run)
    if as_json:
        print_json(found)
    else:
        show_run(found, wish=Wish(dot=False, svg=False, full=False, plain=False))
    return FAILED if wait and found["state"] != "succeeded" else 0


def show_run(run: dict[str, Any], *, wish: Wish, listed: bool = False) -> None:
    """A run for people: its facts, its graph or its tasks, and what to look at."""
    states: dict[str, int] = {}
    for task in run["tasks"]:
        states[task["state"]] = states.get(task["state"], 0) + 1
    facts(
        {
            "run": run["run_id"],
            "dag": run["dag_id"],
            "due": instant(run["scheduled_for"]),
            "state": run["state"],
            "reason": run["reason"],
            "tasks": counted(states) or None,
            "started": instant(run["started_at"]),
            "finished": instant(run["finished_at"]),
            "took": took(run["duration_s"]),
            "deadline": None if run["finished_at"] else instant(run["deadline"]),
            "within": run["parent_run_id"],
            "error": run["error"],
            "input": run["input"],
        }
    )
    click.echo()
    if listed:
        show_tasks(run["tasks"])
    else:
        write_picture(graph_of_run(run), wish)
        _show_wrong(run["tasks"])
    _show_path(run)


def show_tasks(tasks: list[dict[str, Any]]) -> None:
    """Every task as a table, in topological order."""
    table(
        ("task", "state", "reason", "cause", "try", "started", "took", "slack", "after"),
        [
            (
                task["task_id"],
                task["state"],
                counted(task["item_states"]) if task["item_states"] else task["reason"],
                task["cause"],
                task["attempts"] or None,
                instant(task["started_at"]),
                took(task["duration_s"]),
                "critical" if task["critical"] else took(task["slack_s"]),
                _few(task["parents"]),
            )
            for task in tasks
        ],
        empty="no tasks",
    )


def _show_wrong(tasks: list[dict[str, Any]]) -> None:
    """What failed, and what waits for somebody."""
    told = [task for task in tasks if task["state"] in ("failed", "waiting")]
    if not told:
        return
    click.echo()
    table(
        ("task", "state", "reason", "until", "try", "execution", "error"),
        [
            (
                task["task_id"],
                task["state"],
                task["reason"] or (task["kind"] if task["state"] == "waiting" else None),
                instant(task["wake_at"]),
                task["attempts"] or None,
                task["execution_id"],
                task["error"],
            )
            for task in told[:_TOLD_MAX]
        ],
        empty="",
    )
    if len(told) > _TOLD_MAX:
        note(f"... and {len(told) - _TOLD_MAX:,} more: --tasks lists them all")


def _show_path(run: dict[str, Any]) -> None:
    path = run["critical_path"]
    if len(path) > 1:
        arrow = " → " if person() else " -> "
        shown = path if len(path) <= _TOLD_MAX else [*path[:10], "...", *path[-9:]]
        click.echo()
        say(f"critical path: {arrow.join(shown)}")


def _few(names: list[str]) -> list[str]:
    return names if len(names) <= 4 else [*names[:3], f"... {len(names) - 3:,} more"]  # noqa: PLR2004
