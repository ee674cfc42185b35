"""`runtime checkpoint | heartbeat | once`: what a command task asks, with its fencing token."""

import os
from typing import Any

import click

from runtime.cli.arguments import Duration, JsonValue
from runtime.cli.client import Client, open_client
from runtime.cli.failures import FAILED


class Task:
    """The task that this command runs in, as its environment describes it."""

    def __init__(self) -> None:
        execution_id = os.environ.get("RUNTIME_EXECUTION_ID")
        token = os.environ.get("RUNTIME_FENCING_TOKEN")
        if not execution_id or not token:
            raise click.UsageError(
                "this works inside a command task only, which the node gives "
                "RUNTIME_EXECUTION_ID and RUNTIME_FENCING_TOKEN"
            )
        self._execution_id = execution_id
        self._token = token

    def ask(self, what: str, body: Any = None) -> Any:
        """What the node answers; its fencing token is all the right that a task needs."""
        client: Client
        with open_client() as client:
            return client.post(
                "executions",
                self._execution_id,
                what,
                body=body,
                headers={"X-Fencing-Token": self._token},
            )


@click.command()
@click.argument("value", type=JsonValue())
def checkpoint_command(value: Any) -> None:
    """Save where this task has got to: JSON, @FILE, or - for stdin.

    The next attempt finds it in RUNTIME_CHECKPOINT.
    """
    Task().ask("checkpoint", {"value": value})


@click.command()
def heartbeat_command() -> None:
    """Say that this task is alive, where its job has `heartbeat:`."""
    Task().ask("heartbeat")


@click.command()
@click.argument("key")
@click.option("--ttl", type=Duration(), help="How long the answer is remembered.  [default: 24h]")
def once_command(key: str, ttl: float | None) -> int:
    """Ask whether this task may do a piece of work; exit code 1 where it may not.

    It prints `first`, `again` for the next attempt of the same execution after one that failed,
    or `no` where another has done it or is doing it.
    """
    body: dict[str, Any] = {"key": key}
    if ttl is not None:
        body["ttl_s"] = ttl
    answer = str(Task().ask("once", body)["answer"])
    click.echo(answer)
    return 0 if answer in {"first", "again"} else FAILED
