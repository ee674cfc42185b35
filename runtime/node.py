"""A node: the one composition root. Database, clock, first jobs, API, and one life after another.

async with open_node(settings, jobs=[Path("jobs.yaml")]) as node:
    await node.wait_ended()
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import anyio
import structlog
from anyio.abc import TaskStatus

from actors.outbox import OutboxStatus
from protocols.actor import Props, SystemFailed
from protocols.errors import TickwrightError, UnavailableError
from protocols.ports.hints import Hints
from protocols.views import Applied
from runtime.api.server import ApiServer
from runtime.apply import apply_at_start
from runtime.clock import DatabaseClock
from runtime.database import Database, open_database, patiently
from runtime.files.load import FileSet, load_files
from runtime.groups import ungrouped
from runtime.health import Health
from runtime.hosts.executor import HostExecutor
from runtime.hosts.locks import LockKeeper
from runtime.joining import join, join_patiently
from runtime.kernel.system import ActorSystem
from runtime.life import Functions, Life, node_info
from runtime.listening import bind, listen, url_of
from runtime.postgres.definitions.zones import recompute_for_tzdata
from runtime.postgres.leaderships import agree_on_shards
from runtime.postgres.operations.pause import pause_house
from runtime.postgres.operations.session import Connection, transact
from runtime.postgres.store import PostgresStore
from runtime.settings import Settings, SettingsError
from runtime.timekeeping import Timekeeper
from runtime.token import load_or_make_token
from runtime.tree import user_actors
from runtime.zones import use_pinned_zones

if TYPE_CHECKING:
    from runtime.cluster.member import Member

log = structlog.get_logger("tickwright.node")

_LEAVE_WITHIN_S: Final = 5.0


class NodeFailedError(TickwrightError):
    """A part of the node failed for good, and with it the node."""

    code = "node_failed"


class Node:
    """A running node; `Services` for its API and for a program that embeds it."""

    def __init__(self, *, settings: Settings, database: Database, url: str, token: str) -> None:
        self.settings = settings
        self.database = database
        self.url = url
        self.token = token
        self.clock = DatabaseClock()
        self.health = Health(self.clock)
        self.time = Timekeeper(
            database,
            clock=self.clock,
            health=self.health,
            ttl_s=settings.lease_ttl_s,
            reached=self._reach_database,
        )
        self.store = PostgresStore(hot=database.hot, keeping=database.keeping, vital=database.vital)
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
    def locks(self) -> LockKeeper:
        """What the attempts of this node lock."""
        return self.life.locks

    @property
    def outbox(self) -> OutboxStatus | None:
        """How telling Kafka goes; None where there is none."""
        return self.life.outbox

    @property
    def leads(self) -> Mapping[int, int]:
        """The epochs of the leaderships it holds, by their numbers."""
        return self.life.leads

    @property
    def member(self) -> "Member | None":
        """Its part in the cluster; None where it is alone."""
        return self.life.member

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

    def _reach_database(self, yes: bool) -> None:  # noqa: FBT001 - the one thing it says
        """A node that cannot write leads nothing for long: another may."""
        if self._life is not None:
            self._life.reach_database(yes)

    @property
    def begun(self) -> bool:
        """Whether its first life has begun; from then on only `shut_down` ends it."""
        return self._life is not None

    async def live(
        self,
        functions: Functions,
        actors: Sequence[Props],
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """One life after another, until asked to end.

        Raises:
            NodeFailedError: A part of it failed more often than its supervisors allow.
        """
        try:
            with anyio.CancelScope() as scope, ungrouped():
                while not self._ending.is_set():
                    await self._one_life(functions, actors, scope, task_status)
        except SystemFailed as error:
            raise NodeFailedError(
                "the node ended itself, since a part of it kept failing: "
                f"{error.__cause__ or error}; its log tells what failed and where"
            ) from error
        finally:
            self._ended.set()

    async def _one_life(
        self,
        functions: Functions,
        actors: Sequence[Props],
        scope: anyio.CancelScope,
        task_status: TaskStatus[None],
    ) -> None:
        member = self._membership()
        if member is not None:
            await member.prepare()
        joined = await self._join()
        if joined is None:
            return
        incarnation, leaderships = joined
        life = Life(
            settings=self.settings,
            store=self.store,
            clock=self.clock,
            health=self.health,
            url=self.url,
            functions=functions,
            actors=actors,
            incarnation=incarnation,
            leaderships=leaderships,
            member=member,
        )
        try:
            async with life.run():
                # Whoever cancels us now begins the end: what runs still has its grace.
                scope.shield = True
                first, self._life = self._life is None, life
                if first:
                    task_status.started()
                async with anyio.create_task_group() as group:
                    group.start_soon(_then_cancel, self._ending, group.cancel_scope)
                    group.start_soon(_then_cancel, life.declared_dead, group.cancel_scope)
                    group.start_soon(_then_cancel, life.drained, group.cancel_scope)
                if life.drained.is_set():
                    log.info("drained: nothing runs here any more")
                    self._ending.set()
                if life.declared_dead.is_set() and life.draining:
                    log.error("declared dead while it was drained: it ends", was=incarnation)
                    self._ending.set()
                    await life.end_work()
                elif life.declared_dead.is_set():
                    log.error("this incarnation was declared dead; beginning anew", was=incarnation)
                    await life.end_work()
        finally:
            if not life.declared_dead.is_set():
                with anyio.CancelScope(shield=True):
                    await self._leave(incarnation)

    def _membership(self) -> "Member | None":
        if not self.settings.clustered:
            return None
        from runtime.cluster.member import Member  # noqa: PLC0415 - of the extra `cluster`

        return Member(self.settings, clock=self.clock, health=self.health)

    async def _join(self) -> tuple[int, int] | None:
        """Enter the books: incarnation and number of leaderships; None if the end comes first.

        Only the first life of a single node needs the database at once.
        """
        alone = not self.settings.clustered
        enter = join if alone and self._life is None else join_patiently
        async with anyio.create_task_group() as group:
            group.start_soon(_then_cancel, self._ending, group.cancel_scope)
            incarnation, pulse = await enter(
                self.store,
                node_info(self.settings, url=self.url),
                clock=self.clock,
                ttl_s=self.settings.lease_ttl_s,
                alone=alone,
            )
            group.cancel_scope.cancel()
            return incarnation, pulse.leaderships
        return None

    async def _leave(self, incarnation: int) -> None:
        """Say that this incarnation ended; where that cannot be said, the next start knows it."""
        try:
            with anyio.fail_after(_LEAVE_WITHIN_S):
                await self.store.leave(incarnation, now=self.clock.now())
        except (UnavailableError, TimeoutError) as error:
            log.warning("the database was not told that this node ended", error=str(error))


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
        SettingsError: What a cluster needs is not installed, or cannot be read.
        TickwrightError: The database, the port or the data directory cannot be had.
        NodeFailedError: A part of it failed for good while it ran; the block was cancelled.
    """
    use_pinned_zones()
    _check_cluster(settings)
    files = load_files(jobs) if jobs else None
    actors = user_actors(settings.actors, cwd=settings.tasks_cwd)
    with ungrouped(), bind(settings.api_host, settings.api_port) as listening:
        url = url_of(listening)
        async with open_database(settings, incarnation_name=str(uuid4())) as database:
            token = load_or_make_token(settings.data_dir, settings.api_token)
            node = Node(settings=settings, database=database, url=url, token=token)
            await patiently(partial(_begin, node, files, paused=paused), settings)
            async with anyio.create_task_group() as group:
                server = ApiServer(node, listening)
                try:
                    group.start_soon(node.time.run, name="clock")
                    given = {} if functions is None else functions  # which may be filled later
                    await group.start(node.live, given, actors, name="node")
                    listen(listening)
                    await group.start(server.run, name="api")
                    yield node
                finally:
                    node.shut_down()
                    with anyio.CancelScope(shield=True):
                        if node.begun:
                            await node.wait_ended()
                        await server.stop()
                    group.cancel_scope.cancel()


def _check_cluster(settings: Settings) -> None:
    """Refuse at once what would fail only when the database is there.

    Raises:
        SettingsError: The extra is not installed, or a file is of no use for TLS.
    """
    if not settings.clustered:
        return
    try:
        from runtime.cluster.member import check_settings  # noqa: PLC0415 - of the extra `cluster`
    except ModuleNotFoundError as error:
        lacking = f"a cluster's clients of etcd and Kafka are not installed ({error.name})"
        raise SettingsError([f"{lacking}: pip install 'tickwright[cluster]'"]) from error
    check_settings(settings)


async def _begin(node: Node, files: FileSet | None, *, paused: bool) -> None:
    """All that a start writes; written again as a whole where the database went away meanwhile."""
    await node.time.begin()
    await _prepare_books(node)
    if paused:
        await _pause(node)
    if files is not None:
        node.applied = await apply_at_start(
            node.api,
            files,
            cwd=node.settings.tasks_cwd,
            now=node.clock.now(),
            kafka=node.settings.clustered,
        )


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
