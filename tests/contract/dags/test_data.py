"""What tasks are given: results, items, conditions, instants, and the runs of other DAGs."""

import msgspec
import pytest

from protocols.dags import TaskInput
from protocols.instants import iso
from runtime.postgres.dags.control import cancel_run, retry_tasks
from tests.contract.dags.conftest import ended
from tests.support.dags import task

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]


def mapped(over: str, **fields) -> dict:
    return {"map": {"over": over, **fields}}


async def given(house) -> dict[str, TaskInput]:
    """What the running tasks were given, by task or `task[item]`."""
    found = {}
    for row in house.running.values():
        one = msgspec.json.decode(row.input, type=TaskInput)
        name = one.task_id if one.number is None else f"{one.task_id}[{one.number}]"
        found[name] = one
    return found


async def test_a_result_is_read_by_those_who_refer_to_it(house):
    await house.define(
        "dag",
        task("a"),
        task(
            "b",
            "a",
            references=("tasks.a.result.path", "input.day", "run.id"),
        ),
    )
    run = await house.begin("dag", b'{"day": 3}')
    await house.claim()
    await house.finish_with(a=b'{"path": "$(rm -rf x)"}')
    await house.claim()
    (b,) = (await given(house)).values()
    assert [msgspec.json.decode(ref) for ref in b.refs] == [
        "$(rm -rf x)",
        3,
        await house.name(run),
    ]
    assert (b.input, b.run_id) == (msgspec.Raw(b'{"day": 3}'), await house.name(run))


async def test_what_cannot_be_worked_out_fails_its_task_with_the_reason(house):
    await house.define(
        "dag", task("a"), task("b", "a", references=("tasks.a.result.path",)), task("c", "b")
    )
    run = await house.begin("dag")
    await house.run_all()
    states = await house.states(run)
    assert states["b"].startswith("failed: expression: ")
    assert states["c"] == "skipped: upstream_failed (b)"
    assert await house.run_state(run) == "failed"


async def test_a_condition_that_is_false_skips_and_what_follows_too(house):
    await house.define(
        "dag",
        task("a"),
        task("yes", "a", when="tasks.a.result > 1"),
        task("no", "a", when="tasks.a.result > 2"),
        task("after", "no"),
        task("join", "yes", "after", trigger="none_failed"),
    )
    run = await house.begin("dag")
    await house.claim()
    await house.finish_with(a=b"2")
    await house.run_all()
    assert await house.states(run) == {
        "a": "succeeded",
        "yes": "succeeded",
        "no": "skipped: condition",
        "after": "skipped: upstream_skipped (no)",
        "join": "succeeded",
    }


async def test_a_task_is_mapped_over_a_list_so_many_at_once(house):
    await house.define(
        "dag",
        task("list"),
        task("m", "list", **mapped("tasks.list.result", parallelism=2)),
        task("sum", "m", references=("tasks.m.result",)),
    )
    run = await house.begin("dag")
    await house.claim()
    await house.finish_with(list=b'["x", "y", "z"]')
    assert await house.claim() == ["m", "m"]
    inputs = await given(house)
    assert {name: bytes(one.item) for name, one in inputs.items()} == {
        "m[0]": b'"x"',
        "m[1]": b'"y"',
    }
    await house.finish_items(m={1: b"20"})
    assert await house.claim() == ["m"]
    await house.finish_items(m={0: b"10", 2: b"30"})
    assert await house.result(run, "m") == [10, 20, 30]
    assert await house.claim() == ["sum"]
    assert [bytes(r) for r in (await given(house))["sum"].refs] == [b"[10,20,30]"]
    await house.end(sum="succeeded")
    assert await house.run_state(run) == "succeeded"


@pytest.mark.parametrize(
    ("listed", "becomes"),
    [
        (b"[]", "succeeded"),
        (b"7", "failed: map: this is not a list"),
        (b"[1,2,3]", "failed: map: 3 items, and its limit is 2"),
    ],
)
async def test_lists_that_are_empty_none_or_too_long(house, listed, becomes):
    await house.define("dag", task("a"), task("m", "a", **mapped("tasks.a.result", limit=2)))
    run = await house.begin("dag")
    await house.claim()
    await house.finish_with(a=listed)
    assert (await house.states(run))["m"] == becomes
    assert await house.run_state(run) in ("succeeded", "failed")


async def test_an_item_that_failed_fails_its_task_and_is_all_that_a_retry_runs(house):
    await house.define("dag", task("m", **mapped("input", parallelism=1)), task("after", "m"))
    run = await house.begin("dag", b"[1, 2, 3]")
    for number in range(3):
        assert await house.claim() == ["m"]
        await house.end(m="dead" if number == 1 else "succeeded")
    assert await house.states(run, items=True) == {
        "m": "failed: items",
        "m[0]": "succeeded",
        "m[1]": "failed: failed",
        "m[2]": "succeeded",
        "after": "skipped: upstream_failed (m)",
    }
    await house.end_roots()
    await house.steer(retry_tasks, run, tasks="failed")
    assert await house.claim() == ["m"]
    assert list(await given(house)) == ["m[1]"]
    await house.run_all()
    assert await house.run_state(run) == "succeeded"


