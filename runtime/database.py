"""The database of a node: its own embedded PostgreSQL or the one that `database.url` names.

Either way: the schema is brought up to this build, one node at a time holds it, and three pools
are opened, of the roles that the schema gives.
"""

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Final

import anyio
import asyncpg
import structlog

from protocols.errors import TickwrightError, UnavailableError
from runtime.postgres.embedded import EmbeddedPostgres
from runtime.postgres.embedded.errors import EmbeddedPostgresError
from runtime.postgres.errors import SAID, refusal, unavailable
from runtime.postgres.hosts import Hosts
from runtime.postgres.migrate import migrate, schema_state, set_role_passwords
from runtime.postgres.pool import API_ROLE, NODE_ROLE, Pool
from runtime.postgres.sole import SoleNode
from runtime.settings import Settings

log = structlog.get_logger("tickwright.database")

CONNECT_WITHIN_S: Final = 30.0
_CONNECT_S: Final = 5.0
_FIRST_DELAY_S: Final = 0.1
_SCHEMA_AGAIN_S: Final = 1.0
_HOT: Final = 6
_KEEPING: Final = 3
_VITAL: Final = 2
_API: Final = 8


class DatabaseError(TickwrightError):
    """The embedded database cannot be had; the message says why and what to do."""

    code = "database"
    status = 503


class Database:
    """Open pools: `hot` for timers, dispatchers and workers; `keeping` for the rest; `api`.

    The clock and the beat have `vital` to themselves, since they must wait for nobody.
    """

    def __init__(self, *, hot: Pool, keeping: Pool, vital: Pool, api: Pool, embedded: bool) -> None:
        self.hot = hot
        self.keeping = keeping
        self.vital = vital
        self.api = api
        self.embedded = embedded

    async def renew(self, *, older_than_s: float) -> None:
        """Make every connection anew, and end the statements that have waited for longer."""
        for pool in (self.hot, self.keeping, self.vital, self.api):
            await pool.renew(older_than_s=older_than_s)


async def wait_for_schema(hosts: Hosts) -> None:
    """Wait until somebody has brought the schema up to this build, and the database is there.

    Of several nodes none migrates, since a release that is rolled out would do so half-way.

    Raises:
        TickwrightError: The database refuses us, or its schema is not this build's to use.
    """
    said = ""
    while True:
        try:
            session = await _connect_once(hosts)
            try:
                state = await schema_state(session)
            finally:
                session.terminate()
        except UnavailableError as error:
            now = str(error)
        except SAID as error:
            told = unavailable(error)
            if told is None:
                raise
            now = str(told)
        else:
            if state.ready:
                return
            now = f"run `runtime migrate`: the schema lacks {', '.join(state.pending)}"
        if now != said:
            log.warning("waiting for the database", reason=now)
            said = now
        await anyio.sleep(_SCHEMA_AGAIN_S)


async def patiently(work: Callable[[], Awaitable[None]], settings: Settings) -> None:
    """Do it; a member of a cluster does it again for as long as the database is away.

    Raises:
        UnavailableError: The database is away, and this node is the only one.
    """
    told = False
    while True:
        try:
            return await work()
        except UnavailableError as error:
            if not settings.clustered:
                raise
            if not told:
                log.warning("waiting for the database", reason=str(error))
            told = True
        await anyio.sleep(_SCHEMA_AGAIN_S)


async def _alone(settings: Settings, hosts: Hosts, stack: AsyncExitStack) -> None:
    """Migrate, and keep every other node out until the end."""
    owner = settings.database_owner_url or settings.database_url
    await migrate_database(Hosts({"dsn": owner}))
    held = {"role": NODE_ROLE, "application_name": f"tickwright {settings.node_name} holder"}
    await stack.enter_async_context(SoleNode(partial(connect, hosts, server_settings=held)))


