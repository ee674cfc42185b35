"""A pool outlives its connections, tells outages from refusals, and leaves none behind."""

import asyncio
import os
from collections.abc import Iterator

import anyio
import asyncpg
import pytest

from protocols.errors import UnavailableError
from runtime.postgres.errors import DatabaseRefusedError
from runtime.postgres.migrate import migrate, set_role_passwords
from runtime.postgres.pool import API_ROLE, NODE_ROLE, Pool
from tests.contract.store.postgres_harness import PostgresHarness
from tests.integration.postgres.test_guards import blocked
from tests.support.postgres import EXISTING, Server, Throwaway

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio]

_ASLEEP = "SELECT count(*)::int FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
_CUT = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'tests'
"""


async def test_a_pool_acts_as_its_role_by_the_owners_login(house: PostgresHarness):
    (row,) = await house.pool.fetch(
        "SELECT current_user, session_user, current_setting('plan_cache_mode') AS plans"
    )
    assert (row["current_user"], row["plans"]) == (NODE_ROLE, "force_generic_plan")
    assert row["session_user"] != NODE_ROLE


async def test_a_pool_mends_itself_after_every_connection_was_cut(house: PostgresHarness, rival):
    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(house.pool.fetch, "SELECT pg_sleep(0.01)")
    assert house.pool.health().degraded_for_s is None
    assert house.pool.health().connections == 4

    await rival.fetch(_CUT)
    async with asyncio.timeout(20):
        while True:  # a cut is known when the loop has read of it
            try:
                await house.pool.fetch("SELECT 1")
                break
            except UnavailableError:
                assert house.pool.health().degraded_for_s is not None
    assert house.pool.health().degraded_for_s is None


async def test_a_cancelled_statement_leaves_its_connection_fit(house: PostgresHarness, rival):
    async with Pool(house.settings.arguments(), name="one", size=1, role=NODE_ROLE) as pool:
        with anyio.move_on_after(0.2) as scope:
            await pool.fetch("SELECT pg_sleep(60)")
        assert scope.cancelled_caught
        assert (await pool.fetch("SELECT 1"))[0][0] == 1
        running = await rival.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'one' "
            "AND query LIKE '%pg_sleep(60)%' AND state = 'active'"
        )
        assert running == 0


async def test_closing_waits_for_the_statement_under_way(house: PostgresHarness, rival):
    pool = Pool(house.settings.arguments(), name="one", size=1, role=NODE_ROLE)
    await pool.open(within_s=5)
    async with rival.transaction(), asyncio.TaskGroup() as tasks:
        await rival.execute("LOCK TABLE house")
        under_way = tasks.create_task(pool.fetch("SELECT paused FROM house"))
        await blocked(house)
        closing = tasks.create_task(pool.close())
        await rival.execute("COMMIT; BEGIN")
        await closing
    assert under_way.result()[0][0] is False
    with pytest.raises(UnavailableError, match="closed"):
        await pool.fetch("SELECT 1")


async def test_a_failed_transaction_leaves_nothing(house: PostgresHarness):
    async def fail() -> None:
        async with house.pool.transaction() as session:
            await session.execute("UPDATE house SET paused = true")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert (await house.pool.fetch("SELECT paused FROM house"))[0][0] is False


async def test_what_refuses_for_good_is_told_apart_from_what_is_away(house: PostgresHarness):
    wrong = {**house.settings.arguments(), "password": "wrong"}
    with pytest.raises(DatabaseRefusedError) as refused:
        await Pool(wrong, name="x", size=1).open(within_s=5)
    assert "wrong" not in str(refused.value).replace("wrong password", "")
    stranger = Pool(house.settings.arguments(), name="x", size=1, role="nobody_here")
    with pytest.raises(DatabaseRefusedError, match="runtime migrate"):
        await stranger.open(within_s=5)
    away = {**house.settings.arguments(), "host": "/nonexistent"}
    with pytest.raises(UnavailableError):
        await Pool(away, name="x", size=1).open(within_s=0.1)


async def test_a_standby_is_no_place_to_write(house: PostgresHarness):
    async with Pool(house.settings.arguments(), name="x", size=1) as pool:
        await pool.fetch("SELECT set_config('transaction_read_only', 'on', false)")
        await pool.fetch("SELECT set_config('default_transaction_read_only', 'on', false)")
        with pytest.raises(UnavailableError):
            await pool.fetch("UPDATE house SET paused = true")
        await pool.fetch("UPDATE house SET paused = paused")  # on a session of its own making


async def test_the_roles_log_in_by_their_passwords(postgres_server: Server, empty_database):
    owner = await asyncpg.connect(**empty_database.arguments())
    try:
        await migrate(owner)
        await set_role_passwords(owner, node="it's \\ one", api="two")
        for role, password in ((NODE_ROLE, "it's \\ one"), (API_ROLE, "two")):
            settings = empty_database.as_role(role, password)
            async with Pool(settings.arguments(), name="x", size=1) as pool:
                assert (await pool.fetch("SELECT current_user"))[0][0] == role
    finally:
        for role in (NODE_ROLE, API_ROLE):
            await owner.execute(f"ALTER ROLE {role} NOLOGIN PASSWORD NULL")
        await owner.close()


@pytest.fixture
def own_server(postgres_flavour: str) -> Iterator[tuple[Throwaway, Server]]:
    """Give a server of the test's own, to be killed."""
    if postgres_flavour == "system" and os.environ.get(EXISTING):
        pytest.skip("that server is not ours to kill")
    owner = Throwaway(postgres_flavour)
    with owner as server:
        yield owner, server


async def test_a_pool_outlives_its_server(own_server: tuple[Throwaway, Server]):
    owner, server = own_server

    async def sleep(pool: Pool) -> str:
        try:
            await pool.fetch("SELECT pg_sleep(60)")
        except UnavailableError:
            return "unavailable"
        return "slept"

    async with Pool(server.settings.arguments(), name="one", size=4) as pool:
        async with asyncio.TaskGroup() as tasks:
            under_way = [tasks.create_task(sleep(pool)) for _ in range(3)]
            async with asyncio.timeout(20):
                while (await pool.fetch(_ASLEEP))[0][0] < 3:
                    pass
            owner.kill()
        assert [task.result() for task in under_way] == ["unavailable"] * 3
        for _ in range(6):
            with pytest.raises(UnavailableError):
                await pool.fetch("SELECT 1")
            with pytest.raises(UnavailableError):
                async with pool.transaction() as session:
                    await session.execute("SELECT 1")
        assert pool.health().degraded_for_s is not None
        await owner.start_again(server.settings)
        async with asyncio.TaskGroup() as tasks:
            answers = [tasks.create_task(pool.fetch("SELECT 1")) for _ in range(8)]
        assert [task.result()[0][0] for task in answers] == [1] * 8
        assert pool.health().degraded_for_s is None
        assert pool.health().connections <= 4
