"""A database is brought to a build's schema once, whole or not at all, or says why not."""

import asyncio

import asyncpg
import pytest

from runtime.postgres.migrate import Migration, SchemaError, migrate, migrations, schema_state
from tests.support.postgres import Server

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio]

_ROLES = (
    "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'tickwright_node') "
    "THEN CREATE ROLE tickwright_node; END IF; IF NOT EXISTS (SELECT FROM pg_roles WHERE "
    "rolname = 'tickwright_api') THEN CREATE ROLE tickwright_api; END IF; END $$;"
)
ONE = Migration(1, "0001_one.sql", f"{_ROLES} CREATE TABLE one ();")
TWO = Migration(2, "0002_two.sql", "CREATE TABLE two ();")
BROKEN = Migration(2, "0002_two.sql", "CREATE TABLE two (); SELECT 1/0;")


@pytest.fixture
def connect(empty_database):
    return lambda **as_: asyncpg.connect(**{**empty_database.arguments(), **as_})


async def test_the_files_are_numbered_without_twins():
    numbers = [migration.number for migration in migrations()]
    assert numbers == sorted(set(numbers))
    assert numbers[0] == 1


async def test_an_empty_database_is_migrated_once(connect):
    owner = await connect()
    before = await schema_state(owner)
    assert (before.current, before.ready) == (0, False)
    assert await migrate(owner) == before.pending
    assert (await schema_state(owner)).ready
    assert await migrate(owner) == ()
    await owner.close()


async def test_two_that_migrate_at_once_do_it_once(connect):
    sessions = [await connect() for _ in range(3)]
    async with asyncio.TaskGroup() as tasks:
        done = [tasks.create_task(migrate(session, files=(ONE, TWO))) for session in sessions]
    names = [name for task in done for name in task.result()]
    assert sorted(names) == [ONE.name, TWO.name]
    for session in sessions:
        await session.close()


async def test_a_migration_that_fails_leaves_those_before_it(connect):
    owner = await connect()
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(owner, files=(ONE, BROKEN))
    assert (await schema_state(owner, files=(ONE, TWO))).pending == (TWO.name,)
    assert await migrate(owner, files=(ONE, TWO)) == (TWO.name,)
    await owner.close()


async def test_a_changed_file_and_a_newer_database_are_told(connect):
    owner = await connect()
    await migrate(owner, files=(ONE, TWO))
    with pytest.raises(SchemaError, match=r"0002_two\.sql was applied with other contents"):
        await schema_state(owner, files=(ONE, BROKEN))
    with pytest.raises(SchemaError, match="upgrade tickwright"):
        await migrate(owner, files=(ONE,))
    await owner.close()


async def test_an_owner_without_the_privilege_is_told_what_to_run(
    postgres_server: Server, empty_database, connect
):
    superuser = await connect()
    await superuser.execute("DROP ROLE IF EXISTS tickwright_test_plain")
    await superuser.execute("CREATE ROLE tickwright_test_plain LOGIN PASSWORD 'p'")
    plain = await connect(user="tickwright_test_plain", password="p")
    try:
        with pytest.raises(SchemaError, match="As a superuser run: ALTER DATABASE") as told:
            await migrate(plain)
        assert "tickwright_test_plain" in str(told.value)
        # What it says is enough, on every release.
        await superuser.execute(
            f"ALTER DATABASE {empty_database.database} OWNER TO tickwright_test_plain; "
            "GRANT CREATE ON SCHEMA public TO tickwright_test_plain; "
            + _ROLES
            + "GRANT tickwright_node, tickwright_api TO tickwright_test_plain"
        )
        assert await migrate(plain) == tuple(m.name for m in migrations())
        async with plain.transaction():
            await plain.execute("SET ROLE tickwright_node")
            assert await plain.fetchval("SELECT count(*) FROM jobs") == 0
    finally:
        await plain.close()
        await superuser.execute("REASSIGN OWNED BY tickwright_test_plain TO CURRENT_USER")
        await superuser.execute("DROP OWNED BY tickwright_test_plain")
        await superuser.execute("DROP ROLE tickwright_test_plain")
        await superuser.close()
