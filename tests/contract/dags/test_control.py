"""What people do to runs: cancel, pause, retry, mark, signal, and replay."""

import pytest

from protocols.errors import ConflictError, NotFoundError
from runtime.postgres.dags.control import (
    cancel_run,
    mark_task,
    pause_run,
    resume_run,
    retry_tasks,
    send_signal,
)
from runtime.postgres.operations.cancel import cancel_execution
from runtime.postgres.operations.reopen import replay_dead_letters
from tests.support.dags import task

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]

CHAIN = (task("a"), task("b", "a"), task("c", "b"), task("d", "a"))


async def failed_chain(house, *, last: str = "dead") -> int:
    """A run in which `b` failed, `c` was skipped, and `d` succeeded."""
    await house.define("dag", *CHAIN)
    run = await house.begin("dag")
    await house.claim()
    await house.end(a="succeeded")
    await house.claim()
    await house.end(b=last, d="succeeded")
    await house.end_roots()
    return run


async def test_retrying_what_failed_runs_it_and_what_follows_and_nothing_else(house):
    run = await failed_chain(house)
    assert (await house.root(run))[0] == "dead"
    done = await house.steer(retry_tasks, run, tasks="failed")
    assert done.tasks == ("b", "c")
    assert await house.claim() == ["b"]
    assert (await house.states(run))["c"] == "blocked"
    await house.end(b="succeeded")
    assert await house.claim() == ["c"]
    await house.end(c="succeeded")
    await house.end_roots()
    assert (await house.root(run))[0] == "succeeded"
    assert await house.run_state(run) == "succeeded"


async def test_replaying_the_dead_letter_of_a_run_retries_what_failed(house):
    run = await failed_chain(house)
    await house.do(replay_dead_letters, who="me", asked_at=house.now, now=house.now, ids=[run])
    assert await house.claim() == ["b"]
    await house.run_all()
    assert (await house.root(run))[0] == "succeeded"


async def test_a_task_with_everything_downstream_runs_again_though_it_succeeded(house):
    run = await failed_chain(house)
    await house.steer(retry_tasks, run, tasks=["a"], downstream=True)
    assert await house.claim() == ["a"]
    await house.end(a="succeeded")
    assert await house.claim() == ["b", "d"]
    await house.run_all()
    assert set((await house.states(run)).values()) == {"succeeded"}


async def test_a_retry_while_the_run_goes_on(house):
    await house.define("dag", task("a"), task("b", "a"), task("slow"))
    run = await house.begin("dag")
    await house.claim()
    await house.end(a="dead")
    assert (await house.states(run))["b"] == "skipped: upstream_failed (a)"
    with pytest.raises(ConflictError, match="slow is scheduled"):
        await house.steer(retry_tasks, run, tasks=["slow"])
    await house.steer(retry_tasks, run, tasks=["a"])
    assert await house.claim() == ["a"]
    await house.end(a="succeeded")
    assert await house.claim() == ["b"]
    await house.end(b="succeeded", slow="succeeded")
    assert await house.run_state(run) == "succeeded"


async def test_what_an_execution_of_before_a_retry_ends_as_counts_no_more(house):
    await house.define("dag", task("a"), task("b", "a"))
    run = await house.begin("dag")
    await house.claim()
    (first,) = house.running
    await house.end(a="dead")
    await house.steer(retry_tasks, run, tasks=["a"])
    await house.owner.execute(
        "INSERT INTO dag_ended (execution, tenant, state, finished_at) "
        "VALUES ($1, 'default', 'succeeded', $2)",
        first,
        house.now,
    )
    await house.advance()
    assert (await house.states(run))["a"] == "scheduled"


async def test_a_failed_task_marked_succeeded_lets_go_what_it_had_skipped(house):
    run = await failed_chain(house)
    await house.steer(mark_task, run, task="b", state="succeeded", who="me", result=b"7")
    assert await house.claim() == ["c"]
    await house.run_all()
    assert await house.states(run) == {
        "a": "succeeded",
        "b": "succeeded: marked",
        "c": "succeeded",
        "d": "succeeded",
    }
    assert (await house.root(run))[0] == "succeeded"
    row = await house.owner.fetchrow(
        "SELECT marked_by, result FROM dag_tasks WHERE run = $1 AND task_id = 'b'", run
    )
    assert tuple(row) == ("me", b"7")


async def test_a_blocked_task_marked_skipped_does_not_run(house):
    await house.define("dag", *CHAIN)
    run = await house.begin("dag")
    await house.claim()
    with pytest.raises(ConflictError, match="under way"):
        await house.steer(mark_task, run, task="a", state="skipped", who="me")
    await house.steer(mark_task, run, task="b", state="skipped", who="me")
    await house.end(a="succeeded")
    assert await house.claim() == ["d"]
    await house.end(d="succeeded")
    assert (await house.states(run))["c"] == "skipped: upstream_skipped (b)"
    assert await house.run_state(run) == "succeeded"


