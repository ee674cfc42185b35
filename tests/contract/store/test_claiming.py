"""Claims share out what is due: each row to one node, lane by lane, limits kept exactly."""

import anyio
import pytest

from protocols.ports.store import Budget, Lane, Lanes, TriggerRequest
from tests.contract.store.harness import NOW, StoreHarness, at, ended, spec_of

pytestmark = pytest.mark.asyncio


async def enqueue(house: StoreHarness, job_id: str, count: int, **fields) -> None:
    request = TriggerRequest(tenant="default", job_id=job_id, **fields)
    await house.store.trigger([request] * count, now=NOW)


async def test_a_claim_marks_the_attempt_and_carries_a_growing_token(house: StoreHarness):
    key = await house.make_job(spec_of("j", overlap="allow"))
    await enqueue(house, "j", 2, input=b"1")
    one, two = await house.claim()
    assert {one.job_key, two.job_key} == {key}
    assert one.fencing_token < two.fencing_token
    assert (one.attempt, one.failures, one.losses, one.input) == (1, 0, 0, b"1")
    assert (one.tenant, one.job_id, one.version, one.priority) == ("default", "j", 1, 2)
    assert [row.state for row in await house.executions_of(key)] == ["running"] * 2
    assert await house.claim() == []


async def test_eight_claimers_never_share_a_row_and_lose_none(house: StoreHarness):
    key = await house.make_job(spec_of("j", overlap="allow"))
    await enqueue(house, "j", 400)
    taken = []

    async def claimer() -> None:
        empty = 0
        while empty < 2:  # one that found all rows locked looks again
            got = await house.claim(7)
            empty = 0 if got else empty + 1
            taken.extend(got)

    async with anyio.create_task_group() as claimers:
        for _ in range(8):
            claimers.start_soon(claimer)
    taken += await house.claim(400)
    assert len(taken) == 400
    assert len({claimed.id for claimed in taken}) == 400
    assert len({claimed.fencing_token for claimed in taken}) == 400
    assert {row.state for row in await house.executions_of(key)} == {"running"}


async def test_budgets_bound_each_lane_and_the_oldest_go_first(house: StoreHarness):
    for priority in (1, 2):
        spec = spec_of(f"p{priority}", overlap="allow", priority=priority)
        await house.make_job(spec)
        for second in (3, 1, 2):
            await house.trigger(f"p{priority}", run_at=at(second))
    claimed = await house.store.claim(
        "default",
        house.node,
        [Budget(Lane("default", 1), 2), Budget(Lane("default", 2), 1)],
        now=at(5),
        level=1,
    )
    assert sorted((c.priority, c.scheduled_for) for c in claimed) == [
        (1, at(1)),
        (1, at(2)),
        (2, at(1)),
    ]


async def test_lanes_say_what_is_due_and_what_comes_next(house: StoreHarness):
    await house.make_job(spec_of("j", overlap="allow"))
    await house.make_job(spec_of("low", overlap="allow", priority=3))
    await house.make_job(spec_of("elsewhere", overlap="allow", pool="other"))
    for name, second in (("j", 0), ("j", 30), ("low", 20), ("elsewhere", 1)):
        await house.trigger(name, run_at=at(second))
    lanes = await house.store.lanes("default", now=NOW, level=1)
    assert lanes == Lanes((Lane("default", 2),), at(20))
    lanes = await house.store.lanes("default", now=at(20), level=1)
    assert lanes == Lanes((Lane("default", 2), Lane("default", 3)), at(30))
    assert await house.store.lanes("none", now=NOW, level=1) == Lanes((), None)


async def test_what_needs_a_newer_node_or_cannot_be_imported_is_left(house: StoreHarness):
    key = await house.make_job(spec_of("j", overlap="allow"))
    await house.make_job(spec_of("other", overlap="allow"))
    await enqueue(house, "j", 1)
    await enqueue(house, "other", 1)
    assert await house.claim(level=0) == []
    assert (await house.store.lanes("default", now=NOW, level=0)).due == ()
    (claimed,) = await house.claim(refused=[(key, 1), (key, 2)])
    assert claimed.job_id == "other"
    assert len(await house.claim(refused=[(key, 2)])) == 1


@pytest.mark.parametrize("state", ["draining", "stopped", "dead"])
async def test_a_node_that_is_not_up_claims_nothing(house: StoreHarness, state: str):
    await house.make_job(spec_of("j"))
    await enqueue(house, "j", 1)
    await house.end_node(state)
    assert await house.claim() == []


async def test_a_paused_house_claims_nothing(house: StoreHarness):
    await house.make_job(spec_of("j"))
    await enqueue(house, "j", 1)
    await house.pause(house=True)
    assert await house.claim() == []
    await house.pause(house=False)
    assert len(await house.claim()) == 1


async def test_a_limit_is_exact_whoever_claims_at_once(house: StoreHarness):
    spec = spec_of("j", overlap="allow", concurrency_limit=3)
    key = await house.make_job(spec)
    await enqueue(house, "j", 50)
    lane = Lane("default", 2, f"job:{key}")
    assert (await house.store.lanes("default", now=NOW, level=1)).due == (lane,)
    taken = []

    async def claimer() -> None:
        taken.extend(await house.claim(2, key=lane.limit_key))

    async with anyio.create_task_group() as claimers:
        for _ in range(8):
            claimers.start_soon(claimer)
    assert len(taken) == 3
    assert await house.holders_of(key) == sorted(c.id for c in taken)
    assert (await house.store.lanes("default", now=NOW, level=1)).due == ()

    await house.succeed(taken.pop())
    (again,) = await house.claim(10, key=lane.limit_key)
    assert await house.holders_of(key) == sorted(c.id for c in (*taken, again))


