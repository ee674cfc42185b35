"""What keeps the house, by the port alone: nodes, losses, turns, parents, keys, events."""

from datetime import timedelta

import pytest

from protocols.errors import NameHeldError
from protocols.ports.store import PoolLoad, Settled
from tests.contract.store.harness import NOW, Attempt, StoreHarness, at, ended, spec_of

pytestmark = pytest.mark.asyncio


async def states(house: StoreHarness, key: int):
    return [(row.state, row.reason) for row in await house.executions_of(key)]


async def settle(house: StoreHarness, *keys: int, now=NOW) -> Settled:
    return await house.store.settle(list(keys) or None, now=now)


async def beat(house: StoreHarness, node: int):
    return await house.store.beat(node, running={}, leads={}, clock_offset_s=0.0, ttl_s=5.0)


# --- nodes ----------------------------------------------------------------------------------


async def test_a_beat_is_told_what_the_books_hold_of_it(house: StoreHarness):
    pulse = await beat(house, house.node)
    assert (pulse.state, pulse.house_paused, pulse.leaderships) == ("up", False, 1)
    await house.pause(house=True)
    await house.end_node("draining")
    pulse = await beat(house, house.node)
    assert (pulse.state, pulse.house_paused) == ("draining", True)
    assert (await beat(house, house.node + 99)).state == "dead"


async def test_a_beat_is_told_who_else_lives_and_how_busy_they_are(house: StoreHarness):
    other = await house.join()
    await house.store.beat(other, running={"default": 3}, leads={}, clock_offset_s=0.0, ttl_s=5.0)
    peers = {peer.incarnation: peer for peer in (await beat(house, house.node)).peers}
    assert set(peers) == {house.node, other}
    assert (peers[other].name, peers[other].pools) == ("other", {"default": PoolLoad(4, 3)})
    await house.silence(other)
    assert [p.incarnation for p in (await beat(house, house.node)).peers] == [house.node]
    await house.store.leave(other, now=NOW)
    assert [p.incarnation for p in (await beat(house, house.node)).peers] == [house.node]


async def test_a_name_is_held_by_one_that_lives(house: StoreHarness):
    first = await house.join("a")
    await house.silence(first)
    with pytest.raises(NameHeldError) as held:
        await house.join("a")
    assert held.value.incarnation == first
    assert "on h, incarnation" in str(held.value)
    await beat(house, first)
    await house.store.bury(first, silent_since=held.value.last_beat_at, now=NOW)
    with pytest.raises(NameHeldError) as held:  # it had beaten since
        await house.join("a")
    await house.store.bury(first, silent_since=held.value.last_beat_at, now=NOW)
    second = await house.join("a")
    assert second > first
    assert (await beat(house, first)).state == "dead"
    await house.store.leave(second, now=NOW)
    assert await house.join("a") > second


async def test_what_the_buried_ran_is_lost(house: StoreHarness):
    key = await house.make_job(spec_of("j"))
    await house.trigger("j")
    other = await house.join()
    await house.claim(node=other)
    with pytest.raises(NameHeldError) as held:
        await house.join()
    await house.store.bury(other, silent_since=held.value.last_beat_at, now=at(9))
    assert await states(house, key) == [("scheduled", None)]


async def test_what_the_silent_ran_is_lost_once_and_ready_again(house: StoreHarness):
    key = await house.make_job(spec_of("j", overlap="allow"))
    unique = await house.make_job(spec_of("u", overlap="allow", guarantee="at_most_once"))
    other = await house.join()
    for name in ("j", "u"):
        await house.trigger(name)
    taken = await house.claim(node=other)
    await beat(house, house.node)
    await house.silence(other)
    assert list(await house.store.declare_dead(ttl_s=5, now=at(60))) == [other]
    assert list(await house.store.declare_dead(ttl_s=5, now=at(61))) == []
    assert (await beat(house, other)).state == "dead"
    (row,) = await house.executions_of(key)
    assert (row.state, row.run_at, row.losses, row.attempt) == ("scheduled", at(60), 1, 1)
    assert await states(house, unique) == [("dead", "lost")]
    lost = [Attempt(attempt=1, state="lost", exit_code=None, error=None)]
    for one in taken:
        assert await house.attempts_of(one.id) == lost
    assert (await house.store.finish(other, [ended(one) for one in taken])).accepted == []
    assert await house.claim(node=other, now=at(60)) == []
    (again,) = await house.claim(now=at(60))
    assert again.fencing_token > max(one.fencing_token for one in taken)
    assert (again.attempt, again.losses) == (2, 1)


async def test_losses_have_their_budget(house: StoreHarness):
    from protocols.jobs import Retry

    key = await house.make_job(spec_of("j", retry=Retry(max_lost=1)))
    await house.trigger("j")
    for number in range(2):
        other = await house.join(f"n{number}")
        assert len(await house.claim(node=other, now=at(number))) == 1
        await house.silence(other)
        await house.store.declare_dead(ttl_s=5, now=at(number))
        await beat(house, house.node)
    assert await states(house, key) == [("dead", "lost")]


async def test_what_was_to_be_cancelled_is_cancelled_by_its_loss(house: StoreHarness):
    key = await house.make_job(spec_of("j"))
    await house.trigger("j")
    (one,) = await house.claim()
    await house.request_cancel(one.id)
    assert await house.store.cancel_requests(house.node) == [(one.id, one.fencing_token)]
    await house.store.leave(house.node, now=at(5))
    assert await states(house, key) == [("cancelled", None)]
    assert await house.store.cancel_requests(house.node) == []