@asynccontextmanager
async def open_database(settings: Settings, *, incarnation_name: str) -> AsyncIterator[Database]:
    """Start or reach the database, migrate it, hold it, open the pools; undo all at the end.

    Raises:
        DatabaseError: It cannot be had.
        TickwrightError: What the migration says, or that another node holds the database, now or
            later.
    """
    async with AsyncExitStack() as stack:
        if settings.database_url is None:
            node, api = await _embedded(settings, incarnation_name, stack)
            roles: tuple[str | None, str | None] = (None, None)
        else:
            node = api = Hosts({"dsn": settings.database_url})
            roles = (NODE_ROLE, API_ROLE)
            if settings.clustered:
                await wait_for_schema(node)
            else:
                await _alone(settings, node, stack)
        name = f"tickwright {settings.node_name}"
        hot = Pool(node, name=name, size=_HOT, role=roles[0], pinned=True)
        keeping = Pool(node, name=f"{name} keeping", size=_KEEPING, role=roles[0], pinned=True)
        vital = Pool(node, name=f"{name} vital", size=_VITAL, role=roles[0], pinned=True)
        served = Pool(api, name=f"{name} api", size=_API, role=roles[1])
        for pool in (hot, keeping, vital, served):
            stack.push_async_callback(pool.close)
            await pool.open(within_s=math.inf if settings.clustered else CONNECT_WITHIN_S)
        yield Database(
            hot=hot,
            keeping=keeping,
            vital=vital,
            api=served,
            embedded=settings.database_url is None,
        )


async def _embedded(
    settings: Settings, incarnation_name: str, stack: AsyncExitStack
) -> tuple[Hosts, Hosts]:
    server = EmbeddedPostgres(
        settings.data_dir,
        node_name=settings.node_name,
        incarnation=incarnation_name,
        on_event=lambda name, facts: log.info(name, **facts),
    )
    try:
        connection = await server.start()
    except EmbeddedPostgresError as error:
        raise DatabaseError(str(error)) from error
    stack.push_async_callback(server.stop)
    group = await stack.enter_async_context(anyio.create_task_group())
    stack.callback(group.cancel_scope.cancel)
    group.start_soon(server.supervise, name="embedded postgres")
    kept = server.credentials
    await migrate_database(Hosts(connection.arguments()), passwords=(kept.node, kept.api))
    node = connection.as_role(NODE_ROLE, kept.node).arguments()
    api = connection.as_role(API_ROLE, kept.api).arguments()
    return Hosts(node), Hosts(api)


async def migrate_database(
    owner: Hosts, *, passwords: tuple[str, str] | None = None
) -> tuple[str, ...]:
    """Bring the schema up to this build as its owner; the files that were applied.

    `passwords`, of the node's and the api's role, are set where the server is the node's own.
    """
    session = await connect(owner)
    try:
        done = await migrate(session)
        if passwords is not None:
            await set_role_passwords(session, node=passwords[0], api=passwords[1])
    finally:
        await session.close()
    for name in done:
        log.info("migrated", file=name)
    return done


async def connect(hosts: Hosts, **options: Any) -> "asyncpg.Connection[asyncpg.Record]":
    """One session at the primary, outside any pool, within `CONNECT_WITHIN_S`.

    Raises:
        UnavailableError: The server could not be reached, or none of its hosts takes writes.
        DatabaseRefusedError: It answers, and refuses.
    """
    delay_s, last = _FIRST_DELAY_S, ""
    with anyio.move_on_after(CONNECT_WITHIN_S):
        while True:
            try:
                return await _connect_once(hosts, **options)
            except UnavailableError as error:
                last = str(error)
                if delay_s == _FIRST_DELAY_S:
                    log.info("waiting for the database", error=last)
            await anyio.sleep(delay_s)
            delay_s = min(2.0, delay_s * 2)
    raise UnavailableError(
        f"{last or 'the database does not answer'}; check `database.url`, and that its server runs"
    )


async def _connect_once(hosts: Hosts, **options: Any) -> "asyncpg.Connection[asyncpg.Record]":
    try:
        return await hosts.connect(timeout=_CONNECT_S, **options)
    except SAID as error:
        away = unavailable(error)
        raise (away or refusal(error) or DatabaseError(str(error))) from error
