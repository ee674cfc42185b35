"""Fixtures for the tests that hold PostgreSQL to the ports."""

from collections.abc import AsyncIterator

import asyncpg
import pytest_asyncio

from tests.contract.store.books import Books, migrated, node_pool
from tests.support.postgres import fresh_database


@pytest_asyncio.fixture
async def books(postgres_server) -> AsyncIterator[Books]:
    """Give a migrated database, and a node's pool on it."""
    async with fresh_database(postgres_server, migrate=migrated) as settings:
        owner = await asyncpg.create_pool(**settings.arguments(), min_size=0, max_size=4)
        async with node_pool(settings) as pool:
            yield Books(pool, owner, settings)
        await owner.close()