async def test_an_item_that_somebody_cancels_fails_its_task(house):
    await house.define("dag", task("m", **mapped("input")))
    run = await house.begin("dag", b"[1, 2]")
    await house.claim()
    first, second = house.running.values()
    await house.finish([ended(first, "cancelled"), ended(second)])
    assert await house.states(run, items=True) == {
        "m": "failed: items",
        "m[0]": "failed: cancelled",
        "m[1]": "succeeded",
    }
    assert await house.run_state(run) == "failed"


async def test_items_that_expired_skip_their_task_and_are_all_that_a_retry_runs(house):
    await house.define(
        "dag", task("m", **mapped("input", parallelism=1)), task("after", "m"), task("bad")
    )
    run = await house.begin("dag", b"[1, 2]")
    await house.claim()
    await house.end(m="succeeded", bad="dead")
    due = "UPDATE executions SET expires_at = $1 WHERE job_id = 'dag/m'"
    await house.owner.execute(due, house.now)
    assert await house.store.expire(now=house.now, limit=10)
    await house.advance()
    assert await house.states(run, items=True) == {
        "m": "skipped: items",
        "m[0]": "succeeded",
        "m[1]": "skipped: expired",
        "after": "skipped: upstream_skipped (m)",
        "bad": "failed: failed",
    }
    await house.end_roots()
    await house.steer(retry_tasks, run, tasks=["m"])
    assert await house.claim() == ["m"]
    assert list(await given(house)) == ["m[1]"]
    await house.end(m="succeeded")
    assert await house.claim() == ["after"]


async def test_fail_fast_ends_the_items_too(house):
    await house.define(
        "dag",
        task("bad"),
        task("m", **mapped("input", parallelism=2)),
        on_failure="fail_fast",
    )
    run = await house.begin("dag", b"[1, 2, 3, 4, 5]")
    await house.claim()
    await house.end(bad="dead")
    await house.end(m="cancelled")
    assert await house.run_state(run) == "failed"
    states = await house.states(run, items=True)
    assert states["m"] == "cancelled: fail_fast"
    assert states["m[4]"] == "skipped: fail_fast (bad)"


async def test_a_task_waits_for_an_instant(house):
    at = house.later(0)
    await house.define("dag", task("w", wait={"until": "${{ input.at }}"}), task("b", "w"))
    due = iso(house.later(30))
    house.now = at
    run = await house.begin("dag", msgspec.json.encode({"at": due}))
    assert (await house.states(run))["w"] == "waiting"
    assert iso((await house.wake()).next_at) == due
    house.later(30)
    await house.wake()
    assert await house.claim() == ["b"]


async def test_a_run_within_a_run(house):
    await house.define("inner", task("i", references=("input.x",)))
    await house.define(
        "outer",
        task("sub", dag={"dag_id": "inner", "input": {"x": "${{ input }}"}}),
        task("after", "sub"),
    )
    run = await house.begin("outer", b"5")
    await house.take_roots()
    assert (await house.states(run))["sub"] == "waiting"
    assert await house.claim() == ["i"]
    assert [bytes(r) for r in (await given(house))["i"].refs] == [b"5"]
    await house.end(i="succeeded")
    await house.end_roots()
    assert await house.claim() == ["after"]
    await house.run_all()
    assert await house.run_state(run) == "succeeded"
    assert await house.owner.fetchval("SELECT parent_run FROM dag_runs WHERE run <> $1", run) == run


async def test_a_run_within_a_run_fails_its_task_and_is_cancelled_with_it(house):
    await house.define("inner", task("i"))
    await house.define("outer", task("sub", dag={"dag_id": "inner"}))
    run = await house.begin("outer")
    await house.take_roots()
    await house.claim()
    await house.end(i="dead")
    await house.end_roots()
    assert await house.states(run) == {"sub": "failed: failed"}

    run = await house.begin("outer")
    await house.take_roots()
    await house.claim()
    await house.steer(cancel_run, run)
    inner = max(house.roots)
    assert inner in {id_ for id_, _ in await house.store.cancel_requests(house.node)}
    await house.store.cancel_runs([inner], now=house.now)
    await house.advance()
    await house.end(i="cancelled")
    await house.end_roots()
    assert await house.states(run) == {"sub": "cancelled: cancelled"}
    assert await house.run_state(run) == "cancelled"


async def test_a_run_within_a_run_that_somebody_cancels_fails_its_task(house):
    await house.define("inner", task("i"))
    await house.define("outer", task("sub", dag={"dag_id": "inner"}), task("after", "sub"))
    run = await house.begin("outer")
    await house.take_roots()
    await house.claim()
    await house.steer(cancel_run, max(house.roots))
    await house.end(i="cancelled")
    await house.end_roots()
    assert await house.states(run) == {
        "sub": "failed: cancelled",
        "after": "skipped: upstream_failed (sub)",
    }
    assert await house.run_state(run) == "failed"


async def test_runs_do_not_lie_within_each_other_without_end(house):
    await house.define("dag", task("self", dag={"dag_id": "dag"}))
    await house.begin("dag")
    for _ in range(20):
        await house.take_roots()
        await house.end_roots()
    states = await house.owner.fetch("SELECT state, reason FROM dag_tasks ORDER BY run")
    assert len(states) == 11
    assert {row["state"] for row in states} == {"failed"}
    assert states[-1]["reason"].startswith("dag: runs lie more than")


async def test_a_run_of_a_dag_that_there_is_not(house):
    await house.define("dag", task("sub", dag={"dag_id": "none"}))
    run = await house.begin("dag")
    assert await house.states(run) == {"sub": "failed: dag: there is no DAG 'none'"}
