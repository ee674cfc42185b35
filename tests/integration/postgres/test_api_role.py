"""What is triggered by a request is written by the API's role, which sees its tenant alone."""

from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from protocols.errors import KeyReusedError, NotFoundError
from protocols.ports.store import Triggered, TriggerRequest
from runtime.postgres.pool import API_ROLE, Pool
from runtime.postgres.trigger import trigger
from tests.contract.store.harness import NOW, spec_of
from tests.contract.store.postgres_harness import PostgresHarness

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio]


@pytest_asyncio.fixture
async def api(house: PostgresHarness) -> AsyncIterator[Pool]:
    """Give the pool that HTTP handlers hold."""
    async with Pool(house.settings.arguments(), name="api", size=2, role=API_ROLE) as pool:
        yield pool


async def ask(api: Pool, tenant: str, *requests: TriggerRequest):
    async with api.transaction() as session:
        await session.execute("SELECT set_config('tickwright.tenant', $1, true)", tenant)
        return await trigger(session, requests, now=NOW)


@pytest.mark.parametrize("overlap", ["allow", "skip", "queue", "cancel_running"])
async def test_a_request_triggers_in_its_tenant(house: PostgresHarness, api: Pool, overlap: str):
    key = await house.make_job(spec_of("j", overlap=overlap, concurrency_limit=2))
    request = TriggerRequest(tenant="default", job_id="j", key="k", body_hash=b"1")
    for known in (False, True):
        (answer,) = await ask(api, "default", request)
        assert isinstance(answer, Triggered)
        assert answer.known is known
    other = TriggerRequest(tenant="default", job_id="j", key="k", body_hash=b"2")
    (reused,) = await ask(api, "default", other)
    assert isinstance(reused, KeyReusedError)
    plain = TriggerRequest(tenant="default", job_id="j")
    assert len(await ask(api, "default", plain, plain)) == 2
    assert len(await house.executions_of(key)) == 3


async def test_another_tenants_jobs_are_not_there(house: PostgresHarness, api: Pool):
    key = await house.make_job(spec_of("j"))
    for request in (
        TriggerRequest(tenant="default", job_id="j"),
        TriggerRequest(tenant="default", job_key=key),
    ):
        (answer,) = await ask(api, "other", request)
        assert isinstance(answer, NotFoundError)
    assert await house.executions_of(key) == []


