"""One execution on the screen: its facts, waiting for its end, and what it printed."""

import time
from collections.abc import Collection, Iterator
from typing import Any, Final

import click

from protocols.executions import FINAL
from runtime.cli.client import Client, Event
from runtime.cli.failures import FAILED, Unreachable
from runtime.cli.show import facts, instant, note, person, print_json, table, took

_LOOK_S: Final = 25.0
"""How long one question waits at the node."""
_AGAIN_S: Final = 0.5
_PATIENCE_S: Final = 60.0
"""How long a node may be away, being restarted, before waiting is given up."""


def wait_for(client: Client, execution_id: str) -> dict[str, Any]:
    """The execution once its state is final; a node's restart is waited out.

    Raises:
        Unreachable: The node is away for longer than a minute.
    """
    hint = f"runtime executions show {execution_id}"
    return wait_for_end(client, ("executions", execution_id), final=FINAL, hint=hint)


def wait_for_end(
    client: Client, path: tuple[str, ...], *, final: Collection[str], hint: str
) -> dict[str, Any]:
    """What stands at `path` once its state is one of `final`; `hint` is the command that shows it.

    Raises:
        Unreachable: The node is away for longer than a minute.
    """
    patience = Patience()
    told = None
    while True:
        try:
            found: dict[str, Any] = client.get(*path, "wait", timeout_s=_LOOK_S)
        except Unreachable as error:
            patience.spend(error, f"it goes on by itself: `{hint}`")
            continue
        patience.restore()
        if found["state"] in final:
            return found
        if person() and told != found["state"]:
            told = found["state"]
            note(f"{told} ... (Ctrl-C stops waiting, and nothing else)")


def follow_events(client: Client, *, job: str | None) -> Iterator[Event]:
    """What happens, for ever; over a node's restart without a gap.

    Raises:
        Unreachable: The node is away for longer than a minute.
    """
    patience = Patience()
    place = None
    while True:
        try:
            for event in client.events("events", after=place, job=job):
                patience.restore()
                place = event.id or place
                if event.data is not None:
                    yield event
            gone = Unreachable(f"the node at {client.url} has ended the stream")
        except Unreachable as error:
            gone = error
        patience.spend(gone, "")


class Patience:
    """How long a node may be away before its absence is an answer."""

    def __init__(self) -> None:
        self._away_since: float | None = None

    def restore(self) -> None:
        """It is there."""
        self._away_since = None

    def spend(self, error: Unreachable, hint: str) -> None:
        """It is away: wait a moment, or raise `error` with a hint."""
        self._away_since = self._away_since or time.monotonic()
        if time.monotonic() - self._away_since > _PATIENCE_S:
            raise Unreachable("\n".join(filter(None, (error.message, hint)))) from None
        time.sleep(_AGAIN_S)


def finish(client: Client, execution: dict[str, Any], *, wait: bool, as_json: bool) -> int:
    """Show what was started, with `wait` once it has ended; the exit code that says how."""
    if wait:
        execution = wait_for(client, execution["execution_id"])
    if as_json:
        print_json(execution)
    else:
        show_execution(execution)
    return FAILED if wait and execution["state"] != "succeeded" else 0


def show_execution(execution: dict[str, Any]) -> None:
    """Its facts, and its attempts where they are told."""
    facts(
        {
            "execution": execution["execution_id"],
            "job": execution["job_id"],
            "due": instant(execution["scheduled_for"]),
            "until": instant(execution.get("last_scheduled_for")),
            "state": execution["state"],
            "reason": execution["reason"],
            "attempt": execution["attempt"] or None,
            "run at": instant(execution.get("run_at")),
            "started": instant(execution["started_at"]),
            "finished": instant(execution["finished_at"]),
            "took": took(execution["duration_s"]),
            "node": execution["node"],
            "token": execution["fencing_token"],
            "exit code": execution["exit_code"],
            "error": execution["error"],
            "input": execution.get("input"),
            "result": execution["result"],
        }
    )
    attempts = execution.get("attempts") or []
    if len(attempts) > 1:
        table(
            ("attempt", "state", "reason", "node", "started", "took", "exit", "error"),
            [
                (
                    one["attempt"],
                    one["state"],
                    one["reason"],
                    one["node"],
                    instant(one["started_at"]),
                    took(one["duration_s"]),
                    one["exit_code"],
                    one["error"],
                )
                for one in attempts
            ],
            empty="no attempts",
        )


def list_executions(executions: list[dict[str, Any]], *, empty: str) -> None:
    """Executions as a table, newest first."""
    table(
        ("execution", "job", "due", "state", "reason", "try", "took"),
        [
            (
                one["execution_id"],
                one["job_id"],
                instant(one["scheduled_for"]),
                one["state"],
                _reason(one),
                one["attempt"] or None,
                took(one["duration_s"]),
            )
            for one in executions
        ],
        empty=empty,
    )


def _reason(execution: dict[str, Any]) -> str | None:
    if execution.get("instants", 1) > 1:
        return f"{execution['reason']} ({execution['instants']} instants)"
    reason: str | None = execution["reason"]
    return reason or execution["error"]


def show_output(logs: list[dict[str, Any]]) -> None:
    """What attempts printed; the middle that was not kept is told on stderr."""
    for log in logs:
        if len(logs) > 1:
            note(f"--- attempt {log['attempt']}")
        click.echo(log["head"], nl=False)
        if log["omitted_bytes"]:
            click.echo()
            note(f"... {log['omitted_bytes']:,} bytes were not kept ...")
        click.echo(log["tail"], nl=not log["head"].endswith("\n") and not log["tail"])
