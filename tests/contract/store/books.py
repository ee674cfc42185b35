"""A house with jobs and executions in any state, written by hand, for tests of what keeps it."""
# ruff: noqa: A001, A002 - a row's key is called id everywhere

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import anyio
import asyncpg
import msgspec

from protocols.ports.store import NodeInfo
from runtime.postgres import nodes
from runtime.postgres.migrate import migrate
from runtime.postgres.moves import into_history, logged
from runtime.postgres.pool import NODE_ROLE, Pool

NOW = datetime(2026, 12, 1, 8, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


async def migrated(settings) -> None:
    session = await asyncpg.connect(**settings.arguments())
    try:
        await migrate(session)
    finally:
        await session.close()


class Books:
    """The database as its superuser sees it, beside the pool of a node."""

    def __init__(self, pool: Pool, owner: asyncpg.Pool, settings) -> None:
        self.pool = pool
        self.owner = owner
        self.settings = settings

    @asynccontextmanager
    async def another_node(self) -> AsyncIterator[Pool]:
        async with node_pool(self.settings) as pool:
            yield pool

    async def all(self, query: str, *args):
        return [tuple(row) for row in await self.owner.fetch(query, *args)]

    async def one(self, query: str, *args):
        return await self.owner.fetchval(query, *args)

    async def node(self, name: str = "n", *, alone: bool = False) -> int:
        info = NodeInfo(
            name=name,
            url="http://127.0.0.1:8700",
            pid=1,
            host="h",
            version="0.1",
            level=1,
            pools={"default": 4},
        )
        return await nodes.join(self.pool, info, now=NOW, alone=alone)

    async def silence(self, incarnation: int, seconds: float = 60) -> None:
        await self.owner.execute(
            "UPDATE nodes SET last_beat_at = clock_timestamp() - make_interval(secs => $2) "
            "WHERE incarnation = $1",
            incarnation,
            seconds,
        )

    async def job(self, job_id: str, *, parents=(), triggers=(), paused=False, **spec) -> int:
        """Make a job; `parents` are keys, `triggers` rows (event, parent_key, state, filter)."""
        key = await self.one(
            "INSERT INTO jobs (tenant, job_id, source, version, shard, paused, created_at, "
            "updated_at) VALUES ('default', $1, 's', 1, 0, $2, $3, $3) RETURNING job_key",
            job_id,
            paused,
            NOW,
        )
        body = {"job_id": job_id, "task": {"type": "command", "shell": "true"}, **spec}
        if parents:
            body["dependencies"] = [str(parent) for parent in parents]
        await self.owner.execute(
            "INSERT INTO job_versions (tenant, job_key, version, spec, in_force_at) "
            "VALUES ('default', $1, 1, $2::text::jsonb, $3)",
            key,
            msgspec.json.encode(body).decode(),
            NOW,
        )
        for parent in parents:
            await self.owner.execute(
                "INSERT INTO job_dependencies (tenant, parent_key, child_key) "
                "VALUES ('default', $1, $2)",
                parent,
                key,
            )
        for number, (event, parent, state, wanted) in enumerate(triggers):
            await self.owner.execute(
                "INSERT INTO job_triggers (tenant, job_key, number, event, parent_key, state, "
                "filter) VALUES ('default', $1, $2, $3, $4, $5, $6::text::jsonb)",
                key,
                number,
                event,
                parent,
                state,
                msgspec.json.encode(wanted).decode(),
            )
        return key

    async def schedule(
        self, key: int, *, cursor: datetime = NOW, next_fire_at=None, after_s=None
    ) -> None:
        await self.owner.execute(
            "INSERT INTO schedules (job_key, tenant, shard, version, cursor, next_fire_at, anchor, "
            "after_s) VALUES ($1, 'default', 0, 1, $2, $3, $2, $4)",
            key,
            cursor,
            next_fire_at,
            after_s,
        )

    async def row(self, key: int, *, state: str, when: datetime = NOW, **columns) -> int:
        """Write an execution of a job; of its schedule unless `origin` says otherwise."""
        values = {"run_at": when, "overlap": "skip", "pool": "default", "priority": 2, **columns}
        if state == "running":
            values.setdefault("attempt", 1)
            values.setdefault("started_at", when)
            values.setdefault("fencing_token", await self.one("SELECT nextval('fencing_tokens')"))
        names = ", ".join(values)
        marks = ", ".join(f"${n}" for n in range(5, 5 + len(values)))
        return await self.one(
            "INSERT INTO executions (job_key, state, scheduled_for, created_at, tenant, job_id, "
            f"version, {names}) VALUES ($1, $2, $3, $4, 'default', "
            f"(SELECT job_id FROM jobs WHERE job_key = $1), 1, {marks}) RETURNING id",
            key,
            state,
            when,
            when,
            *values.values(),
        )

    async def blocked(self, key: int, *parents: int, when: datetime = NOW, **spec) -> int:
        """Write an execution that waits for its parents, as a fire does."""
        overlap = spec.get("overlap", "skip")
        id = await self.row(key, state="blocked", when=when, reason="dependency", overlap=overlap)
        await self.owner.executemany(
            "INSERT INTO wait_edges (child_id, parent_key, tenant) VALUES ($1, $2, 'default')",
            [(id, parent) for parent in parents],
        )
        return id

    async def someone_waits(self) -> None:
        """Return once a session waits for a lock."""
        with anyio.fail_after(20):
            while not await self.one(  # noqa: ASYNC110 - a session of the server
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
                "AND datname = current_database()"
            ):
                await anyio.sleep(0.01)

    async def end(self, id: int, state: str, when: datetime = NOW, reason: str | None = None):
        """Make an execution final, as a finish does."""
        await self.owner.execute(
            "WITH gone AS (DELETE FROM executions WHERE id = $1 RETURNING *), history AS ("
            + into_history("gone", state="$2", reason="$3", finished_at="$4")
            + "), told AS ("
            + logged("gone", kind="'finished'", at="$4", states="$2")
            + ") SELECT",
            id,
            state,
            reason,
            when,
        )

    async def ended(self, key: int, state: str, when: datetime = NOW, **columns) -> int:
        """Write an execution that is final already."""
        id = await self.row(key, state="scheduled", when=when, **columns)
        await self.end(id, state, when)
        return id

    async def hot(self, key: int):
        return await self.all(
            "SELECT id, state, reason, holds_turn FROM executions WHERE job_key = $1 ORDER BY id",
            key,
        )

    async def final(self, key: int):
        return await self.all(
            "SELECT id, state, reason FROM execution_history WHERE job_key = $1 ORDER BY id", key
        )

    async def token(self, id: int) -> int:
        return await self.one("SELECT fencing_token FROM executions WHERE id = $1", id)


@asynccontextmanager
async def node_pool(settings, *, size: int = 4) -> AsyncIterator[Pool]:
    async with Pool(
        settings.arguments(), name="test", size=size, role=NODE_ROLE, pinned=True
    ) as pool:
        yield pool