async def test_a_cancelled_run_ends_what_runs_and_has_its_finally(house):
    await house.define("dag", *CHAIN, task("alas", role="on_failure"), task("z", role="finally"))
    run = await house.begin("dag")
    await house.claim()
    await house.steer(cancel_run, run)
    assert {name for _, name in await house.asked()} == {"a"}
    await house.end(a="cancelled")
    assert await house.claim() == ["z"]
    await house.end(z="succeeded")
    assert await house.states(run) == {
        "a": "cancelled: cancelled",
        "b": "skipped: cancelled",
        "c": "skipped: cancelled",
        "d": "skipped: cancelled",
        "alas": "skipped: trigger",
        "z": "succeeded",
    }
    await house.end_roots()
    assert (await house.root(run))[0] == "cancelled"
    with pytest.raises(ConflictError, match="was cancelled"):
        await house.steer(cancel_run, run)


async def test_a_second_cancel_ends_the_handlers(house):
    await house.define("dag", task("a"), task("z", role="finally"))
    run = await house.begin("dag")
    await house.claim()
    await house.steer(cancel_run, run)
    await house.end(a="cancelled")
    await house.claim()
    await house.steer(cancel_run, run)
    assert {name for _, name in await house.asked()} == {"z"}
    await house.end(z="cancelled")
    assert await house.run_state(run) == "cancelled"


@pytest.mark.parametrize(
    ("ends", "runs", "skipped"), [("succeeded", "ok", "alas"), ("dead", "alas", "ok")]
)
async def test_a_cancel_while_a_handler_runs_ends_that_and_finally_follows(
    house, ends, runs, skipped
):
    handlers = (task("ok", role="on_success"), task("alas", role="on_failure"))
    await house.define("dag", task("a"), *handlers, task("z", role="finally"))
    run = await house.begin("dag")
    await house.claim()
    await house.end(a=ends)
    assert await house.claim() == [runs]
    await house.steer(cancel_run, run)
    assert {name for _, name in await house.asked()} == {runs}
    await house.end(**{runs: "cancelled"})
    assert await house.claim() == ["z"]
    await house.end(z="succeeded")
    states = await house.states(run)
    assert (states[runs], states[skipped]) == ("cancelled: cancelled", "skipped: trigger")
    assert (states["z"], await house.run_state(run)) == ("succeeded", "cancelled")


async def test_a_second_cancel_while_a_handler_runs_leaves_finally_out(house):
    await house.define("dag", task("a"), task("ok", role="on_success"), task("z", role="finally"))
    run = await house.begin("dag")
    await house.claim()
    await house.end(a="succeeded")
    await house.claim()
    await house.steer(cancel_run, run)
    await house.steer(cancel_run, run)
    await house.end(ok="cancelled")
    assert await house.claim() == []
    assert (await house.states(run))["z"] == "skipped: cancelled"
    assert await house.run_state(run) == "cancelled"


async def test_a_first_cancel_lets_finally_end(house):
    await house.define("dag", task("a"), task("z", role="finally"))
    run = await house.begin("dag")
    await house.claim()
    await house.end(a="succeeded")
    assert await house.claim() == ["z"]
    await house.steer(cancel_run, run)
    assert await house.asked() == []
    await house.end(z="succeeded")
    assert await house.states(run) == {"a": "succeeded", "z": "succeeded"}
    assert await house.run_state(run) == "cancelled"


async def test_a_runs_cancel_lets_the_finally_of_a_run_within_it_end(house):
    await house.define("inner", task("i"), task("z", role="finally"))
    await house.define("outer", task("sub", dag={"dag_id": "inner"}))
    run = await house.begin("outer")
    await house.take_roots()
    await house.claim()
    await house.end(i="succeeded")
    assert await house.claim() == ["z"]
    await house.steer(cancel_run, run)
    await house.store.cancel_runs([max(house.roots)], now=house.now)
    await house.advance()
    assert await house.asked() == []
    await house.end(z="succeeded")
    await house.end_roots()
    assert await house.states(run) == {"sub": "cancelled: cancelled"}
    assert await house.run_state(run) == "cancelled"


async def test_a_task_that_somebody_cancels_by_itself_has_failed(house):
    await house.define("dag", *CHAIN)
    run = await house.begin("dag")
    await house.claim()
    await house.end(a="succeeded")
    await house.claim()
    await house.end(b="cancelled", d="succeeded")
    states = await house.states(run)
    assert (states["b"], states["c"]) == ("failed: cancelled", "skipped: upstream_failed (b)")
    await house.end_roots()
    assert (await house.root(run))[0] == "dead"
    await house.steer(retry_tasks, run, tasks="failed")
    assert await house.claim() == ["b"]
    await house.run_all()
    assert (await house.root(run))[0] == "succeeded"


