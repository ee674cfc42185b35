"""`runtime next`: when an expression is due, reckoned here, or a job, asked of its node."""

from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

import click
import msgspec

from actors.timer.cron import CronError
from actors.timer.dst import ZoneError, zone
from actors.timer.schedule import CompiledSchedule, compile_schedule
from protocols.errors import InvalidError
from protocols.schedule_text import parse_schedule
from runtime.cli.arguments import Instant, json_option, now
from runtime.cli.show import note, person, relative

COUNT_MAX: Final = 10_000


@click.command()
@click.argument("what", metavar="JOB|CRON")
@click.option(
    "--count", type=click.IntRange(1, COUNT_MAX), default=5, show_default=True, help="How many."
)
@click.option("--timezone", help="IANA name; default: UTC, or the job's own.")
@click.option("--after", type=Instant(zoned=True), help="From when on; default: now.")
@click.option("--tenant", help="Of a job: whose; default: RUNTIME_TENANT, else default.")
@click.option("--url", help="Of a job: which node; default: RUNTIME_URL.")
@json_option
def next_command(
    what: str,
    count: int,
    timezone: str | None,
    after: datetime | None,
    tenant: str | None,
    url: str | None,
    as_json: bool,  # noqa: FBT001 - click passes flags by name
) -> None:
    """Show when a job, or a schedule such as "*/5 9-17 * * mon-fri" or @hourly, is due next.

    An expression has spaces or begins with @, and needs no node. --after without an offset is on
    the wall clock of --timezone.
    """
    try:
        zone(timezone or "UTC")
    except ZoneError as error:
        raise click.UsageError(f"--timezone: {error}") from None
    info = ZoneInfo(timezone or "UTC")
    start = now() if after is None else after
    if start.tzinfo is None:
        start = start.replace(tzinfo=info)
    if is_expression(what):
        found = instants(what, timezone or "UTC", after=start, count=count)
        shown = [moment.astimezone(info) for moment in found]
    else:
        shown = _of_job(what, count=count, after=start, timezone=timezone, tenant=tenant, url=url)
    if as_json:
        click.echo(msgspec.json.encode([moment.isoformat() for moment in shown]))
        return
    if not shown:
        note(f"{what} is never due")
    for moment in shown:
        click.echo(f"{moment.isoformat()}  {relative(moment)}" if person() else moment.isoformat())


def is_expression(text: str) -> bool:
    """Whether a text is a schedule rather than a job's id."""
    return text.startswith("@") or len(text.split()) != 1


def instants(text: str, timezone: str, *, after: datetime, count: int) -> list[datetime]:
    """The next due instants of a schedule's text, in UTC.

    Raises:
        click.UsageError: It cannot be read, or has no instants of its own.
    """
    try:
        schedule = parse_schedule(text, timezone=timezone)
        if schedule.kind == "after":
            raise click.UsageError(
                f"{text}: each run follows from the end of the one before, so only the node of a "
                "job knows it: `runtime next JOB`"
            )
        compiled = compile_schedule(schedule, anchor=after, salt=b"")
    except InvalidError as error:
        raise click.UsageError("\n".join(p.message for p in error.problems)) from None
    except CronError as error:
        raise click.UsageError(str(error)) from None
    return due_after(compiled, after, count)


def due_after(compiled: CompiledSchedule, after: datetime, count: int) -> list[datetime]:
    """The next `count` instants that run, or as many as there are."""
    found: list[datetime] = []
    moment: datetime | None = after
    while moment is not None and len(found) < count:
        moment = compiled.next_run_after(moment)
        if moment is not None:
            found.append(moment)
    return found


def _of_job(
    job_id: str,
    *,
    count: int,
    after: datetime,
    timezone: str | None,
    tenant: str | None,
    url: str | None,
) -> list[datetime]:
    from runtime.cli.client import open_client  # noqa: PLC0415 - httpx takes its time

    with open_client(tenant=tenant, url=url) as client:
        answer = client.get("jobs", job_id, "next", count=count, after=after.isoformat())
        name = timezone or client.get("jobs", job_id)["timezone"] or "UTC"
    info = ZoneInfo(name)
    return [datetime.fromisoformat(text).astimezone(info) for text in answer["items"]]
