"""A row that met the attaching of its day is written all the same."""

import asyncio

import asyncpg
import pytest

from tests.contract.store.harness import NOW, spec_of
from tests.contract.store.postgres_harness import PostgresHarness
from tests.integration.postgres.test_guards import blocked

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio]


async def refused(house: PostgresHarness) -> str:
    """What a session that knows nothing of days is told."""
    try:
        await house.owner.execute("INSERT INTO events (at, kind) VALUES ($1, 'x')", NOW)
    except asyncpg.CheckViolationError as error:
        return str(error.table_name)
    return "nothing"


async def test_a_statement_that_met_the_attaching_of_its_day_is_run_again(
    house: PostgresHarness, rival
):
    key = await house.make_job(spec_of("j"))
    async with asyncio.TaskGroup() as tasks, rival.transaction():
        await rival.execute("SELECT make_day('events', $1)", NOW.date())
        plain = tasks.create_task(refused(house))
        ours = tasks.create_task(house.trigger("j"))
        await blocked(house, 2)
    assert plain.result() == "events_other"
    assert ours.result().state == "scheduled"
    assert [row.state for row in await house.executions_of(key)] == ["scheduled"]
    assert [kind for kind, _, _ in await house.events()] == ["triggered"]


async def test_a_transaction_that_met_the_attaching_of_its_day_is_run_again(
    house: PostgresHarness, rival
):
    runs: list[int] = []

    async def work(session) -> None:
        runs.append(1)
        await session.execute("INSERT INTO events (at, kind) VALUES ($1, 'x')", NOW)

    async with asyncio.TaskGroup() as tasks, rival.transaction():
        await rival.execute("SELECT make_day('events', $1)", NOW.date())
        tasks.create_task(house.pool.transact(work))
        await blocked(house)
    assert len(runs) == 2
    assert [kind for kind, _, _ in await house.events()] == ["x"]


async def test_another_check_that_refuses_is_no_race(house: PostgresHarness):
    with pytest.raises(asyncpg.CheckViolationError):
        await house.pool.fetch("UPDATE nodes SET state = 'nonsense'")
