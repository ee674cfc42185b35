"""`runtime start`: a node, what it says when it is up, and the signals that end it."""

import os
import signal
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import anyio
import click

from protocols.errors import UnavailableError
from protocols.views import Applied, JobView, Page
from runtime.cli.show import about, note, person, say
from runtime.garbage import collect_seldom
from runtime.logs import configure_logs
from runtime.node import Node, open_node
from runtime.postgres.operations.jobs_view import list_jobs
from runtime.postgres.operations.session import Connection, transact
from runtime.settings import Settings, load_settings
from runtime.token import FILE_NAME

_SHOWN_JOBS: Final = 20
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="A file of settings.")
@click.option(
    "--jobs", type=click.Path(path_type=Path), multiple=True, help="Job files or folders to apply."
)
@click.option("--data-dir", help="Where the node keeps its data.")
@click.option("--node", help="The node's name; default: the machine's.")
@click.option("--host", help="Where the API listens, on loopback.  [default: 127.0.0.1]")
@click.option("--port", help="0 takes any free one.  [default: 8700]")
@click.option("--paused", is_flag=True, help="Start with the whole house paused.")
def start_command(
    config: Path | None,
    jobs: tuple[Path, ...],
    data_dir: str | None,
    node: str | None,
    host: str | None,
    port: str | None,
    paused: bool,  # noqa: FBT001 - click passes flags by name
) -> int:
    """Start a node: it applies the job files, runs what falls due, and serves the API.

    Without the setting `database.url` it starts a PostgreSQL of its own. SIGTERM or Ctrl-C lets
    running work finish within `shutdown.grace_s`; a second one ends at once.
    """
    settings = load_settings(
        config=config,
        environment=os.environ,
        options={
            "data_dir": data_dir,
            "node.name": node,
            "api.host": host,
            "api.port": port,
        },
        cwd=Path.cwd(),
    )
    configure_logs()
    collect_seldom()
    return anyio.run(
        _serve,
        settings,
        jobs,
        paused,
        backend="asyncio",
        backend_options={"use_uvloop": True},
    )


async def _serve(settings: Settings, jobs: Sequence[Path], paused: bool) -> int:  # noqa: FBT001
    """Run the node until it ends, or a signal ends it."""
    ending = _Ending()
    async with anyio.create_task_group() as group:
        await group.start(ending.watch)
        with ending.starting:
            async with open_node(settings, jobs=jobs, paused=paused) as node:
                ending.node = node
                if ending.asked:
                    node.shut_down()
                else:
                    await _announce(node, jobs, paused=paused)
                await node.wait_ended()
        group.cancel_scope.cancel()
    note("ended" if ending.node is not None else "ended before it had started")
    return 0


class _Ending:
    """What signals do: the first begins the end, a second one is the end."""

    def __init__(self) -> None:
        self.node: Node | None = None
        self.asked = False
        self.starting = anyio.CancelScope()

    async def watch(
        self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Take signals for as long as the program runs."""
        with anyio.open_signal_receiver(*_SIGNALS) as received:
            task_status.started()
            async for number in received:
                if self.asked:
                    # The guardian ends our tasks, and the database's watchdog the database, as
                    # soon as our end of their pipes is closed.
                    os._exit(128 + number)
                self.asked = True
                self._begin()

    def _begin(self) -> None:
        if self.node is None:
            note("ending before the start is over; a second signal ends at once")
            self.starting.cancel()
            return
        grace = about(self.node.settings.shutdown_grace_s)
        note(f"ending: running work has {grace} to finish; a second signal ends at once")
        self.node.shut_down()


async def _announce(node: Node, jobs: Sequence[Path], *, paused: bool) -> None:
    """Say where the API is, which jobs there are, and when each fires next."""
    settings = node.settings
    token = "in the settings" if settings.api_token else str(settings.data_dir / FILE_NAME)
    say(f"Tickwright {version('tickwright')}, node {settings.node_name}")
    say(f"  API    {node.url}   (token: {token})")
    say(f"  Data   {_data_place(settings)}")
    tenants = sorted(node.applied) or ["default"]
    try:
        pages = {tenant: await _jobs(node, tenant) for tenant in tenants}
    except UnavailableError:
        say("  Jobs   not shown, since the database went away; the node goes on")
        return
    for tenant in tenants:
        of = f" of {tenant}" if tenants != ["default"] else ""
        change = node.applied.get(tenant)
        from_files = f"   ({_change(change)} from {_names(jobs)})" if jobs else ""
        say(f"  Jobs{of}   {_count(pages[tenant])}{from_files}")
        _say_fires(pages[tenant], now=node.clock.now(), paused=paused)
    if paused:
        say("  Paused: nothing fires until `runtime resume --all`")
    if not any(page.items for page in pages.values()):
        say("  Give it some: `runtime apply jobs.yaml`")
    elif person():
        say("  Ctrl-C ends it; `runtime top` in another terminal shows what it does")


async def _jobs(node: Node, tenant: str) -> Page[JobView]:
    async def work(conn: Connection) -> Page[JobView]:
        return await list_jobs(conn, tenant=tenant, limit=_SHOWN_JOBS)

    return await transact(node.api, tenant, work)


def _say_fires(page: Page[JobView], *, now: datetime, paused: bool) -> None:
    width = max((len(job.job_id) for job in page.items), default=0)
    for job in sorted(page.items, key=lambda one: (one.next_fire_at or "~", one.job_id)):
        say(f"    {job.job_id:{width}}  {_next_fire(job, now=now, paused=paused)}")
    if page.next is not None:
        say("    ... and more: `runtime jobs --limit 0` lists all")


def _next_fire(job: JobView, *, now: datetime, paused: bool) -> str:
    if not job.enabled:
        return "disabled"
    if job.paused and not paused:
        return "paused"
    if job.next_fire_at is None:
        return "never again" if job.schedule else "by trigger, event or dependency"
    at = datetime.fromisoformat(job.next_fire_at)
    away_s = (at - now).total_seconds()
    when = f"in {about(away_s)}" if away_s > 0 else "now"
    return f"next {at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC ({when})"


def _count(page: Page[JobView]) -> str:
    count = len(page.items)
    return f"more than {count}" if page.next else str(count) if count else "none yet"


def _change(change: Applied | None) -> str:
    if change is None:
        return "unchanged since the last start"
    named: Mapping[str, Sequence[Any]] = {
        "new": change.created,
        "changed": change.updated,
        "unchanged": change.unchanged,
    }
    return ", ".join(f"{len(ids)} {word}" for word, ids in named.items() if ids) or "no jobs"


def _names(jobs: Sequence[Path]) -> str:
    return ", ".join(str(path) for path in jobs)


def _data_place(settings: Settings) -> str:
    if settings.database_url is None:
        return f"{settings.data_dir}   (PostgreSQL of its own)"
    return f"{settings.data_dir}   (PostgreSQL at database.url)"
