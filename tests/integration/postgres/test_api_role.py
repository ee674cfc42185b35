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