async def test_who_is_alone_knows_all_others_dead(house: StoreHarness):
    key = await house.make_job(spec_of("j"))
    await house.trigger("j")
    (one,) = await house.claim()
    assert list(await house.store.running(house.node, "default")) == [(one.id, one.fencing_token)]
    assert await house.join(alone=True) > house.node
    assert await states(house, key) == [("scheduled", None)]
    assert list(await house.store.running(house.node, "default")) == []


# --- what waits -----------------------------------------------------------------------------


async def test_a_free_turn_goes_to_who_waits_longest(house: StoreHarness):
    key = await house.make_job(spec_of("j", overlap="queue"))
    for _ in range(3):
        await house.trigger("j")
    assert (await settle(house, key)).pools == []
    (one,) = await house.claim()
    await house.succeed(one)
    assert (await settle(house, key)).pools == ["default"]
    assert [state for state, _ in await states(house, key)] == [
        "succeeded",
        "scheduled",
        "blocked",
    ]
    assert (await settle(house)).pools == []


async def test_what_is_meant_for_later_waits_its_turn_then(house: StoreHarness):
    key = await house.make_job(spec_of("j"))
    await house.trigger("j", run_at=at(60))
    assert (await settle(house, now=at(59))).pools == []
    assert await states(house, key) == [("blocked", "delayed")]
    assert (await settle(house, now=at(60))).pools == ["default"]
    assert len(await house.claim(now=at(60))) == 1


@pytest.mark.parametrize(
    ("policy", "end", "then"),
    [
        ("skip", "succeeded", ("scheduled", None)),
        ("skip", "dead", ("skipped", "dependency")),
        ("wait", "dead", ("blocked", "dependency")),
        ("run", "dead", ("scheduled", None)),
    ],
)
async def test_a_child_goes_by_the_end_of_its_parents_instant(
    house: StoreHarness, policy: str, end: str, then
):
    parent_spec = spec_of("p")
    parent = await house.make_job(parent_spec)
    spec = spec_of("c", dependencies=("p",), on_dependency_failure=policy)
    child = await house.make_job(spec, parents=[parent])
    term = await house.lead()
    await house.fire(term, parent_spec, parent, at(1))
    await house.fire(term, spec, child, at(1))
    await settle(house, now=at(2))
    assert await states(house, child) == [("blocked", "dependency")]
    (one,) = await house.claim(now=at(2))
    await house.store.finish(house.node, [ended(one, end)])
    await settle(house, parent, now=at(2))
    assert await states(house, child) == [then]


async def test_an_after_schedule_counts_from_the_finish(house: StoreHarness):
    spec = spec_of("j")
    key = await house.make_job(spec, after_s=30, next_fire_at=NOW)
    term = await house.lead()
    firing = await house.firing(spec, key, NOW + timedelta(microseconds=1))
    fields = {name: getattr(firing, name) for name in firing.__struct_fields__}
    fired = type(firing)(**{**fields, "next_fire_at": None})
    await house.store.fire(term, [fired], now=at(0.1))
    assert not (await settle(house, key)).schedules_changed
    (one,) = await house.claim(now=at(0.1))
    assert list((await house.succeed(one)).followers) == [key]
    assert (await settle(house, key)).schedules_changed
    assert (await house.schedule_of(key))[1] == at(31)


async def test_what_did_not_start_in_time_is_skipped(house: StoreHarness):
    key = await house.make_job(spec_of("j", expires_s=5, overlap="allow"))
    for _ in range(3):
        await house.trigger("j")
    await house.claim(1)
    assert await house.store.expire(now=at(4), limit=10) == 0
    assert await house.store.expire(now=at(5), limit=1) == 1
    assert await house.store.expire(now=at(5), limit=10) == 1
    told = sorted(await states(house, key), key=str)
    assert told == [("running", None), ("skipped", "expired"), ("skipped", "expired")]


# --- what tasks ask -------------------------------------------------------------------------


async def test_once_is_for_one_attempt_and_its_successor(house: StoreHarness):
    await house.make_job(spec_of("j", overlap="allow"))
    await house.trigger("j")
    await house.trigger("j")
    one, two = await house.claim()

    async def ask(claimed, now=NOW):
        return await house.store.once(claimed.id, claimed.fencing_token, "k", 60, now=now)

    assert [await ask(one), await ask(one), await ask(two)] == ["first", "first", "no"]
    again = ended(one, "scheduled", spends="retry", run_at=at(2))
    await house.store.finish(house.node, [again])
    assert await ask(one) is None
    (third,) = await house.claim(now=at(2))
    assert await ask(third) == "again"
    await house.succeed(third)
    assert [await ask(two, at(60)), await ask(two, at(61))] == ["no", "first"]


async def test_a_checkpoint_needs_the_token_in_force(house: StoreHarness):
    await house.make_job(spec_of("j"))
    await house.trigger("j")
    (one,) = await house.claim()
    save = house.store.save_checkpoint
    assert await save(one.id, one.fencing_token, b"1", now=NOW)
    assert not await save(one.id, one.fencing_token + 1, b"2", now=NOW)
    assert await house.store.checkpoints([one.id, one.id + 9]) == {one.id: b"1"}
