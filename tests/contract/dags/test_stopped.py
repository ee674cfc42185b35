"""Runs that were stopped, by a person, a failure or their time, and what may be done with them."""

import pytest

from protocols.errors import ConflictError
from runtime.postgres.dags.control import (
    cancel_run,
    mark_task,
    pause_run,
    retry_tasks,
    send_signal,
)
from runtime.postgres.definitions.delete import delete_jobs
from tests.support import dags
from tests.support.dags import task

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]


async def test_a_paused_run_within_a_run_ends_when_that_is_cancelled(house):
    await house.define("inner", task("i"), task("z", role="finally"))
    await house.define("outer", task("sub", dag={"dag_id": "inner"}))
    run = await house.begin("outer")
    await house.take_roots()
    inner = max(house.roots)
    await house.claim()
    await house.steer(pause_run, inner)
    await house.steer(cancel_run, run)
    await house.store.cancel_runs([inner], now=house.now)
    await house.advance()
    await house.end(i="cancelled")
    assert await house.claim() == ["z"]
    await house.run_all()
    assert await house.run_state(inner) == "cancelled"
    assert await house.run_state(run) == "cancelled"


async def test_what_is_always_to_run_goes_on_when_a_failure_stops_its_run(house):
    await house.define(
        "dag",
        task("bad"),
        task("mine", trigger="always"),
        task("each", map={"over": "input", "parallelism": 1}, trigger="always"),
        task("last", "mine", "each", trigger="always"),
        task("not", "mine"),
        on_failure="fail_fast",
    )
    run = await house.begin("dag", b"[1, 2]")
    await house.claim()
    await house.end(bad="dead")
    assert await house.asked() == []
    await house.run_all()
    assert await house.states(run) == {
        "bad": "failed: failed",
        "mine": "succeeded",
        "each": "succeeded",
        "last": "succeeded",
        "not": "skipped: fail_fast (bad)",
    }


async def test_what_a_stop_takes_back_is_taken_account_of_at_once(house):
    await house.define("dag", task("a"), task("b"), on_failure="fail_fast")
    run = await house.begin("dag")
    await house.claim()
    await house.give_back("b")
    await house.end(a="dead")
    assert await house.run_state(run) == "failed"


async def test_a_cancel_that_is_asked_for_again_reads_the_run_no_second_time(house):
    await house.define("dag", task("a"))
    run = await house.begin("dag")
    await house.claim()
    await house.store.cancel_runs([run], now=house.now)
    await house.advance()
    await house.store.cancel_runs([run], now=house.now)
    assert not await house.owner.fetch("SELECT FROM dag_ended")
    await house.end(a="cancelled")
    assert await house.run_state(run) == "cancelled"


async def test_a_mark_lets_nothing_go_in_a_run_that_is_being_stopped(house):
    await house.define("dag", task("a"), task("b", "a"), task("slow"))
    run = await house.begin("dag")
    await house.claim()
    await house.end(a="dead")
    await house.steer(cancel_run, run)
    await house.steer(mark_task, run, task="a", state="succeeded", who="me")
    assert await house.claim() == []
    await house.end(slow="cancelled")
    assert (await house.states(run))["b"] == "skipped: upstream_failed (a)"
    assert await house.run_state(run) == "cancelled"


async def test_a_run_with_tasks_that_a_failure_stopped_has_not_succeeded_by_a_mark(house):
    await house.define("dag", task("a"), task("b", "a"), task("c"), on_failure="fail_fast")
    run = await house.begin("dag")
    await house.claim()
    await house.give_back("c")
    await house.end(a="dead")
    await house.advance()
    await house.end_roots()
    await house.steer(mark_task, run, task="a", state="succeeded", who="me")
    await house.run_all()
    assert await house.states(run) == {
        "a": "succeeded: marked",
        "b": "succeeded",
        "c": "cancelled: fail_fast",
    }
    assert await house.root(run) == ("dead", "fail_fast stopped it")
    await house.steer(retry_tasks, run, tasks="failed")
    await house.run_all()
    assert await house.root(run) == ("succeeded", None)


async def test_a_cancelled_run_stays_one_whatever_is_marked(house):
    await house.define("dag", task("a"), task("b", "a"), task("z", role="finally"))
    run = await house.begin("dag")
    await house.claim()
    await house.steer(cancel_run, run)
    await house.end(a="cancelled")
    await house.run_all()
    await house.steer(mark_task, run, task="a", state="succeeded", who="me")
    await house.run_all()
    assert (await house.states(run))["b"] == "skipped: cancelled"
    assert (await house.root(run))[0] == "cancelled"


async def test_a_run_that_comes_to_its_end_is_retried_when_it_is_over(house):
    await house.define("dag", task("a"), task("b", "a"), task("z", role="finally"))
    run = await house.begin("dag")
    await house.claim()
    await house.steer(cancel_run, run)
    with pytest.raises(ConflictError, match="is coming to its end"):
        await house.steer(retry_tasks, run, tasks="failed")
    await house.end(a="cancelled")
    assert await house.claim() == ["z"]
    with pytest.raises(ConflictError, match="is coming to its end"):
        await house.steer(retry_tasks, run, tasks=["a"])
    await house.run_all()
    await house.steer(retry_tasks, run, tasks=["a"])
    await house.run_all()
    assert set((await house.states(run)).values()) == {"succeeded"}


@pytest.mark.parametrize("how", ["retry", "mark"])
async def test_a_signal_that_came_before_its_task_is_kept_though_what_is_before_that_failed(
    house, how
):
    await house.define("dag", task("a"), task("ok", "a", wait={"signal": "go"}))
    run = await house.begin("dag")
    await house.claim()
    await house.steer(send_signal, run, name="go", payload=b"7", who="me")
    await house.end(a="dead")
    if how == "retry":
        await house.steer(retry_tasks, run, tasks="failed")
    else:
        await house.steer(mark_task, run, task="a", state="succeeded", who="me")
    await house.run_all()
    assert await house.run_state(run) == "succeeded"
    assert await house.result(run, "ok") == 7


async def test_a_dag_that_has_become_a_job_is_no_run_to_wait_for(house):
    await house.define("dag", task("a"), task("sub", "a", dag={"dag_id": "inner"}))
    key = await house.define("inner", task("i"))
    run = await house.begin("dag")
    await house.claim()
    async with house.owner.acquire() as conn, conn.transaction():
        await delete_jobs(conn, [key], now=house.now)
    await dags.define_job(house.owner, "inner")
    await house.end(a="succeeded")
    assert (await house.states(run))["sub"] == "failed: dag: there is no DAG 'inner'"
    assert not await house.owner.fetchval("SELECT count(*) FROM executions WHERE job_id = 'inner'")
