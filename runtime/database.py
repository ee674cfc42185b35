"""The database of a node: its own embedded PostgreSQL or the one that `database.url` names.

Either way: the schema is brought up to this build, one node at a time holds it, and three pools
are opened, of the roles that the schema gives.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Final

import anyio
import asyncpg
import structlog

from protocols.errors import TickwrightError, UnavailableError
from runtime.postgres.embedded import EmbeddedPostgres
from runtime.postgres.embedded.errors import EmbeddedPostgresError
from runtime.postgres.errors import refusal, unavailable
from runtime.postgres.migrate import migrate, schema_state, set_role_passwords
from runtime.postgres.pool import API_ROLE, NODE_ROLE, Pool
from runtime.postgres.sole import SoleNode
from runtime.settings import Settings

log = structlog.get_logger("tickwright.database")

CONNECT_WITHIN_S: Final = 30.0
_FIRST_DELAY_S: Final = 0.1
_SCHEMA_AGAIN_S: Final = 1.0
_HOT: Final = 6
_KEEPING: Final = 3
_API: Final = 8


class DatabaseError(TickwrightError):
    """The embedded database cannot be had; the message says why and what to do."""

    code = "database"
    status = 503


class Database:
    """Open pools: `hot` for timers, dispatchers and workers; `keeping` for all else; `api`."""

    def __init__(self, *, hot: Pool, keeping: Pool, api: Pool, embedded: bool) -> None:
        self.hot = hot
        self.keeping = keeping
        self.api = api
        self.embedded = embedded


async def wait_for_schema(arguments: Mapping[str, Any]) -> None:
    """Wait until somebody has brought the schema up to this build, and the database is there.

    Of several nodes none migrates, since a release that is rolled out would do so half-way.

    Raises:
        TickwrightError: The database refuses us, or its schema is not this build's to use.
    """
    said = ""
    while True:
        try:
            session = await connect(arguments)
            try:
                state = await schema_state(session)
            finally:
                await session.close()
        except UnavailableError as error:
            now = str(error)
        else:
            if state.ready:
                return
            now = f"run `runtime migrate`: the schema lacks {', '.join(state.pending)}"
        if now != said:
            log.warning("waiting for the database", reason=now)
            said = now
        await anyio.sleep(_SCHEMA_AGAIN_S)


async def _alone(settings: Settings, node: Mapping[str, Any], stack: AsyncExitStack) -> None:
    """Migrate, and keep every other node out until the end."""
    await migrate_database({"dsn": settings.database_owner_url or settings.database_url})
    held = {"role": NODE_ROLE, "application_name": f"tickwright {settings.node_name} holder"}
    await stack.enter_async_context(SoleNode(partial(connect, {**node, "server_settings": held})))


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
            node = api = {"dsn": settings.database_url}
            roles = (NODE_ROLE, API_ROLE)
            if settings.clustered:
                await wait_for_schema(node)
            else:
                await _alone(settings, node, stack)
        name = f"tickwright {settings.node_name}"
        hot = Pool(node, name=name, size=_HOT, role=roles[0], pinned=True)
        keeping = Pool(node, name=f"{name} keeping", size=_KEEPING, role=roles[0], pinned=True)
        served = Pool(api, name=f"{name} api", size=_API, role=roles[1])
        for pool in (hot, keeping, served):
            await pool.open(within_s=CONNECT_WITHIN_S)
            stack.push_async_callback(pool.close)
        yield Database(hot=hot, keeping=keeping, api=served, embedded=settings.database_url is None)


async def _embedded(
    settings: Settings, incarnation_name: str, stack: AsyncExitStack
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
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
    await migrate_database({**connection.arguments()}, passwords=(kept.node, kept.api))
    node = connection.as_role(NODE_ROLE, kept.node).arguments()
    api = connection.as_role(API_ROLE, kept.api).arguments()
    return {**node}, {**api}


async def migrate_database(
    owner: Mapping[str, Any], *, passwords: tuple[str, str] | None = None
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


async def connect(arguments: Mapping[str, Any]) -> "asyncpg.Connection[asyncpg.Record]":
    """One session, outside any pool, within `CONNECT_WITHIN_S`.

    Raises:
        UnavailableError: The server could not be reached.
        DatabaseRefusedError: It answers, and refuses.
    """
    delay_s = _FIRST_DELAY_S
    with anyio.move_on_after(CONNECT_WITHIN_S):
        while True:
            try:
                return await asyncpg.connect(**arguments)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                if unavailable(error) is None:
                    raise (refusal(error) or DatabaseError(str(error))) from error
                if delay_s == _FIRST_DELAY_S:
                    log.info("waiting for the database", error=str(error) or type(error).__name__)
            await anyio.sleep(delay_s)
            delay_s = min(2.0, delay_s * 2)
    raise UnavailableError(
        "the database cannot be reached: check `database.url`, and that its server runs"
    )
