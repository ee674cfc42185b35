"""The stores that the conformance suite holds to the port."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.contract.store.harness import StoreHarness
from tests.contract.store.postgres_harness import on_postgres
from tests.support.postgres import Server


@pytest_asyncio.fixture
async def house(postgres_server: Server) -> AsyncIterator[StoreHarness]:
    """Give an empty house on every store there is."""
    async with on_postgres(postgres_server) as harness:
        yield harness