async def test_limits_stay_exact_while_rows_come_and_go(house: StoreHarness):
    key = await house.make_job(spec_of("j", overlap="allow", concurrency_limit=2))
    await enqueue(house, "j", 60)
    running, most = 0, 0
    done = []

    async def worker() -> None:
        nonlocal running, most
        while len(done) < 60:
            for claimed in await house.claim(2, key=f"job:{key}"):
                running += 1
                most = max(most, running)
                running -= 1  # before the finish: its commit may free the place at any moment
                await house.succeed(claimed)
                done.append(claimed.id)

    async with anyio.create_task_group() as workers:
        for _ in range(6):
            workers.start_soon(worker)
    assert len(set(done)) == 60
    assert await house.holders_of(key) == []


async def test_one_limit_over_two_priorities_prefers_the_urgent(house: StoreHarness):
    spec = spec_of("j", overlap="allow", concurrency_limit=2, priority=3)
    key = await house.make_job(spec)
    await enqueue(house, "j", 2)
    await house.make_job(spec_of("j", overlap="allow", concurrency_limit=2, priority=0), version=2)
    await enqueue(house, "j", 1)
    lanes = (await house.store.lanes("default", now=NOW, level=1)).due
    claimed = await house.store.claim(
        "default", house.node, [Budget(lane, 5) for lane in lanes], now=NOW, level=1
    )
    assert sorted(c.priority for c in claimed) == [0, 3]
    assert len(await house.holders_of(key)) == 2


async def test_plain_and_limited_lanes_go_in_one_claim(house: StoreHarness):
    await house.make_job(spec_of("free", overlap="allow"))
    refused = await house.make_job(spec_of("refused", overlap="allow"))
    key = await house.make_job(spec_of("held", overlap="allow", concurrency_limit=1))
    for name in ("free", "held", "refused"):
        await enqueue(house, name, 3)
    claimed = await house.store.claim(
        "default",
        house.node,
        [Budget(Lane("default", 2), 9), Budget(Lane("default", 2, f"job:{key}"), 9)],
        now=NOW,
        level=1,
        refused=[(refused, 1)],
    )
    assert sorted(c.job_id for c in claimed) == ["free"] * 3 + ["held"]


async def test_a_handed_back_claim_leaves_no_trace(house: StoreHarness):
    from protocols.ports.store import GiveBack

    key = await house.make_job(spec_of("j", concurrency_limit=1))
    await enqueue(house, "j", 1)
    (claimed,) = await house.claim(key=f"job:{key}")
    stale = GiveBack(claimed.id, claimed.fencing_token + 1)
    await house.store.give_back(house.node, [stale])
    assert [row.state for row in await house.executions_of(key)] == ["running"]

    await house.store.give_back(
        house.node, [GiveBack(claimed.id, claimed.fencing_token, "unimportable")]
    )
    (row,) = await house.executions_of(key)
    assert (row.state, row.reason, row.attempt) == ("scheduled", "unimportable", 0)
    assert row.holds_turn
    assert await house.holders_of(key) == []
    assert await house.attempts_of(row.id) == []
    assert (await house.store.finish(house.node, [ended(claimed)])).accepted == []

    (again,) = await house.claim(key=f"job:{key}")
    assert again.attempt == 1
    assert again.fencing_token > claimed.fencing_token


async def test_what_was_asked_to_cancel_ends_where_it_is_handed_back(house: StoreHarness):
    from protocols.ports.store import GiveBack

    key = await house.make_job(spec_of("j", concurrency_limit=1))
    await enqueue(house, "j", 2)
    (claimed,) = await house.claim(key=f"job:{key}")
    await house.request_cancel(claimed.id)
    await house.store.give_back(house.node, [GiveBack(claimed.id, claimed.fencing_token)])

    first, second = await house.executions_of(key)
    assert (first.state, first.reason, first.attempt) == ("cancelled", None, 0)
    assert first.finished_at is not None
    assert second.state == "blocked"
    assert await house.holders_of(key) == []
    assert (await house.events())[-1] == ("cancelled", [claimed.id], ["cancelled"])
    await house.store.settle(None, now=at(1))
    assert [c.id for c in await house.claim(key=f"job:{key}", now=at(1))] == [second.id]


async def test_what_has_expired_is_not_started(house: StoreHarness):
    free = await house.make_job(spec_of("free", overlap="allow", expires_s=5.0))
    held = await house.make_job(spec_of("held", concurrency_limit=1, expires_s=5.0))
    other = await house.make_job(spec_of("other", overlap="allow"))
    for job_id in ("free", "held", "other"):
        await house.trigger(job_id)
    assert [c.job_id for c in await house.claim(now=at(5))] == ["other"]
    assert await house.claim(now=at(5), key=f"job:{held}") == []
    assert await house.holders_of(held) == []
    assert await house.store.expire(now=at(5), limit=10) == 2
    for key in (free, held):
        (row,) = await house.executions_of(key)
        assert (row.state, row.reason) == ("skipped", "expired")
    assert [row.state for row in await house.executions_of(other)] == ["running"]
