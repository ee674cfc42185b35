"""`runtime dead-letters`: what ended dead, to be run again or put away."""

from typing import Any, Final

import click

from runtime.cli.arguments import DefaultGroup, json_option, limit_option
from runtime.cli.client import Client, uses_node
from runtime.cli.show import instant, note, print_json, say, table

_AT_ONCE: Final = 1000


@click.group(cls=DefaultGroup)
def dead_letters_command() -> None:
    """List, replay and discard what ended dead; bare, it lists."""


@dead_letters_command.command("list")
@click.option("--job", help="Only of this job.")
@limit_option()
@json_option
@uses_node
def list_(client: Client, *, job: str | None, limit: int, as_json: bool) -> None:
    """List dead letters, the newest first."""
    found = client.listed("dead-letters", limit=limit, job=job)
    if as_json:
        print_json(found)
        return
    table(
        ("execution", "job", "died", "attempts", "reason", "error"),
        [
            (
                one["execution_id"],
                one["job_id"],
                instant(one["dead_at"]),
                one["attempt"],
                one["reason"],
                one["error"],
            )
            for one in found
        ],
        empty="no dead letters",
    )


@dead_letters_command.command("replay")
@click.argument("execution_ids", metavar="[ID]...", nargs=-1)
@click.option("--job", help="All of this job.")
@click.option("--all", "every", is_flag=True, help="All of them.")
@json_option
@uses_node
def replay(
    client: Client, *, execution_ids: tuple[str, ...], job: str | None, every: bool, as_json: bool
) -> None:
    """Run dead letters again."""
    body = _chosen(execution_ids, job=job, every=every)
    _tell(_all_of_them(client, "replay", body), "replayed", as_json=as_json)


@dead_letters_command.command("discard")
@click.argument("execution_ids", metavar="[ID]...", nargs=-1)
@click.option("--job", help="All of this job.")
@click.option("--all", "every", is_flag=True, help="All of them.")
@json_option
@uses_node
def discard(
    client: Client, *, execution_ids: tuple[str, ...], job: str | None, every: bool, as_json: bool
) -> None:
    """Put dead letters away; their executions stay in the history."""
    body = _chosen(execution_ids, job=job, every=every)
    _tell(_all_of_them(client, "discard", body), "discarded", as_json=as_json)


def _chosen(execution_ids: tuple[str, ...], *, job: str | None, every: bool) -> dict[str, Any]:
    if execution_ids and (job is not None or every):
        raise click.UsageError("give IDs, or --job or --all, not both")
    if execution_ids:
        return {"execution_ids": list(execution_ids)}
    if job is not None:
        return {"job": job}
    if every:
        return {"all": True}
    raise click.UsageError("say which: IDs, --job JOB, or --all")


def _all_of_them(client: Client, what: str, body: dict[str, Any]) -> list[str]:
    """The ids, over as many requests of at most a thousand as it takes."""
    asked: list[str] = body.get("execution_ids", [])
    chunks = [{"execution_ids": asked[i : i + _AT_ONCE]} for i in range(0, len(asked), _AT_ONCE)]
    found: list[str] = []
    for chunk in chunks or [body]:
        more = True
        while more:
            answer = client.post("dead-letters", what, body=chunk)
            found += answer["execution_ids"]
            more = answer["more"] and bool(answer["execution_ids"])
    return found


def _tell(execution_ids: list[str], word: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"execution_ids": execution_ids})
        return
    for execution_id in execution_ids:
        say(execution_id)
    note(f"{word} {len(execution_ids)}")
