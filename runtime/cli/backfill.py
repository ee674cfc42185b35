"""`runtime backfill`: the instants of a past window that have no run, or none that succeeded."""

from datetime import datetime

import click

from protocols.instants import iso
from runtime.cli.arguments import Instant, json_option
from runtime.cli.client import Client, uses_node
from runtime.cli.show import note, print_json, say


@click.command()
@click.argument("job")
@click.option("--from", "start", type=Instant(), required=True, help="The first instant.")
@click.option("--to", "end", type=Instant(), required=True, help="The last instant.")
@click.option("--dry-run", is_flag=True, help="Show what it would do.")
@click.option("--limit", type=click.IntRange(1, 10_000), help="How many instants at most.")
@click.option(
    "--parallel",
    type=click.IntRange(1, 10_000),
    help="How many at once; default: as the job's `overlap` has it.",
)
@json_option
@uses_node
def backfill_command(
    client: Client,
    *,
    job: str,
    start: datetime,
    end: datetime,
    dry_run: bool,
    limit: int | None,
    parallel: int | None,
    as_json: bool,
) -> None:
    """Run the instants of a job or a DAG in a past window that have none that succeeded.

    An instant without an execution gets one, one that ended dead, cancelled or skipped is run
    again, any other is left alone.
    """
    if end < start:
        raise click.UsageError("--to is before --from")
    body = {"from": iso(start), "to": iso(end), "dry_run": dry_run}
    if limit is not None:
        body["limit"] = limit
    if parallel is not None:
        body["parallel"] = parallel
    answer = client.post("jobs", job, "backfill", body=body)
    if as_json:
        print_json(answer)
        return
    for sign, name in (("+", "created"), ("~", "reopened")):
        for one in answer[name]:
            say(f"{sign} {one['scheduled_for']}  {one['execution_id'] or ''}".rstrip())
    for one in answer["left"]:
        say(f"= {one['scheduled_for']}  {one['state']}")
    would = "would be " if dry_run else ""
    note(
        f"{len(answer['created'])} {would}made, {len(answer['reopened'])} {would}run again, "
        f"{len(answer['left'])} left alone"
    )
    if answer["continue_from"] is not None:
        note(f"the limit was met: go on with --from {answer['continue_from']}")
