"""A node: the one composition root. Database, clock, first jobs, API, and one life after another.

async with open_node(settings, jobs=[Path("jobs.yaml")]) as node:
    await node.wait_ended()
"""

import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Final
from uuid import uuid4

import anyio
import structlog
from anyio.abc import TaskStatus

from protocols.errors import TickwrightError, UnavailableError
from protocols.instants import to_epoch_ns
from protocols.ports.hints import Hints
from protocols.ports.store import NodeInfo
from protocols.views import Applied
from runtime.api.server import ApiServer
from runtime.apply import apply_at_start
from runtime.clock import (
    DEGRADED_STEP_S,
    WARN_STEP_S,
    DatabaseClock,
    Sample,
    Step,
    monotonic_ns,
)
from runtime.database import Database, open_database
from runtime.files.load import load_files
from runtime.health import Health, Level
from runtime.hosts.executor import HostExecutor
from runtime.kernel.system import ActorSystem
from runtime.life import Functions, Life, node_info
from runtime.postgres.definitions.zones import recompute_for_tzdata
from runtime.postgres.leaderships import agree_on_shards
from runtime.postgres.nodes import sample_clock
from runtime.postgres.operations.pause import pause_house
from runtime.postgres.operations.session import Connection, transact
from runtime.postgres.store import PostgresStore
from runtime.settings import Settings
from runtime.token import load_or_make_token
from runtime.zones import use_pinned_zones

log = structlog.get_logger("tickwright.node")

_FIRST_SAMPLES: Final = 5
_SAMPLE_S: Final = 1.0
_REJOIN_S: Final = 0.5
_LEAVE_WITHIN_S: Final = 5.0


class PortInUseError(TickwrightError):
    """The API's address cannot be had."""

    code = "port_in_use"
    status = 503


