"""What one execution's end lets go, from the instant to the finish, by the port alone."""

from datetime import timedelta

import pytest

from protocols.ports.store import NodeInfo
from tests.contract.store.harness import NOW, StoreHarness, at, ended, spec_of

pytestmark = pytest.mark.postgres


async def states(house: StoreHarness, job_key: int):
    return [(row.state, row.reason) for row in await house.executions_of(job_key)]


@pytest.mark.asyncio
async def test_a_queue_runs_one_after_the_other(house: StoreHarness):
    spec = spec_of("j", overlap="queue")
    job = await house.make_job(spec)
    term = await house.lead()
    await house.fire(term, spec, job, at(0), at(1), at(2))
    for done in range(3):
        (claimed,) = await house.claim(now=at(10))
        assert claimed.scheduled_for == at(done)
        assert await house.claim(now=at(10)) == []
        answer = await house.succeed(claimed)
        assert list(answer.followers) == ([job] if done < 2 else [])
        settled = await house.store.settle([job], now=at(11))
        assert list(settled.pools) == (["default"] if done < 2 else [])
    assert await states(house, job) == [("succeeded", None)] * 3


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("end", "becomes"),
    [("succeeded", ("scheduled", None)), ("dead", ("skipped", "dependency"))],
)
async def test_a_child_follows_its_parent_of_the_same_instant(house: StoreHarness, end, becomes):
    parent_spec, child_spec = spec_of("p"), spec_of("c", dependencies=("p",))
    parent = await house.make_job(parent_spec, next_fire_at=at(60))
    child = await house.make_job(child_spec, parents=[parent])
    term = await house.lead()
    await house.fire(term, child_spec, child, at(60))
    await house.store.settle(None, now=at(60))
    assert await states(house, child) == [("blocked", "dependency")]  # the parent has yet to fire

    await house.fire(term, parent_spec, parent, at(60))
    (claimed,) = await house.claim(now=at(61))
    await house.store.settle(None, now=at(61))
    assert await states(house, child) == [("blocked", "dependency")]

    answer = await house.store.finish(house.node, [ended(claimed, end)])
    assert list(answer.followers) == [parent]
    await house.store.settle(answer.followers, now=at(62))
    assert await states(house, child) == [becomes]
    assert await house.parents_of((await house.executions_of(child))[0].id) == []


@pytest.mark.asyncio
async def test_after_is_armed_by_the_finish(house: StoreHarness):
    spec = spec_of("j")
    job = await house.make_job(spec, after_s=90.0)
    term = await house.lead()
    await house.fire(term, spec, job, at(0), next_fire_at=None)
    (claimed,) = await house.claim()
    assert not (await house.store.settle([job], now=at(1))).schedules_changed
    answer = await house.succeed(claimed)
    assert (await house.store.settle(answer.followers, now=at(2))).schedules_changed
    assert await house.schedule_of(job) == (at(0), at(1) + timedelta(seconds=90))


@pytest.mark.asyncio
async def test_what_is_asked_for_later_takes_its_turn_then(house: StoreHarness):
    job = await house.make_job(spec_of("j"))
    await house.trigger("j", run_at=at(60))
    assert not (await house.store.settle(None, now=at(59))).pools
    assert await house.claim(now=at(60)) == []
    assert list((await house.store.settle(None, now=at(60))).pools) == ["default"]
    assert len(await house.claim(now=at(60))) == 1
    assert await states(house, job) == [("running", None)]


@pytest.mark.asyncio
async def test_a_node_that_left_work_behind_loses_it_to_the_next_claim(house: StoreHarness):
    job = await house.make_job(spec_of("j", concurrency_limit=1, overlap="allow"))
    info = NodeInfo(
        name="late", url="", pid=1, host="h", version="0", level=1, pools={"default": 1}
    )
    other = await house.store.join(info, now=NOW, alone=False)
    await house.trigger("j")
    key = f"job:{job}"
    (claimed,) = await house.claim(node=other, key=key)
    assert await house.holders_of(job) == [claimed.id]
    await house.store.leave(other, now=at(5))
    assert await house.holders_of(job) == []
    assert await house.claim(node=other, key=key, now=at(5)) == []
    (again,) = await house.claim(key=key, now=at(5))
    assert (again.id, again.attempt, again.losses) == (claimed.id, 2, 1)
    assert again.fencing_token > claimed.fencing_token
    late = await house.store.finish(other, [ended(claimed)])
    assert list(late.accepted) == []
    assert [one.state for one in await house.attempts_of(claimed.id)] == ["lost"]


@pytest.mark.asyncio
async def test_once_and_checkpoints_end_with_success(house: StoreHarness):
    await house.make_job(spec_of("j", overlap="allow"))
    for _ in range(2):
        await house.trigger("j")
    one, two = await house.claim()
    ask = house.store.once
    assert await ask(one.id, one.fencing_token, "k", 60.0, now=NOW) == "first"
    assert await house.store.save_checkpoint(one.id, one.fencing_token, b"1", now=NOW)
    assert await house.store.checkpoints([one.id, two.id]) == {one.id: b"1"}
    assert await ask(two.id, two.fencing_token, "k", 60.0, now=NOW) == "no"
    await house.succeed(one)  # at(1)
    assert await ask(one.id, one.fencing_token, "k", 60.0, now=at(2)) is None
    assert await ask(two.id, two.fencing_token, "k", 60.0, now=at(60.9)) == "no"
    assert await ask(two.id, two.fencing_token, "k", 60.0, now=at(61)) == "first"
    assert await house.store.checkpoints([one.id]) == {}
