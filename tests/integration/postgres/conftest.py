"""The store's house on PostgreSQL, with the superuser's own sessions beside it."""

from collections.abc import AsyncIterator

import asyncpg
import pytest_asyncio

from tests.contract.store.postgres_harness import PostgresHarness, on_postgres
from tests.support.postgres import Server


@pytest_asyncio.fixture
async def house(postgres_server: Server) -> AsyncIterator[PostgresHarness]:
    """Give an empty house."""
    async with on_postgres(postgres_server) as harness:
        yield harness


@pytest_asyncio.fixture
async def rival(house: PostgresHarness) -> AsyncIterator[asyncpg.Connection]:
    """Give a session of somebody else, to hold locks and to write by hand."""
    session = await asyncpg.connect(**house.settings.arguments())
    try:
        yield session
    finally:
        await session.close()
