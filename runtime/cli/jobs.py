"""`runtime jobs`: what is defined, when it fires next, and how it went."""

from collections.abc import Callable, Sequence
from typing import Any

import click

from runtime.cli.arguments import DefaultGroup, json_option, limit_option
from runtime.cli.client import Client, uses_node
from runtime.cli.show import facts, instant, print_json, say, table


@click.group(cls=DefaultGroup)
def jobs_command() -> None:
    """List, show, pause, resume and delete jobs; bare, it lists."""


@jobs_command.command("list")
@click.option("--tag", help="Only those that carry it.")
@limit_option()
@json_option
@uses_node
def list_(client: Client, *, tag: str | None, limit: int, as_json: bool) -> None:
    """List jobs, the one made last first."""
    found = client.listed("jobs", limit=limit, tag=tag)
    if as_json:
        print_json(found)
        return
    table(
        ("job", "schedule", "zone", "next", "last", "tags"),
        [
            (
                job["job_id"],
                job["schedule"],
                job["timezone"],
                _next(job),
                job["last_state"],
                job["tags"],
            )
            for job in found
        ],
        empty="no jobs: `runtime apply jobs.yaml` makes some",
    )


@jobs_command.command("show")
@click.argument("job")
@json_option
@uses_node
def show(client: Client, *, job: str, as_json: bool) -> None:
    """Show one job with the version of its definition that is in force."""
    found = client.get("jobs", job)
    if as_json:
        print_json(found)
        return
    facts(
        {
            "job": found["job_id"],
            "tenant": found["tenant"],
            "source": found["source"],
            "version": found["version"],
            "schedule": found["schedule"],
            "timezone": found["timezone"],
            "next": _next(found),
            "last": found["last_state"],
            "tags": found["tags"] or None,
            "dependents": found["dependents"] or None,
            "paused": found["paused_reason"] if found["paused"] else None,
            "in force": instant(found["in_force_at"]),
        }
    )
    hidden = {"job_id", "schedule", "tags"}
    definition: dict[str, Any] = dict(found["definition"])
    if "tasks" in definition:
        definition["tasks"] = f"{len(definition['tasks'])}: `runtime dags show {job}` draws them"
    facts({f"  {name}": value for name, value in definition.items() if name not in hidden})


@jobs_command.command("pause")
@click.argument("jobs", metavar="JOB...", nargs=-1, required=True)
@click.option("--reason", help="Why; lists show it.")
@json_option
@uses_node
def pause(client: Client, *, jobs: tuple[str, ...], reason: str | None, as_json: bool) -> None:
    """Pause jobs: their instants are recorded as skipped, what runs goes on."""
    body = {} if reason is None else {"reason": reason}
    _each(jobs, lambda job: client.post("jobs", job, "pause", body=body), "paused", as_json)


@jobs_command.command("resume")
@click.argument("jobs", metavar="JOB...", nargs=-1, required=True)
@json_option
@uses_node
def resume(client: Client, *, jobs: tuple[str, ...], as_json: bool) -> None:
    """Resume paused jobs."""
    _each(jobs, lambda job: client.post("jobs", job, "resume"), "resumed", as_json)


@jobs_command.command("delete")
@click.argument("jobs", metavar="JOB...", nargs=-1, required=True)
@json_option
@uses_node
def delete(client: Client, *, jobs: tuple[str, ...], as_json: bool) -> None:
    """Delete jobs; their history stays, and what runs goes on."""

    def gone(job: str) -> dict[str, str]:
        client.delete("jobs", job)
        return {"job_id": job}

    _each(jobs, gone, "deleted", as_json)


def _each(
    jobs: Sequence[str],
    change: Callable[[str], Any],
    word: str,
    as_json: bool,  # noqa: FBT001 - as click passes it
) -> None:
    """Change one job after the other; told as each is done, as JSON when all are."""
    answers = []
    for job in jobs:
        answers.append(change(job))
        if not as_json:
            say(f"{word} {job}")
    if as_json:
        print_json(answers[0] if len(answers) == 1 else answers)


def _next(job: dict[str, Any]) -> Any:
    if not job["enabled"]:
        return "disabled"
    return "paused" if job["paused"] else instant(job["next_fire_at"])