async def test_a_task_that_is_cancelled_in_its_queue_has_failed(house):
    await house.define("dag", *CHAIN)
    run = await house.begin("dag")
    waiting = await house.owner.fetchval("SELECT id FROM executions WHERE job_id = 'dag/a'")
    await house.do(cancel_execution, execution=await house.name(waiting), who="me", now=house.now)
    assert await house.states(run) == {
        "a": "failed: cancelled",
        **dict.fromkeys("bcd", "skipped: upstream_failed (a)"),
    }
    assert await house.run_state(run) == "failed"


async def test_under_fail_fast_a_task_that_somebody_cancels_stops_the_run(house):
    await house.define("dag", task("a"), task("b"), task("c", "b"), on_failure="fail_fast")
    run = await house.begin("dag")
    await house.claim()
    await house.end(a="cancelled")
    assert {name for _, name in await house.asked()} == {"b"}
    await house.end(b="cancelled")
    assert await house.states(run) == {
        "a": "failed: cancelled",
        "b": "cancelled: fail_fast",
        "c": "skipped: fail_fast (a)",
    }
    assert await house.run_state(run) == "failed"


async def test_a_cancelled_run_goes_on_when_it_is_retried(house):
    await house.define("dag", *CHAIN)
    run = await house.begin("dag")
    await house.claim()
    await house.steer(cancel_run, run)
    await house.end(a="cancelled")
    await house.end_roots()
    await house.steer(retry_tasks, run, tasks="failed")
    await house.run_all()
    assert set((await house.states(run)).values()) == {"succeeded"}
    assert (await house.root(run))[0] == "succeeded"


async def test_cancelling_the_runs_own_execution_cancels_the_run(house):
    await house.define("dag", *CHAIN)
    run = await house.begin("dag")
    await house.claim()
    await house.store.cancel_runs([run], now=house.now)
    await house.advance()
    await house.end(a="cancelled")
    assert await house.run_state(run) == "cancelled"


async def test_a_paused_run_starts_nothing_until_it_is_resumed(house):
    await house.define("dag", *CHAIN)
    run = await house.begin("dag")
    await house.claim()
    await house.steer(pause_run, run, reason="lunch")
    await house.end(a="succeeded")
    assert await house.claim() == []
    assert await house.run_state(run) == "paused"
    await house.steer(resume_run, run)
    assert await house.claim() == ["b", "d"]


async def test_a_task_waits_for_its_signal_without_a_slot(house):
    await house.define("dag", task("ok", wait={"signal": "go", "timeout_s": 60.0}), task("b", "ok"))
    run = await house.begin("dag")
    assert await house.claim() == []
    assert (await house.states(run))["ok"] == "waiting"
    with pytest.raises(NotFoundError, match="signals: go"):
        await house.steer(send_signal, run, name="gone", payload=None, who="me")
    await house.steer(send_signal, run, name="go", payload=b'{"by": "me"}', who="me")
    with pytest.raises(ConflictError, match="already"):
        await house.steer(send_signal, run, name="go", payload=None, who="me")
    assert await house.claim() == ["b"]
    assert await house.result(run, "ok") == {"by": "me"}


async def test_a_signal_that_came_early_is_there(house):
    await house.define("dag", task("a"), task("ok", "a", wait={"signal": "go"}), task("b", "ok"))
    run = await house.begin("dag")
    await house.claim()
    await house.steer(send_signal, run, name="go", payload=None, who="me")
    await house.end(a="succeeded")
    assert await house.claim() == ["b"]


async def test_a_signal_that_does_not_come_fails_its_task(house):
    await house.define("dag", task("ok", wait={"signal": "go", "timeout_s": 60.0}), task("b", "ok"))
    run = await house.begin("dag")
    assert (await house.wake()).next_at == house.later(60)
    await house.wake()
    assert await house.states(run) == {
        "ok": "failed: timeout",
        "b": "skipped: upstream_failed (ok)",
    }


async def test_a_retried_wait_waits_for_another_signal(house):
    await house.define("dag", task("ok", wait={"signal": "go"}), task("b", "ok"))
    run = await house.begin("dag")
    await house.steer(send_signal, run, name="go", payload=None, who="me")
    await house.claim()
    await house.end(b="dead")
    await house.end_roots()
    await house.steer(retry_tasks, run, tasks=["ok"])
    assert (await house.states(run))["ok"] == "waiting"
    await house.steer(send_signal, run, name="go", payload=None, who="me")
    await house.run_all()
    assert await house.run_state(run) == "succeeded"
