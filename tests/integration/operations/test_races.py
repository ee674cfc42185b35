"""What two people ask at once happens once, and a timer or a claim in between loses nothing."""

import asyncio

import pytest

from protocols.errors import ConflictError
from runtime.postgres.definitions.jobs import create_job, replace_job
from runtime.postgres.operations.backfill import backfill
from runtime.postgres.operations.cancel import cancel_execution
from runtime.postgres.operations.reopen import replay_dead_letters, retry_execution
from tests.integration.operations.conftest import NOW, at, cron, every, job
from tests.integration.operations.helpers import hot, over

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]
WHO = {"who": "tests"}


async def at_once(*asked):
    """The answers, an exception of ours standing for itself."""

    async def told(one):
        try:
            return await one
        except ConflictError as error:
            return error

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(told(one)) for one in asked]
    return [task.result() for task in tasks]


def refused(answers):
    return sum(isinstance(answer, ConflictError) for answer in answers)


async def test_one_of_many_retries_wins(world):
    await world.apply(job("a"))
    public_id = await over(world, "a", 0, "dead")
    answers = await at_once(
        *(world.do(retry_execution, execution=public_id, now=at(9), **WHO) for _ in range(4))
    )
    assert refused(answers) == 3
    assert await world.one("SELECT run FROM executions") == {"run": 2}


async def test_retries_of_one_job_take_its_turn_once(world):
    await world.apply(job("a"))
    dead = [await over(world, "a", n, "dead") for n in range(6)]
    answers = await at_once(
        *(world.do(retry_execution, execution=one, now=at(9), **WHO) for one in dead)
    )
    assert refused(answers) == 0
    rows = await world.rows("SELECT state, holds_turn FROM executions ORDER BY state")
    assert [tuple(row.values()) for row in rows] == [("blocked", False)] * 5 + [("scheduled", True)]


async def test_replays_and_backfills_at_once_make_one_row_an_instant(world):
    await world.apply(job("a", cron("* * * * *"), overlap="allow"), now=at(-1))
    await world.node.fetch("UPDATE schedules SET cursor = $1", at(1200))
    for n in range(0, 20, 2):
        await over(world, "a", n * 60, "dead")
    span = {"job_id": "a", "first": at(0), "until": at(1199), "now": at(1300), **WHO}
    await at_once(
        world.do(backfill, **span),
        world.do(backfill, **span),
        world.do(replay_dead_letters, asked_at=at(1300), now=at(1300), **WHO),
    )
    row = await world.one(
        "SELECT count(*)::int AS n, count(DISTINCT scheduled_for)::int AS instants, max(run) AS run"
        " FROM all_executions"
    )
    assert row == {"n": 20, "instants": 20, "run": 2}


async def test_a_claim_in_between_turns_a_cancel_into_a_request(world):
    await world.apply(job("a"))
    public_id = await hot(world, "a", 0)
    async with world.node.transaction() as claim:
        await claim.execute(
            "UPDATE executions SET state = 'running', fencing_token = 3, incarnation = 1,"
            " attempt = 1, started_at = $1",
            at(1),
        )
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(
                world.do(cancel_execution, execution=public_id, now=at(1), **WHO)
            )
            await _waits_for_a_lock(world)
            await claim.execute("COMMIT")
            await claim.execute("BEGIN")
    assert asked.result().asked[2] == 3


async def test_a_fire_in_between_is_seen_by_the_apply_that_waited_for_it(world):
    await world.apply(job("a", cron("* * * * *"), overlap="allow"))
    async with world.node.transaction() as fire:
        await fire.execute("UPDATE schedules SET cursor = $1, next_fire_at = $2", at(60), at(120))
        async with asyncio.TaskGroup() as group:
            group.create_task(world.apply(job("a", every(90)), now=at(70)))
            await _waits_for_a_lock(world)
            await fire.execute("COMMIT")
            await fire.execute("BEGIN")
    # 08:01 was decided by the fire: the apply must not decide it a second time.
    assert await world.rows("SELECT FROM all_executions") == []
    assert (await world.schedule("a"))["version"] == 2


async def test_applies_at_once_are_one_after_the_other(world):
    answers = await at_once(
        *(world.do(create_job, spec=job("a", timeout_s=n + 1.0), now=NOW, **WHO) for n in range(4))
    )
    assert refused(answers) == 3
    await at_once(
        *(world.do(replace_job, spec=job("a", timeout_s=n + 9.0), now=NOW, **WHO) for n in range(4))
    )
    rows = await world.rows("SELECT version FROM job_versions ORDER BY version")
    assert [row["version"] for row in rows] == [1, 2, 3, 4, 5]


async def _waits_for_a_lock(world):
    """Until somebody waits for a transaction of another session."""
    query = "SELECT FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
    async with asyncio.timeout(20):
        while not await world.node.fetch(query):
            pass
