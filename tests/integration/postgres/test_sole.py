"""The lock that keeps a database to one node, over what may become of the session that holds it."""

from contextlib import asynccontextmanager

import anyio
import asyncpg
import pytest

from runtime.postgres import sole
from tests.support.postgres import fresh_database

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]


async def nothing(_settings) -> None:
    """The lock needs no schema."""


@asynccontextmanager
async def held(postgres_server):
    """Give a database that is held, and the sessions that its holder has made so far."""
    async with fresh_database(postgres_server, migrate=nothing) as settings:
        made = []

        async def connect():
            made.append(await asyncpg.connect(**settings.arguments()))
            return made[-1]

        async with sole.SoleNode(connect):
            yield settings, made


async def ghost_of(settings, held_by) -> asyncpg.Connection:
    """End the holder's session; the lock stays with one that the server has yet to give up."""
    ghost = await asyncpg.connect(**settings.arguments())
    watcher = await asyncpg.connect(**settings.arguments())
    async with anyio.create_task_group() as group:
        group.start_soon(ghost.execute, "SELECT pg_advisory_lock($1)", sole._KEY)
        while not await watcher.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"):
            await anyio.lowlevel.checkpoint()
        held_by.terminate()
    await watcher.close()
    return ghost


async def test_a_lock_that_the_server_is_slow_to_give_up_is_waited_for(
    postgres_server, monkeypatch
):
    monkeypatch.setattr(sole, "_LOOK_S", 0.01)
    async with held(postgres_server) as (settings, made):
        ghost = await ghost_of(settings, made[0])
        refused, taken = anyio.Event(), anyio.Event()
        take = sole._take

        async def tried(session):
            ours = await take(session)
            (taken if ours else refused).set()
            return ours

        monkeypatch.setattr(sole, "_take", tried)
        await refused.wait()
        await ghost.close()
        await taken.wait()
