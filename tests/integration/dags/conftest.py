"""A database and a folder for nodes that run DAGs, with hosts and clocks and all."""

import asyncpg
import pytest_asyncio

from protocols.messages import Ready
from protocols.ports.store import TriggerRequest
from tests.support import dags
from tests.support.own_node import OwnNodes, until


class House(OwnNodes):
    """Nodes that run DAGs, and what tests ask of these."""

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


@pytest_asyncio.fixture
async def house(empty_database, tmp_path):
    """Give a database that is empty, for a node to migrate."""
    return House(empty_database, tmp_path)
