"""Keeps a database to one node, where no coordinator shares it out: a session's advisory lock.

PostgreSQL lets the lock go with the session, so a node that was killed holds nothing, and the
next one knows that every earlier incarnation is dead.
"""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

import anyio
import asyncpg
import structlog
from anyio.abc import TaskGroup

from protocols.errors import ConflictError
from runtime.postgres.errors import unavailable

_KEY: Final = 0x7469636B77726768
_WAIT_S: Final = 10.0
_LOOK_S: Final = 1.0
_HOLDER: Final = """
SELECT name, host, pid, incarnation FROM nodes
WHERE state IN ('up', 'draining') ORDER BY last_beat_at DESC LIMIT 1
"""

log = structlog.get_logger("tickwright.database")


class SoleNode:
    """Holds the lock from `async with` to its end, and takes it again after an outage.

    Entering waits a moment for a former node to end, then raises `ConflictError` naming it.
    `lost` is set where another node took the lock while this one was cut off.
    """

    def __init__(self, arguments: Mapping[str, Any], *, role: str, name: str) -> None:
        self._arguments = {
            **arguments,
            "server_settings": {"role": role, "application_name": f"tickwright {name} holder"},
        }
        self._session: asyncpg.Connection[asyncpg.Record] | None = None
        self._group: TaskGroup | None = None
        self.lost = anyio.Event()

    async def __aenter__(self) -> Self:
        session = await asyncpg.connect(**self._arguments)
        self._session = session
        try:
            if await _take_within(session, _WAIT_S):
                self._group = anyio.create_task_group()
                await self._group.__aenter__()
                self._group.start_soon(self._keep, name="sole node")
                return self
            row = await session.fetchrow(_HOLDER)
        except BaseException:
            session.terminate()
            raise
        session.terminate()
        who = f"node {row['name']} (pid {row['pid']} on {row['host']})" if row else "another node"
        raise ConflictError(
            f"{who} holds this database, and without etcd only one node may: stop it first, "
            "or give each node a database of its own"
        )

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._group is not None:
            self._group.cancel_scope.cancel()
            await self._group.__aexit__(None, None, None)
        if self._session is not None:
            self._session.terminate()

    async def _keep(self) -> None:
        """Notice when the session is gone, and take the lock again as soon as that can be."""
        while not self.lost.is_set():
            await anyio.sleep(_LOOK_S)
            session = self._session
            try:
                if session is not None and not session.is_closed():
                    await session.fetchval("SELECT 1", timeout=30)
                    continue
                self._session = session = await asyncpg.connect(**self._arguments)
                if not await _take(session):
                    log.error("another node took this database while it could not be reached")
                    self.lost.set()
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                if unavailable(error) is None:
                    raise
                if session is not None:
                    session.terminate()


async def _take_within(session: "asyncpg.Connection[asyncpg.Record]", wait_s: float) -> bool:
    with anyio.move_on_after(wait_s):
        while not await _take(session):  # noqa: ASYNC110 - another node's lock, not ours
            await anyio.sleep(_LOOK_S)
        return True
    return False


async def _take(session: "asyncpg.Connection[asyncpg.Record]") -> bool:
    return bool(await session.fetchval("SELECT pg_try_advisory_lock($1)", _KEY))