class Node:
    """A running node; `Services` for its API and for a program that embeds it."""

    def __init__(self, *, settings: Settings, database: Database, url: str, token: str) -> None:
        self.settings = settings
        self.database = database
        self.url = url
        self.token = token
        self.clock = DatabaseClock()
        self.health = Health(self.clock)
        self.store = PostgresStore(hot=database.hot, keeping=database.keeping)
        self.api = database.api
        self.keeping = database.keeping
        self.applied: Mapping[str, Applied | None] = {}
        """What the start applied, by tenant; None where it was the last applied already."""
        self._life: Life | None = None
        self._ending = anyio.Event()
        self._ended = anyio.Event()

    @property
    def life(self) -> Life:
        """The incarnation that lives now, or the last one."""
        assert self._life is not None, "the node has not begun"
        return self._life

    @property
    def incarnation(self) -> int:
        """Its number in the books."""
        return self.life.incarnation

    @property
    def hints(self) -> Hints:
        """Where hints are sent."""
        return self.life.hints

    @property
    def executors(self) -> Mapping[str, HostExecutor]:
        """By pool."""
        return self.life.executors

    @property
    def system(self) -> ActorSystem:
        """The living actors."""
        return self.life.system

    def shut_down(self) -> None:
        """Begin to end: stop taking work, let what runs finish within the grace."""
        self._ending.set()

    async def wait_ended(self) -> None:
        """Return once the node has ended, for whatever reason."""
        await self._ended.wait()

    async def synchronise(self) -> None:
        """Take the first samples of the database's clock."""
        for _ in range(_FIRST_SAMPLES):
            await self._sample()

    async def keep_time(self) -> None:
        """Sample the database's clock for ever; an outage is trouble, not an end."""
        while True:
            await anyio.sleep(_SAMPLE_S)
            try:
                await self._sample()
            except UnavailableError as error:
                if self.health.trouble("database", str(error)):
                    log.warning("database away", error=str(error))
            else:
                if self.health.mend("database"):
                    log.info("database back")

    async def _sample(self) -> None:
        asked = monotonic_ns()
        said = await sample_clock(self.keeping)
        step = self.clock.adopt(Sample(asked, to_epoch_ns(said), monotonic_ns()))
        if step is not None:
            log.warning("the database's clock stepped", by_s=round(step.by_s, 3))
        self._judge_clock(step)

    def _judge_clock(self, step: Step | None) -> None:
        """Show a clock that stepped, or that is far from this node's; neither changes a fire."""
        offset_s = self.clock.offset_s
        off_s = max(abs(offset_s), abs(step.by_s) if step is not None else 0.0)
        if off_s < WARN_STEP_S:
            self.health.mend("clock")
            return
        reason = (
            f"the database's clock stepped by {step.by_s:.3f} s"
            if step is not None
            else f"this node's clock is {offset_s:+.3f} s off the database's"
        )
        level: Level = "degraded" if off_s > DEGRADED_STEP_S else "warning"
        self.health.trouble("clock", reason, level=level)

    async def live(
        self,
        functions: Functions,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """One life after another, until asked to end."""
        try:
            while not self._ending.is_set():
                await self._one_life(functions, task_status)
        finally:
            self._ended.set()

    async def _one_life(self, functions: Functions, task_status: TaskStatus[None]) -> None:
        info = node_info(self.settings, url=self.url)
        incarnation = await self._patiently_join(info)
        leaderships = (
            await self.store.beat(
                incarnation, running={}, leads={}, clock_offset_s=self.clock.offset_s
            )
        ).leaderships
        life = Life(
            settings=self.settings,
            store=self.store,
            clock=self.clock,
            health=self.health,
            url=self.url,
            functions=functions,
            incarnation=incarnation,
            leaderships=leaderships,
        )
        async with life.run():
            first, self._life = self._life is None, life
            if first:
                task_status.started()
            async with anyio.create_task_group() as group:
                group.start_soon(_then_cancel, self._ending, group.cancel_scope)
                group.start_soon(_then_cancel, life.declared_dead, group.cancel_scope)
        if life.declared_dead.is_set():
            log.error("this incarnation was declared dead; beginning anew", was=incarnation)
            return
        with anyio.move_on_after(_LEAVE_WITHIN_S):
            await self.store.leave(incarnation, now=self.clock.now())

    async def _patiently_join(self, info: NodeInfo) -> int:
        while True:
            try:
                return await self.store.join(info, now=self.clock.now(), alone=True)
            except UnavailableError:
                if self._life is None:
                    raise
            await anyio.sleep(_REJOIN_S)


async def _then_cancel(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


@asynccontextmanager
async def open_node(
    settings: Settings,
    *,
    jobs: Sequence[Path] = (),
    paused: bool = False,
    functions: Functions | None = None,
) -> AsyncIterator[Node]:
    """Start a node, and end it in good order when the block is left.

    Raises:
        InvalidFileError: The job files are wrong; nothing was started.
        TickwrightError: The database, the port or the data directory cannot be had.
    """
    use_pinned_zones()
    files = load_files(jobs) if jobs else None
    with _bind(settings) as listening:
        url = _url(listening)
        async with open_database(settings, incarnation_name=str(uuid4())) as database:
            token = load_or_make_token(settings.data_dir, settings.api_token)
            node = Node(settings=settings, database=database, url=url, token=token)
            await node.synchronise()
            await _prepare_books(node)
            if paused:
                await _pause(node)
            if files is not None:
                node.applied = await apply_at_start(
                    database.api, files, cwd=settings.tasks_cwd, now=node.clock.now()
                )
            async with anyio.create_task_group() as group:
                group.start_soon(node.keep_time, name="clock")
                await group.start(node.live, {} if functions is None else functions, name="node")
                server = ApiServer(node, listening)
                await group.start(server.run, name="api")
                try:
                    yield node
                finally:
                    node.shut_down()
                    with anyio.CancelScope(shield=True):
                        await node.wait_ended()
                        await server.stop()
                    group.cancel_scope.cancel()


async def _prepare_books(node: Node) -> None:
    """What a start owes the books: days to write into, groups of shards, this tzdata."""
    now = node.clock.now()
    await node.store.tidy(now=now, keep_s=node.settings.history_keep_s)
    agreed = await agree_on_shards(node.keeping, node.settings.timer_shards)
    if agreed != node.settings.timer_shards:
        log.warning(
            "timer.shards differs from the database's, which holds",
            setting=node.settings.timer_shards,
            used=agreed,
        )
    moved = await recompute_for_tzdata(node.keeping, version("tzdata"))
    if moved:
        log.info("time zone data changed", schedules_moved=moved, tzdata=version("tzdata"))


async def _pause(node: Node) -> None:
    """Begin with the house paused: a copy of another's data fires nothing by mistake."""

    async def work(conn: Connection) -> None:
        await pause_house(
            conn, tenant="default", reason="started paused", who="start", now=node.clock.now()
        )

    await transact(node.api, "default", work)


def _bind(settings: Settings) -> socket.socket:
    host, port = settings.api_host, settings.api_port
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
    except OSError as error:
        listening.close()
        raise PortInUseError(
            f"the API cannot listen on {host}:{port}: {error.strerror}; "
            "stop what does, or choose another with --port"
        ) from error
    return listening


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
