"""Keeps a database to one node, where no coordinator shares it out: a session's advisory lock.

PostgreSQL lets the lock go with the session, so a node that was killed holds nothing, and the
next one knows that every earlier incarnation is dead.
"""

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, NoReturn, Self, TypeAlias

import anyio
import asyncpg
import structlog
from anyio.abc import TaskGroup

from protocols.errors import ConflictError, UnavailableError
from runtime.postgres.errors import DatabaseRefusedError, unavailable

_KEY: Final = 0x7469636B77726768
_WAIT_S: Final = 10.0
_AGAIN_S: Final = 5.0
"""How long the server may take to give up a session of ours that is gone."""
_LOOK_S: Final = 1.0
_ANSWER_S: Final = 30.0
# A machine that lost its power says no farewell, nor does a network: the server looks for itself,
# and lets the lock go before we give up (`_ANSWER_S`), rather than in two hours.
_LOOKED_AFTER: Final = """
SELECT set_config('tcp_keepalives_idle', '5', false),
    set_config('tcp_keepalives_interval', '5', false),
    set_config('tcp_keepalives_count', '3', false),
    set_config('tcp_user_timeout', '20s', false)
"""
_SAID: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # an idle session that was terminated, until its end is read
)
_HOLDER: Final = """
SELECT name, host, pid, incarnation FROM nodes
WHERE state IN ('up', 'draining') ORDER BY last_beat_at DESC LIMIT 1
"""

log = structlog.get_logger("tickwright.database")

Connect: TypeAlias = Callable[[], Awaitable["asyncpg.Connection[asyncpg.Record]"]]


class SoleNode:
    """Holds the lock from `async with` to its end, and takes it again after an outage.

    Entering waits a moment for a former node to end, then raises `ConflictError` naming it. Where
    another node took the lock while this one was cut off, the block is cancelled, and leaving it
    raises `ConflictError`: two nodes that each declare the other dead would do so for ever.

    Args:
        connect: makes a session; raises what a user may be told.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._session: asyncpg.Connection[asyncpg.Record] | None = None
        self._group: TaskGroup | None = None

    async def __aenter__(self) -> Self:
        session = self._session = await self._connect()
        try:
            await session.execute(_LOOKED_AFTER)
            if not await _take_within(session, _WAIT_S):
                await _raise_held(session)
        except BaseException:
            session.terminate()
            raise
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._keep, name="sole node")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        assert self._group is not None
        self._group.cancel_scope.cancel()
        try:
            if isinstance(error, anyio.get_cancelled_exc_class()):
                return await self._group.__aexit__(kind, error, trace)
            # An error that is not the group's would come out wrapped in one.
            await self._group.__aexit__(None, None, None)
            return None
        finally:
            if self._session is not None:
                self._session.terminate()

    async def _keep(self) -> None:
        """Notice when the session is gone, and take the lock again as soon as that can be."""
        while True:
            await anyio.sleep(_LOOK_S)
            session = self._session
            try:
                if session is not None and not session.is_closed():
                    await session.fetchval("SELECT 1", timeout=_ANSWER_S)
                    continue
                self._session = session = await self._connect()
                await session.execute(_LOOKED_AFTER)
                if not await _take_within(session, _AGAIN_S):
                    await _raise_held(session)
                log.info("holding the database again")
            except (DatabaseRefusedError, UnavailableError) as error:
                log.warning("the lock on the database cannot be taken again yet", error=str(error))
            except _SAID as error:
                if session is not None:
                    session.terminate()
                if unavailable(error) is None:
                    raise


async def _raise_held(session: "asyncpg.Connection[asyncpg.Record]") -> NoReturn:
    row = await session.fetchrow(_HOLDER)
    who = f"node {row['name']} (pid {row['pid']} on {row['host']})" if row else "another node"
    raise ConflictError(
        f"{who} holds this database, and without etcd only one node may: stop it first, "
        "or give each node a database of its own"
    )


async def _take_within(session: "asyncpg.Connection[asyncpg.Record]", wait_s: float) -> bool:
    with anyio.move_on_after(wait_s):
        while not await _take(session):  # noqa: ASYNC110 - another node's lock, not ours
            await anyio.sleep(_LOOK_S)
        return True
    return False


async def _take(session: "asyncpg.Connection[asyncpg.Record]") -> bool:
    return bool(await session.fetchval("SELECT pg_try_advisory_lock($1)", _KEY))
