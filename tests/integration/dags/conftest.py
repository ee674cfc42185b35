"""A database and a folder for nodes that run DAGs, with hosts and clocks and all."""

import inspect
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import anyio
import asyncpg
import pytest_asyncio

from protocols.messages import Ready
from protocols.ports.store import TriggerRequest
from runtime.node import open_node
from runtime.settings import load_settings
from tests.support import dags


class House:
    """A database, a folder and settings for nodes on them."""

    def __init__(self, database, folder: Path) -> None:
        self.database = database
        self.folder = folder

    def settings(self, **options):
        given = self.database
        url = (
            f"postgresql://{given.user}:{quote(given.password)}@/{given.database}"
            f"?host={quote(given.host, safe='')}&port={given.port}"
        )
        return load_settings(
            config=None,
            environment={},
            options={
                "database.url": url,
                "data_dir": str(self.folder / "data"),
                "api.port": 0,
                "tasks.cwd": str(self.folder),
                **options,
            },
            cwd=self.folder,
        )

    @asynccontextmanager
    async def node(self, **options):
        with anyio.fail_after(90):
            async with open_node(self.settings(**options)) as node:
                yield node

    async def sql(self, query: str, *args):
        session = await asyncpg.connect(**self.database.arguments())
        try:
            return await session.fetch(query, *args)
        finally:
            await session.close()

    async def define(self, dag_id: str, *tasks, **fields) -> int:
        session = await asyncpg.connect(**self.database.arguments())
        try:
            return await dags.define(session, dag_id, *tasks, **fields)
        finally:
            await session.close()

    async def run(self, node, dag_id: str, given: bytes | None = None) -> int:
        """Trigger a DAG as a program would; the run."""
        request = TriggerRequest(tenant="default", job_id=dag_id, input=given)
        (answer,) = await node.store.trigger([request], now=node.clock.now())
        node.hints.send(Ready("@dags"))
        return answer.id

    async def ended(self, run: int) -> str:
        """The state of a run's execution, once it is final."""
        found: list = []

        async def is_over():
            found[:] = await self.sql("SELECT state FROM execution_history WHERE id = $1", run)
            return bool(found)

        await until(is_over)
        return found[0]["state"]

    async def states(self, run: int) -> dict[str, str]:
        session = await asyncpg.connect(**self.database.arguments())
        try:
            return await dags.states(session, run)
        finally:
            await session.close()


async def until(true) -> None:
    """Wait for a condition, asked as a plain function or as a coroutine one."""
    with anyio.fail_after(60):
        while True:
            answer = true()
            if await answer if inspect.isawaitable(answer) else answer:
                return
            await anyio.sleep(0.02)


@pytest_asyncio.fixture
async def house(empty_database, tmp_path):
    """Give a database that is empty, for a node to migrate."""
    return House(empty_database, tmp_path)
