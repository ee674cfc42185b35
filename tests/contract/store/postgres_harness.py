"""The conformance suite's house on a real PostgreSQL, read and set up by its superuser."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

import asyncpg
import msgspec

from protocols.jobs import JobSpec
from protocols.ports.store import Claimed
from runtime.postgres.migrate import migrate
from runtime.postgres.pool import NODE_ROLE, Pool
from runtime.postgres.store import PostgresStore
from tests.contract.store.harness import NOW, Attempt, Execution, StoreHarness
from tests.support.postgres import Server, fresh_database

_COLUMNS = (
    "id, state, reason, scheduled_for, origin, attempt, failures, losses, priority, pool, input"
)


async def migrated(settings) -> None:
    session = await asyncpg.connect(**settings.arguments())
    try:
        await migrate(session)
    finally:
        await session.close()


@asynccontextmanager
async def on_postgres(server: Server) -> AsyncIterator["PostgresHarness"]:
    """A migrated database, a node's pool on it, and the superuser's sessions beside."""
    async with fresh_database(server, migrate=migrated) as settings:
        owner = await asyncpg.create_pool(**settings.arguments(), min_size=0, max_size=4)
        try:
            async with Pool(
                settings.arguments(), name="tests", size=12, role=NODE_ROLE, pinned=True
            ) as pool:
                harness = PostgresHarness(pool, owner, settings)
                harness.node = await harness.enter()
                yield harness
        finally:
            await owner.close()


class PostgresHarness(StoreHarness):
    def __init__(self, pool: Pool, owner: asyncpg.Pool, settings) -> None:
        self.pool = pool
        self.owner = owner
        self.settings = settings
        self.store = PostgresStore(hot=pool, keeping=pool)

    async def enter(self) -> int:
        return await self.owner.fetchval(
            "INSERT INTO nodes (name, url, pid, host, version, started_at, last_beat_at) "
            "VALUES ('n', '', 1, 'h', '0', $1, $1) RETURNING incarnation",
            NOW,
        )

    async def make_job(
        self,
        spec: JobSpec,
        *,
        next_fire_at: datetime | None = None,
        cursor: datetime = NOW,
        after_s: float | None = None,
        paused: bool = False,
        parents: Sequence[int] = (),
        version: int = 1,
    ) -> int:
        async with self.owner.acquire() as session, session.transaction():
            key = await session.fetchval(
                "INSERT INTO jobs (tenant, job_id, source, version, shard, paused, created_at, "
                "updated_at) VALUES ($1, $2, 's', $3, 0, $5, $4, $4)"
                " ON CONFLICT (tenant, job_id) WHERE deleted_at IS NULL"
                " DO UPDATE SET version = excluded.version RETURNING job_key",
                spec.tenant,
                spec.job_id,
                version,
                NOW,
                paused,
            )
            await session.execute(
                "INSERT INTO job_versions (tenant, job_key, version, spec, in_force_at) "
                "VALUES ($1, $2, $3, $4::text::jsonb, $5)",
                spec.tenant,
                key,
                version,
                msgspec.json.encode(spec).decode(),
                NOW,
            )
            await session.execute(
                "INSERT INTO schedules (job_key, tenant, shard, version, cursor, next_fire_at, "
                "anchor, after_s, paused) VALUES ($1, $2, 0, $3, $4, $5, $4, $6, $7) "
                "ON CONFLICT (job_key) DO UPDATE SET version = excluded.version",
                key,
                spec.tenant,
                version,
                cursor,
                next_fire_at,
                after_s,
                paused,
            )
            await session.executemany(
                "INSERT INTO job_dependencies (tenant, parent_key, child_key) VALUES ($1, $2, $3)",
                [(spec.tenant, parent, key) for parent in parents],
            )
        return key

    async def executions_of(self, job_key: int) -> list[Execution]:
        hot = await self.owner.fetch(
            f"SELECT {_COLUMNS}, run_at, holds_turn, cancel_requested, expires_at "
            "FROM executions WHERE job_key = $1",
            job_key,
        )
        final = await self.owner.fetch(
            f"SELECT {_COLUMNS}, finished_at, exit_code, error, result, instants, "
            "last_scheduled_for FROM execution_history WHERE job_key = $1",
            job_key,
        )
        rows = [Execution(**dict(row)) for row in (*hot, *final)]
        return sorted(rows, key=lambda row: row.id)

    async def attempts_of(self, execution: int) -> list[Attempt]:
        rows = await self.owner.fetch(
            "SELECT attempt, state, exit_code, error FROM attempts WHERE id = $1 ORDER BY attempt",
            execution,
        )
        return [Attempt(**dict(row)) for row in rows]

    async def outputs_of(self, execution: int) -> list[tuple[int, bytes, bytes, int]]:
        rows = await self.owner.fetch(
            "SELECT attempt, head, tail, omitted_bytes FROM outputs WHERE id = $1 ORDER BY 1",
            execution,
        )
        return [tuple(row) for row in rows]

    async def schedule_of(self, job_key: int) -> tuple[datetime, datetime | None]:
        row = await self.owner.fetchrow(
            "SELECT cursor, next_fire_at FROM schedules WHERE job_key = $1", job_key
        )
        return row["cursor"], row["next_fire_at"]

    async def parents_of(self, execution: int) -> list[int]:
        rows = await self.owner.fetch(
            "SELECT parent_key FROM wait_edges WHERE child_id = $1 ORDER BY 1", execution
        )
        return [row[0] for row in rows]

    async def holders_of(self, job_key: int) -> list[int]:
        held = await self.owner.fetchval(
            "SELECT holders FROM limits WHERE limit_key = $1", f"job:{job_key}"
        )
        return sorted(held)

    async def keep(self, claimed: Claimed, *, checkpoint: bytes, once: str) -> None:
        await self.owner.execute(
            "INSERT INTO checkpoints VALUES ('default', $1, $2, $3, $4, $5)",
            claimed.job_key,
            claimed.id,
            checkpoint,
            claimed.fencing_token,
            NOW,
        )
        await self.owner.execute(
            "INSERT INTO once_keys VALUES ('default', $1, $2, $3, 60)",
            once,
            claimed.id,
            claimed.fencing_token,
        )
        await self.owner.execute("UPDATE executions SET keeps = true WHERE id = $1", claimed.id)

    async def kept_of(self, claimed: Claimed) -> tuple[bool, bool]:
        row = await self.owner.fetchrow(
            "SELECT EXISTS (SELECT FROM checkpoints WHERE execution = $1), "
            "EXISTS (SELECT FROM once_keys WHERE execution = $1 AND expires_at IS NULL)",
            claimed.id,
        )
        return row[0], row[1]

    async def request_cancel(self, execution: int) -> None:
        await self.owner.execute(
            "UPDATE executions SET cancel_requested = true WHERE id = $1", execution
        )

    async def pause(self, *, house: bool = False, leadership: bool = False) -> None:
        await self.owner.execute("UPDATE house SET paused = $1", house)
        await self.owner.execute("UPDATE leaderships SET paused = $1", leadership)

    async def reshard(self, leaderships: int) -> None:
        await self.owner.execute("SELECT reshard($1)", leaderships)

    async def end_node(self, state: str) -> None:
        await self.owner.execute(
            "UPDATE nodes SET state = $2 WHERE incarnation = $1", self.node, state
        )

    async def silence(self, incarnation: int, seconds: float = 60) -> None:
        await self.owner.execute(
            "UPDATE nodes SET last_beat_at = clock_timestamp() - make_interval(secs => $2) "
            "WHERE incarnation = $1",
            incarnation,
            seconds,
        )

    async def events(self) -> list[tuple[str, list[int], list[str]]]:
        rows = await self.owner.fetch("SELECT kind, ids, states FROM events ORDER BY xid, number")
        return [tuple(row) for row in rows]
