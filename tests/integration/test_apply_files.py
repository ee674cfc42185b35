"""Files of several tenants are applied together, or not at all."""

from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from runtime.apply import apply_at_start, apply_files
from runtime.files.load import load_texts
from runtime.files.places import InvalidFileError
from runtime.postgres.migrate import migrate
from runtime.postgres.pool import API_ROLE, NODE_ROLE, Pool
from tests.support.postgres import fresh_database

NOW = datetime(2026, 5, 1, tzinfo=UTC)
GOOD = b"tenant: a\njobs: [{job_id: x, command: 'true'}]\n"
ALSO = b"tenant: b\njobs: [{job_id: x, command: 'true'}]\n"
BAD = b"tenant: b\njobs:\n  - {job_id: x, command: 'true', dependencies: [nobody]}\n"


async def migrated(settings) -> None:
    owner = await asyncpg.connect(**settings.arguments())
    try:
        await migrate(owner)
    finally:
        await owner.close()


def files(*texts: bytes):
    named = [(f"{i}.yaml", text) for i, text in enumerate(texts)]
    return load_texts(named, source="both")


async def tenants(node: Pool) -> list[str]:
    rows = await node.fetch("SELECT tenant FROM jobs WHERE deleted_at IS NULL ORDER BY tenant")
    return [row["tenant"] for row in rows]


@pytest.mark.asyncio
async def test_what_is_wrong_for_one_tenant_changes_nothing_for_another(postgres_server):
    async with (
        fresh_database(postgres_server, migrate=migrated) as settings,
        Pool(settings.arguments(), name="api", size=2, role=API_ROLE) as api,
        Pool(settings.arguments(), name="node", size=1, role=NODE_ROLE) as node,
    ):
        with pytest.raises(InvalidFileError, match=r"^1\.yaml:3:49: jobs\[0\]\.dependencies\[0\]"):
            await apply_files(api, files(GOOD, BAD), cwd=Path.cwd(), now=NOW, who="test")
        assert await tenants(node) == []
        done = await apply_files(api, files(GOOD, ALSO), cwd=Path.cwd(), now=NOW, who="test")
        assert {tenant: one.created for tenant, one in done.items()} == {"a": ("x",), "b": ("x",)}
        assert await tenants(node) == ["a", "b"]
        again = await apply_at_start(api, files(GOOD, ALSO), cwd=Path.cwd(), now=NOW)
        assert again == {"a": None, "b": None}


@pytest.mark.asyncio
async def test_a_default_that_is_spelled_out_changes_nothing(postgres_server):
    plain = b"jobs: [{job_id: x, command: 'true', schedule: '0 0 * * *'}]\n"
    told = (
        b"jobs: [{job_id: x, command: 'true', schedule: '0 0 * * *', timezone: UTC,"
        b" overlap: skip, pool: default, guarantee: at_least_once, timeout: 1h}]\n"
    )
    async with (
        fresh_database(postgres_server, migrate=migrated) as settings,
        Pool(settings.arguments(), name="api", size=2, role=API_ROLE) as api,
    ):
        await apply_files(api, files(plain), cwd=Path.cwd(), now=NOW, who="test")
        again = await apply_files(api, files(told), cwd=Path.cwd(), now=NOW, who="test")
        assert (again["default"].unchanged, again["default"].updated) == (("x",), ())


@pytest.mark.asyncio
async def test_a_node_without_kafka_takes_no_job_that_its_records_trigger(postgres_server):
    given = files(GOOD, b"tenant: b\njobs:\n  - {job_id: k, command: a, on: {kafka: {topic: t}}}\n")
    async with (
        fresh_database(postgres_server, migrate=migrated) as settings,
        Pool(settings.arguments(), name="api", size=2, role=API_ROLE) as api,
        Pool(settings.arguments(), name="node", size=1, role=NODE_ROLE) as node,
    ):
        refused = r"^1\.yaml:3:33: jobs\[0\]\.on\[0\]\.kafka: this node has no Kafka"
        with pytest.raises(InvalidFileError, match=refused):
            await apply_files(api, given, cwd=Path.cwd(), now=NOW, who="test")
        with pytest.raises(InvalidFileError, match="this node has no Kafka"):
            await apply_at_start(api, given, cwd=Path.cwd(), now=NOW)
        assert await tenants(node) == []
        await apply_files(api, given, cwd=Path.cwd(), now=NOW, who="test", kafka=True)
        assert await tenants(node) == ["a", "b"]
