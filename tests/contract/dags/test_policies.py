"""Each failure policy, each trigger, the handlers, and how a run ends by them."""

import pytest

from tests.support.dags import task

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]


def fails(*names: str):
    """An outcome by which the tasks of these names fail."""
    return lambda row: "dead" if row.job_id.partition("/")[2] in names else "succeeded"


async def test_fail_fast_cancels_what_runs_and_skips_what_has_not_begun(house):
    await house.define(
        "dag",
        task("a"),
        task("b"),
        task("c"),
        task("d", "c"),
        task("e", "d"),
        task("clean", "a", trigger="always"),
        on_failure="fail_fast",
    )
    run = await house.begin("dag")
    assert await house.claim() == ["a", "b", "c"]
    await house.end(a="dead")

    assert {name for _, name in await house.asked()} == {"b", "c"}
    assert (await house.states(run))["e"] == "skipped: fail_fast (a)"
    assert await house.claim() == ["clean"]
    await house.end(b="cancelled", c="succeeded", clean="succeeded")
    assert await house.states(run) == {
        "a": "failed: failed",
        "b": "cancelled: fail_fast",
        "c": "succeeded",
        "d": "skipped: fail_fast (a)",
        "e": "skipped: fail_fast (a)",
        "clean": "succeeded",
    }
    assert await house.run_state(run) == "failed"


async def test_fail_fast_takes_what_waits_in_its_queue_back(house):
    await house.define("dag", task("a"), *(task(f"b{n}") for n in range(3)), on_failure="fail_fast")
    run = await house.begin("dag")
    await house.claim()
    await house.give_back("b0", "b1", "b2")
    await house.end(a="dead")
    await house.advance()
    assert set((await house.states(run)).values()) == {"failed: failed", "cancelled: fail_fast"}
    assert await house.run_state(run) == "failed"


async def test_under_continue_a_failed_parent_counts_as_done(house):
    await house.define("dag", task("a"), task("b", "a"), task("c", "b"), on_failure="continue")
    run = await house.begin("dag")
    await house.run_all(fails("a"))
    assert (await house.states(run))["c"] == "succeeded"
    assert await house.run_state(run) == "failed"


@pytest.mark.parametrize(
    ("trigger", "failing", "becomes"),
    [
        ("all_succeeded", "", "succeeded"),
        ("all_succeeded", "a", "skipped: upstream_failed (a)"),
        ("all_done", "ab", "succeeded"),
        ("always", "ab", "succeeded"),
        ("one_succeeded", "a", "succeeded"),
        ("one_succeeded", "ab", "skipped: upstream_failed (a)"),
        ("one_failed", "b", "succeeded"),
        ("one_failed", "", "skipped: trigger"),
        ("none_failed", "", "succeeded"),
        ("none_failed", "b", "skipped: upstream_failed (b)"),
    ],
)
async def test_each_trigger(house, trigger, failing, becomes):
    await house.define("dag", task("a"), task("b"), task("c", "a", "b", trigger=trigger))
    run = await house.begin("dag")
    await house.run_all(fails(*failing))
    assert (await house.states(run))["c"] == becomes
    assert await house.run_state(run) == ("failed" if failing else "succeeded")


async def test_one_succeeded_does_not_wait_for_the_others(house):
    await house.define("dag", task("a"), task("b"), task("c", "a", "b", trigger="one_succeeded"))
    run = await house.begin("dag")
    await house.claim()
    await house.end(b="succeeded")
    assert await house.claim() == ["c"]
    await house.end(c="succeeded")
    assert await house.run_state(run) == "running"
    await house.end(a="succeeded")
    assert await house.run_state(run) == "succeeded"


HANDLERS = (
    task("a"),
    task("hurray", role="on_success"),
    task("alas", role="on_failure"),
    task("last", role="finally"),
)


@pytest.mark.parametrize(
    ("failing", "runs", "skipped", "ends"),
    [
        ("", ["hurray", "last"], "alas", "succeeded"),
        ("a", ["alas", "last"], "hurray", "failed"),
        ("hurray", ["hurray", "last"], "alas", "failed"),
    ],
)
async def test_handlers_run_when_all_else_is_over(house, failing, runs, skipped, ends):
    await house.define("dag", *HANDLERS)
    run = await house.begin("dag")
    assert await house.claim() == ["a"]
    outcome = fails(failing)
    began = []
    while house.running:
        await house.end_by(outcome)
        began += await house.claim()
    assert began == runs
    assert (await house.states(run))[skipped] == "skipped: trigger"
    assert await house.run_state(run) == ends


async def test_the_cause_goes_all_the_way_down(house):
    chain = [task("t0"), *(task(f"t{n}", f"t{n - 1}") for n in range(1, 60))]
    await house.define("dag", *chain)
    run = await house.begin("dag")
    await house.claim()
    await house.end(t0="dead")
    states = await house.states(run)
    assert states.pop("t0") == "failed: failed"
    assert set(states.values()) == {"skipped: upstream_failed (t0)"}


async def test_a_run_past_its_deadline_fails_and_still_has_its_handlers(house):
    await house.define("dag", task("a"), task("b", "a"), *HANDLERS[2:], timeout_s=60)
    run = await house.begin("dag")
    await house.claim()
    assert (await house.wake()).next_at == house.later(60)
    await house.wake()
    assert {name for _, name in await house.asked()} == {"a"}
    await house.end(a="cancelled")
    assert await house.claim() == ["alas"]
    await house.end(alas="succeeded")
    assert await house.claim() == ["last"]
    await house.end(last="succeeded")
    assert (await house.states(run))["b"] == "skipped: timeout"
    await house.end_roots()
    assert await house.root(run) == ("dead", "the run took longer than its timeout")


async def test_a_run_whose_own_execution_was_cancelled_does_not_go_on(house):
    await house.define("dag", task("a"), task("b", "a"))
    run = await house.begin("dag")
    await house.claim()
    await house.lose_root(run)
    await house.end(a="succeeded")
    assert await house.run_state(run) == "cancelled"


async def test_a_task_that_two_ends_of_one_turn_decide_is_started_once(house):
    await house.define("dag", task("p"), task("x", "p"), task("c", "p", "x", trigger="one_failed"))
    run = await house.begin("dag")
    await house.claim()
    await house.end(p="dead")
    assert await house.claim() == ["c"]
    await house.run_all()
    assert (await house.states(run))["c"] == "succeeded"
    made = "SELECT count(*) FROM execution_history WHERE job_id = 'dag/c'"
    assert await house.owner.fetchval(made) == 1
