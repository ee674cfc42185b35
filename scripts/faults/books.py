"""Reads the books behind the nodes' backs: who leads, what is pending, and the whole story."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import asyncpg

from scripts.faults.jobs import key_of
from scripts.faults.story import Epoch, Fire, Row, Tried

_ASK_S: Final = 60.0
_US = "(extract(epoch FROM {0}) * 1000000)::bigint"


def us(column: str) -> str:
    """SQL for an instant as microseconds since 1970."""
    return _US.format(column)


_ROWS: Final = f"""
SELECT execution_id::text AS execution, job_id, origin, {us("scheduled_for")} AS due_us,
    {us("coalesce(last_scheduled_for, scheduled_for)")} AS last_us, state, reason, attempt,
    fencing_token, {us("started_at")} AS started_us, input
FROM all_executions
"""
_TRIED: Final = f"""
SELECT execution_id(a.id, h.created_at)::text AS execution, a.attempt, a.state, a.reason,
    a.fencing_token, {us("a.started_at")} AS started_us
FROM attempts a
JOIN (SELECT id, created_at FROM executions
    UNION ALL SELECT id, created_at FROM execution_history) AS h USING (id)
"""
_FIRES: Final = f"""
SELECT number, epoch, coalesce(newest, epoch) AS newest, moved, {us("at")} AS at_us
FROM chaos.fires WHERE at IS NOT NULL ORDER BY seq
"""
_EPOCHS: Final = f"""
SELECT number, epoch, coalesce(incarnation, 0) AS incarnation, {us("at")} AS at_us
FROM chaos.epochs ORDER BY seq
"""
_ANCHORS: Final = f"""
SELECT j.job_id, {us("v.in_force_at")} AS at_us FROM jobs j
JOIN job_versions v ON v.job_key = j.job_key AND v.version = 1
"""
_LEADERS: Final = """
SELECT l.number, n.name, n.incarnation FROM leaderships l JOIN nodes n USING (incarnation)
ORDER BY l.number
"""
_BEHIND: Final = """
SELECT (SELECT count(*) FROM executions WHERE run_at <= clock_timestamp() + interval '1 second')
    + (SELECT count(*) FROM schedules WHERE NOT paused
        AND (catchup_from IS NOT NULL OR next_fire_at < clock_timestamp() - interval '1 second'))
"""
_SESSIONS: Final = """
SELECT count(*) FILTER (WHERE application_name LIKE 'tickwright%') AS all,
    count(*) FILTER (WHERE application_name LIKE 'tickwright%'
        AND state LIKE 'idle in transaction%'
        AND state_change < clock_timestamp() - interval '2 seconds') AS idle
FROM pg_stat_activity WHERE backend_type = 'client backend'
"""


class Books:
    """One session of the owner's, made again whenever it was lost."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session: asyncpg.Connection | None = None

    async def session(self) -> asyncpg.Connection:
        """The session; raises what asyncpg raises while there is no server."""
        if self._session is None or self._session.is_closed():
            self._session = await asyncpg.connect(self._url, timeout=5.0, command_timeout=_ASK_S)
        return self._session

    async def ask(self, question: str, *values: Any) -> list[asyncpg.Record]:
        """Ask, and ask again where the session was lost, for a minute."""
        async with asyncio.timeout(_ASK_S):
            while True:
                try:
                    return await (await self.session()).fetch(question, *values)
                except (OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError,
                        asyncpg.CannotConnectNowError, TimeoutError,
                        asyncpg.AdminShutdownError, asyncpg.CrashShutdownError):  # fmt: skip
                    self.drop()
                    await asyncio.sleep(0.1)

    async def value(self, question: str, *values: Any) -> Any:
        """Ask for one value."""
        return (await self.ask(question, *values))[0][0]

    def drop(self) -> None:
        """Forget the session."""
        if self._session is not None:
            self._session.terminate()
            self._session = None

    async def leaders(self) -> dict[int, tuple[str, int]]:
        """By leadership: name and incarnation of who took its epoch last."""
        return {row[0]: (row[1], row[2]) for row in await self.ask(_LEADERS)}

    async def behind(self) -> int:
        """How much is due and not done."""
        return int(await self.value(_BEHIND))

    async def sessions(self) -> tuple[int, int]:
        """Sessions of nodes, and how many of them idle in a transaction."""
        (row,) = await self.ask(_SESSIONS)
        return row["all"], row["idle"]

    async def running(self, incarnation: int) -> list[str]:
        """What runs in the name of an incarnation."""
        rows = await self.ask(
            "SELECT execution_id(id, created_at)::text FROM executions "
            "WHERE state = 'running' AND incarnation = $1",
            incarnation,
        )
        return [row[0] for row in rows]

    async def rows(self) -> list[Row]:
        """Every execution."""
        return [
            Row(
                execution=row["execution"],
                job=row["job_id"],
                fired=row["origin"] == 0,
                due_us=row["due_us"],
                last_us=row["last_us"],
                state=row["state"],
                reason=row["reason"],
                attempt=row["attempt"],
                token=row["fencing_token"],
                started_us=row["started_us"],
                key=key_of(row["input"]),
            )
            for row in await self.ask(_ROWS)
        ]

    async def tried(self) -> list[Tried]:
        """Every attempt that has a row of its own."""
        return [
            Tried(
                execution=row["execution"],
                attempt=row["attempt"],
                state=row["state"],
                reason=row["reason"],
                token=row["fencing_token"],
                started_us=row["started_us"],
            )
            for row in await self.ask(_TRIED)
        ]

    async def fires(self) -> list[Fire]:
        """Every commit of a leader, in order."""
        return [Fire(*row) for row in await self.ask(_FIRES)]

    async def epochs(self) -> list[Epoch]:
        """Every epoch taken, in order."""
        return [Epoch(*row) for row in await self.ask(_EPOCHS)]

    async def names(self) -> dict[int, str]:
        """Of the nodes, by incarnation."""
        return {row[0]: row[1] for row in await self.ask("SELECT incarnation, name FROM nodes")}

    async def anchors(self) -> dict[str, int]:
        """When each job was first applied."""
        return {row[0]: row[1] for row in await self.ask(_ANCHORS)}
