"""What two people ask at once happens once, and a timer or a claim in between loses nothing."""

import asyncio

import pytest

from protocols.errors import ConflictError, NotFoundError
from protocols.jobs import Trigger
from protocols.ports.store import TriggerRequest
from runtime.postgres.definitions.jobs import create_job, delete_job, replace_job
from runtime.postgres.operations.backfill import backfill
from runtime.postgres.operations.cancel import cancel_execution
from runtime.postgres.operations.pause import pause_house, resume_house
from runtime.postgres.operations.reopen import replay_dead_letters, retry_execution
from runtime.postgres.task_calls import emit
from runtime.postgres.trigger import trigger
from runtime.postgres.triggers import run_triggers
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


@pytest.mark.parametrize("overlap", ["allow", "skip"])
async def test_a_trigger_before_a_delete_is_cancelled_by_it(world, overlap):
    await world.apply(job("a", overlap=overlap))
    async with world.api.transaction() as asking:
        await asking.execute("SELECT set_config('tickwright.tenant', 'default', true)")
        await trigger(asking, [TriggerRequest(tenant="default", job_id="a")], now=NOW)
        async with asyncio.TaskGroup() as group:
            group.create_task(world.do(delete_job, job_id="a", now=at(1), **WHO))
            await _waits_for_a_lock(world)
            await asking.execute("COMMIT")
            await asking.execute("BEGIN")
    assert await world.rows("SELECT FROM executions") == []
    assert await world.one("SELECT state, reason FROM execution_history") == {
        "state": "cancelled",
        "reason": "deleted",
    }


async def test_what_asks_while_a_job_is_deleted_finds_none(world):
    await world.apply(job("a"), job("b", on=(Trigger(event="e"),)))
    dead = await over(world, "a", 0, "dead")
    await emit(world.node, "default", "e", None, now=NOW)
    key = (await world.one("SELECT job_key FROM jobs WHERE job_id = 'a'"))["job_key"]
    by_name = TriggerRequest(tenant="default", job_id="a")
    by_key = TriggerRequest(tenant="default", job_key=key)
    async with world.api.transaction() as asking:
        await asking.execute("SELECT set_config('tickwright.tenant', 'default', true)")
        for name in ("a", "b"):
            await delete_job(asking, tenant="default", job_id=name, now=at(1), **WHO)
        async with asyncio.TaskGroup() as group:
            triggered = [
                group.create_task(trigger(world.hot, [one], now=at(2))) for one in (by_name, by_key)
            ]
            await _waits_for_a_lock(world, 2)
            again = group.create_task(
                at_once(world.do(retry_execution, execution=dead, now=at(2), **WHO))
            )
            await _waits_for_a_lock(world, 3)
            await asking.execute("COMMIT")
            await asking.execute("BEGIN")
    assert [type(answer) for one in triggered for answer in one.result()] == [NotFoundError] * 2
    assert refused(again.result()) == 1
    assert await world.rows("SELECT FROM executions") == []


async def test_an_event_makes_nothing_of_a_job_that_is_being_deleted(world):
    await world.apply(job("b", on=(Trigger(event="e"),)))
    await emit(world.node, "default", "e", None, now=NOW)
    async with world.api.transaction() as asking:
        await asking.execute("SELECT set_config('tickwright.tenant', 'default', true)")
        await delete_job(asking, tenant="default", job_id="b", now=at(1), **WHO)
        async with asyncio.TaskGroup() as group:
            group.create_task(run_triggers(world.hot, now=at(2), limit=10))
            await _waits_for_a_lock(world)
            await asking.execute("COMMIT")
            await asking.execute("BEGIN")
    assert await world.rows("SELECT FROM executions") == []


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


async def _waits_for_a_lock(world, count=1):
    """Until so many wait for a transaction of another session, or for who waits for one."""
    query = "SELECT FROM pg_locks WHERE NOT granted AND locktype IN ('transactionid', 'tuple')"
    async with asyncio.timeout(20):
        while len(await world.node.fetch(query)) < count:
            pass


@pytest.mark.parametrize(("change", "paused"), [(pause_house, True), (resume_house, False)])
async def test_leaderships_that_come_meanwhile_stop_and_go_with_the_house(world, change, paused):
    if not paused:
        await world.do(pause_house, reason=None, now=NOW, **WHO)
    async with world.node.transaction() as reshard:
        await reshard.execute("SELECT reshard(3)")
        async with asyncio.TaskGroup() as group:
            group.create_task(world.do(change, reason=None, now=at(1), **WHO))
            await _waits_for_a_lock(world)
            await reshard.execute("COMMIT")
            await reshard.execute("BEGIN")
    rows = await world.rows("SELECT number, paused FROM leaderships ORDER BY number")
    assert [tuple(row.values()) for row in rows] == [(n, paused) for n in range(3)]