async def test_the_api_cannot_take_an_epoch_or_join_as_a_node(house: PostgresHarness, api: Pool):
    for statement in (
        "UPDATE leaderships SET epoch = epoch + 1",
        "UPDATE leaderships SET incarnation = 1",
        "DELETE FROM leaderships",
        "UPDATE nodes SET state = 'dead'",
        "UPDATE house SET tzdata_version = ''",
        "DELETE FROM house",
        "INSERT INTO nodes (name) VALUES ('x')",
        "SELECT FROM event_readers",
        "SELECT make_day('events', '2026-01-01')",
        "SELECT nextval('fencing_tokens')",
        "INSERT INTO leaderships (number) VALUES (9)",
        "DELETE FROM nodes",
        "UPDATE nodes SET last_beat_at = now()",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await api.fetch(statement)


async def test_without_a_tenant_nothing_is_seen(house: PostgresHarness, api: Pool):
    await house.make_job(spec_of("j"))
    await house.trigger("j")
    for table in ("jobs", "job_versions", "executions", "execution_history", "events"):
        assert await api.fetch(f"SELECT FROM {table}") == []


TABLES = """
SELECT c.relname AS name, c.relispartition AS parted,
    coalesce(bool_or(a.attname = 'tenant'), false) AS of_a_tenant
FROM pg_class c
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
GROUP BY 1, 2 ORDER BY 1
"""
OF_THE_HOUSE = {"house", "leaderships", "nodes", "event_readers", "outbox", "schema_migrations"}


NARROWER = {"locks", "lock_waits"}
"""Tables of a tenant that the API's role may not do everything with, whosever rows they are."""


async def may_all(house: PostgresHarness, table: str) -> bool:
    """Whether the API's role may read, change and delete what it is shown of a table."""
    return await house.owner.fetchval(
        "SELECT bool_and(has_table_privilege('tickwright_api', $1, wanted))"
        " FROM unnest(ARRAY['SELECT', 'UPDATE', 'DELETE']) AS wanted",
        table,
    )


async def one_row_of(house: PostgresHarness, table: str, tenant: str) -> None:
    """Write a row with this tenant and something in every other column that must not be null."""
    columns = await house.owner.fetch(
        "SELECT attname AS name, format_type(atttypid, NULL) AS type FROM pg_attribute "
        "WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped AND attnotnull "
        "AND attgenerated = '' AND attidentity = '' AND attname <> 'tenant'",
        table,
    )
    something = {
        "jsonb": "'{}'", "text": "'blocked'", "bytea": "''", "timestamp with time zone": "now()",
        "boolean": "false", "text[]": "'{}'", "bigint[]": "'{}'", "xid8": "'0'",
    }  # fmt: skip
    special = {
        "execution_history.state": "'skipped'",
        "attempts.state": "'lost'",
        "job_versions.spec": '\'{"job_id": "j"}\'',
        "job_triggers.event": "'e'",
        "dag_versions.on_failure": "'continue'",
        "dag_version_tasks.trigger": "'always'",
        "dag_version_tasks.role": "'task'",
        "dag_runs.state": "'running'",
        "dag_runs.handlers": "'none'",
    }
    values = {
        "tenant": f"'{tenant}'",
        **{row["name"]: something.get(row["type"], "7") for row in columns},
        **{key.split(".")[1]: text for key, text in special.items() if key.startswith(f"{table}.")},
    }
    async with house.owner.acquire() as session, session.transaction():
        await session.execute("SET LOCAL session_replication_role = replica")
        await session.execute(
            f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join(values.values())})"
        )


async def test_a_tenant_sees_and_changes_nothing_of_another_in_any_table(
    house: PostgresHarness, api: Pool
):
    tables = await house.owner.fetch(TABLES)
    assert {row["name"] for row in tables if not row["of_a_tenant"]} == OF_THE_HOUSE
    mine = [row["name"] for row in tables if row["of_a_tenant"] and not row["parted"]]
    assert len(mine) > 15
    kept_from = {table for table in mine if not await may_all(house, table)}
    assert kept_from == NARROWER
    for table in mine:
        await one_row_of(house, table, "b")
        for tenant in ("a", "", None, "b") if table not in kept_from else ():
            seen = int(tenant == "b")
            async with api.transaction() as session:
                if tenant is not None:
                    await session.execute(
                        "SELECT set_config('tickwright.tenant', $1, true)", tenant
                    )
                assert await session.fetchval(f"SELECT count(*) FROM {table}") == seen, table
                changed = await session.execute(f"UPDATE {table} SET tenant = tenant")
                assert changed == f"UPDATE {seen}", table
                if not seen:
                    gone = await session.execute(f"DELETE FROM {table}")
                    assert gone == "DELETE 0", table
        for tenant in ("a", None):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await write_as(api, tenant, table)
        assert await house.owner.fetchval(f"SELECT count(*) FROM {table}") == 1, table


async def write_as(api: Pool, tenant: str | None, table: str) -> None:
    """Try to write a row for the other tenant."""
    async with api.transaction() as session:
        if tenant is not None:
            await session.execute("SELECT set_config('tickwright.tenant', $1, true)", tenant)
        await session.execute(f"INSERT INTO {table} (tenant) VALUES ('b')")


async def test_no_partition_is_open_beside_its_parent(house: PostgresHarness, api: Pool):
    await house.owner.execute("SELECT make_day('events', '2026-12-01')")
    parts = [row["name"] for row in await house.owner.fetch(TABLES) if row["parted"]]
    assert "events_20261201" in parts
    for part in parts:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await api.fetch(f"SELECT FROM {part}")
