"""A migrated database, as the API sees it: its role, and a tenant set in each transaction."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest_asyncio

from protocols.jobs import CommandTask, JobSpec
from protocols.schedules import Schedule
from runtime.postgres.definitions.apply import apply
from runtime.postgres.migrate import migrate
from runtime.postgres.operations.session import transact
from runtime.postgres.pool import API_ROLE, NODE_ROLE, Pool
from tests.support.postgres import fresh_database

NOW = datetime(2026, 12, 1, 8, 0, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """An instant so many seconds after NOW."""
    return NOW + timedelta(seconds=seconds)


def cron(expression: str, **fields) -> Schedule:
    return Schedule(kind="cron", text=expression, cron=expression, **fields)


def every(seconds: float, **fields) -> Schedule:
    return Schedule(kind="every", text=f"@every {seconds}s", interval_s=seconds, **fields)


def job(job_id: str, schedule: Schedule | None = None, **fields) -> JobSpec:
    return JobSpec(job_id=job_id, task=CommandTask(shell="true"), schedule=schedule, **fields)


class World:
    """A database with its pools, and the few lines that tests say all the time."""

    def __init__(self, *, api: Pool, node: Pool, hot: Pool) -> None:
        self.api = api
        self.node = node
        self.hot = hot
        self.tenant = "default"

    async def do(self, work, **kwargs):
        """One request: `work(conn, tenant=..., **kwargs)` in its transaction."""
        return await transact(
            self.api, self.tenant, lambda conn: work(conn, tenant=self.tenant, **kwargs)
        )

    async def apply(self, *jobs, source="files", now=NOW, calendars=None, **options):
        return await self.do(
            apply,
            source=source,
            jobs=jobs,
            calendars=calendars or {},
            content_hash=b"#",
            now=now,
            who="tests",
            **options,
        )

    async def rows(self, query: str, *args):
        """What the node's role sees: every tenant."""
        return [dict(row) for row in await self.node.fetch(query, *args)]

    async def one(self, query: str, *args):
        (row,) = await self.rows(query, *args)
        return row

    async def schedule(self, job_id: str):
        return await self.one(
            "SELECT s.* FROM schedules s JOIN jobs j USING (job_key)"
            " WHERE j.job_id = $1 AND j.deleted_at IS NULL",
            job_id,
        )


async def _migrated(settings) -> None:
    owner = await asyncpg.connect(**settings.arguments())
    try:
        await migrate(owner)
    finally:
        await owner.close()


@asynccontextmanager
async def world_of(server) -> AsyncIterator[World]:
    async with (
        fresh_database(server, migrate=_migrated) as settings,
        Pool(settings.arguments(), name="api", size=4, role=API_ROLE) as api,
        Pool(settings.arguments(), name="node", size=2, role=NODE_ROLE) as node,
        Pool(settings.arguments(), name="hot", size=2, role=NODE_ROLE, pinned=True) as hot,
    ):
        yield World(api=api, node=node, hot=hot)


@pytest_asyncio.fixture
async def world(postgres_server) -> AsyncIterator[World]:
    async with world_of(postgres_server) as made:
        yield made
