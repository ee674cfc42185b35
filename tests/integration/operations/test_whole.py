"""Definitions, the hot path and what people ask, on one database: they mean the same by a row."""

import pytest
import pytest_asyncio

from protocols.ids import execution_id
from protocols.instants import to_epoch_ns
from protocols.messages import PROTOCOL_LEVEL
from protocols.ports.executor import Output
from protocols.ports.store import (
    Budget,
    DueInstant,
    Finish,
    Firing,
    NodeInfo,
    Triggered,
    TriggerRequest,
)
from runtime.postgres.operations.backfill import backfill
from runtime.postgres.operations.cancel import cancel_execution
from runtime.postgres.operations.dead_letters import list_dead_letters
from runtime.postgres.operations.executions import list_executions, show_execution
from runtime.postgres.operations.jobs_view import list_jobs
from runtime.postgres.operations.logs import read_logs
from runtime.postgres.operations.pause import pause_job
from runtime.postgres.operations.reopen import retry_execution
from runtime.postgres.store import PostgresStore
from tests.integration.operations.conftest import NOW, at, cron, job

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]
WHO = {"who": "tests"}


class Node:
    """A node that does what it is told, an execution at a time."""

    def __init__(self, store, incarnation):
        self.store = store
        self.incarnation = incarnation

    async def trigger(self, job_id, **fields):
        request = TriggerRequest(tenant="default", job_id=job_id, **fields)
        (done,) = await self.store.trigger([request], now=NOW)
        assert isinstance(done, Triggered)
        return execution_id(done.id, done.created_at)

    async def claim(self, now):
        lanes = await self.store.lanes("default", now=now, level=PROTOCOL_LEVEL)
        budgets = [Budget(lane, 10) for lane in lanes.due]
        return await self.store.claim(
            "default", self.incarnation, budgets, now=now, level=PROTOCOL_LEVEL
        )

    async def end(self, claimed, state, seconds, **fields):
        attempt = "succeeded" if state == "succeeded" else "failed"
        finish = Finish(
            id=claimed.id,
            fencing_token=claimed.fencing_token,
            attempt_state=attempt,
            state=state,
            started_ns=to_epoch_ns(at(seconds)),
            finished_ns=to_epoch_ns(at(seconds + 1)),
            **fields,
        )
        done = await self.store.finish(self.incarnation, [finish])
        assert list(done.accepted) == [claimed.id]

    async def fire(self, seconds, following):
        """Fire the one schedule that is due."""
        term = await self.store.take_epoch(0, self.incarnation, now=NOW)
        (due,) = await self.store.due(term, until=at(seconds), limit=10)
        (spec,) = await self.store.definitions([(due.job_key, due.version)])
        firing = Firing(
            job_key=due.job_key,
            version=due.version,
            spec=spec,
            seen_cursor=due.cursor,
            cursor=at(seconds),
            next_fire_at=at(following),
            instants=[DueInstant(scheduled_for=at(seconds), run_at=at(seconds))],
        )
        return term, firing


@pytest_asyncio.fixture
async def node(world):
    store = PostgresStore(hot=world.hot, keeping=world.node)
    info = NodeInfo(
        name="n1",
        url="http://x",
        pid=1,
        host="h",
        version="0",
        level=PROTOCOL_LEVEL,
        pools={"default": 4},
    )
    return Node(store, await store.join(info, now=NOW, alone=True))


async def test_an_execution_dies_is_retried_and_succeeds_with_all_its_attempts(world, node):
    await world.apply(job("a", concurrency_limit=1))
    public_id = await node.trigger("a", input=b"[1]")
    (claimed,) = await node.claim(at(1))
    await node.end(claimed, "dead", 1, exit_code=3, output=Output(head=b"boom\n"))
    (letter,) = (await world.do(list_dead_letters)).items
    assert (letter.execution_id, letter.exit_code, letter.node) == (public_id, 3, "n1")

    await world.do(retry_execution, execution=public_id, now=at(5), **WHO)
    assert (await world.do(list_dead_letters)).items == ()
    (again,) = await node.claim(at(6))
    assert (again.id, again.attempt, again.input) == (claimed.id, 2, b"[1]")
    await node.end(again, "succeeded", 6, result=b'"ok"')

    shown = await world.do(show_execution, execution=public_id, now=at(9))
    assert (shown.state, shown.run, shown.result) == ("succeeded", 2, "ok")
    assert [(a.attempt, a.run, a.state) for a in shown.attempts] == [
        (1, 1, "failed"),
        (2, 2, "succeeded"),
    ]
    (log,) = await world.do(read_logs, execution=public_id)
    assert (log.attempt, log.head) == (1, "boom\n")
    assert (await world.one("SELECT holders FROM limits"))["holders"] == []
    assert (await world.do(list_jobs)).items[0].last_state == "succeeded"


async def test_a_cancelled_turn_goes_to_the_one_that_waits_for_it(world, node):
    await world.apply(job("a"))
    first = await node.trigger("a")
    second = await node.trigger("a")
    done = await world.do(cancel_execution, execution=first, now=at(1), **WHO)
    assert not await node.claim(at(1))
    await node.store.settle([done.job_key], now=at(1))
    (claimed,) = await node.claim(at(2))
    assert execution_id(claimed.id, claimed.created_at) == second
    done = await world.do(cancel_execution, execution=second, now=at(3), **WHO)
    assert list(await node.store.cancel_requests(node.incarnation)) == [done.asked[1:]]


async def test_a_fire_of_a_version_that_an_apply_replaced_is_refused(world, node):
    await world.apply(job("a", cron("* * * * *"), overlap="allow"))
    term, firing = await node.fire(60, 120)
    await world.apply(job("a", cron("* * * * *"), overlap="allow", timeout_s=9.0), now=at(60))
    assert list((await node.store.fire(term, [firing], now=at(60))).moved) == []
    term, firing = await node.fire(60, 120)
    assert firing.version == 2
    assert len((await node.store.fire(term, [firing], now=at(60))).moved) == 1


async def test_a_paused_jobs_instant_is_recorded_and_backfilled_later(world, node):
    await world.apply(job("a", cron("* * * * *"), overlap="allow"))
    await world.do(pause_job, job_id="a", reason="x", now=at(1), **WHO)
    term, firing = await node.fire(60, 120)
    assert len((await node.store.fire(term, [firing], now=at(60))).moved) == 1
    (skipped,) = (await world.do(list_executions, now=at(61))).items
    assert (skipped.state, skipped.reason) == ("skipped", "paused")
    done = await world.do(backfill, job_id="a", first=at(60), until=at(60), now=at(90), **WHO)
    assert done.reopened[0].execution_id == skipped.execution_id
    (claimed,) = await node.claim(at(91))
    assert claimed.scheduled_for == at(60)


async def test_a_trigger_for_later_reads_as_scheduled_and_can_be_cancelled(world, node):
    await world.apply(job("a"))
    public_id = await node.trigger("a", run_at=at(500))
    shown = await world.do(show_execution, execution=public_id, now=at(9))
    assert (shown.state, shown.reason) == ("scheduled", None)
    done = await world.do(cancel_execution, execution=public_id, now=at(9), **WHO)
    assert done.execution.state == "cancelled"
