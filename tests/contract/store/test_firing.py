"""Schedules fire under the right epoch, once, and their instants go where their policy says."""

import asyncio

import anyio
import pytest

from protocols.errors import FencedError, NotFoundError
from protocols.ports.store import DueInstant
from tests.contract.store.harness import NOW, StoreHarness, at, ended, spec_of

pytestmark = pytest.mark.asyncio


def told(rows, *, of=("state", "reason", "holds_turn")):
    return [tuple(getattr(row, name) for name in of) for row in rows]


async def test_a_due_schedule_fires_and_its_cursor_moves(house: StoreHarness):
    spec = spec_of("j", priority=1, expires_s=60)
    key = await house.make_job(spec, next_fire_at=at(60))
    term = await house.lead()
    assert await house.due(term, until=at(59)) == []
    (row,) = await house.due(term, until=at(60))
    assert (row.job_key, row.version, row.cursor, row.next_fire_at) == (key, 1, NOW, at(60))
    assert list(await house.store.definitions([(key, 1), (key, 2)])) == [spec, None]

    instant = DueInstant(scheduled_for=at(60), run_at=at(63))
    fired = await house.fire(term, spec, key, instant)
    assert (list(fired.moved), list(fired.pools)) == ([key], ["default"])
    (made,) = await house.executions_of(key)
    assert (made.state, made.scheduled_for, made.run_at) == ("scheduled", at(60), at(63))
    assert (made.origin, made.priority, made.expires_at) == (0, 1, at(123))
    assert await house.schedule_of(key) == (at(60), at(120))
    assert await house.events() == [("fired", [made.id], ["scheduled"])]


async def test_a_leadership_that_is_gone_cannot_be_taken(house: StoreHarness):
    with pytest.raises(NotFoundError):
        await house.lead(7)


async def test_shards_are_due_to_their_leadership_only(house: StoreHarness):
    await house.make_job(spec_of("j"), next_fire_at=NOW)
    await house.reshard(2)
    assert await house.due(await house.lead(1)) == []
    assert len(await house.due(await house.lead(0))) == 1


async def test_a_reshard_ends_every_term(house: StoreHarness):
    key = await house.make_job(spec_of("j"), next_fire_at=at(60))
    alone = await house.lead()
    await house.reshard(2)
    with pytest.raises(FencedError):
        await house.due(alone)
    with pytest.raises(FencedError):
        await house.fire(alone, spec_of("j"), key, at(60))
    first, second = await house.lead(0), await house.lead(1)
    assert (first.leaderships, second.leaderships) == (2, 2)
    assert min(first.epoch, second.epoch) > alone.epoch
    await house.reshard(1)
    with pytest.raises(FencedError):
        await house.due(second)
    with pytest.raises(NotFoundError):
        await house.lead(1)
    await house.reshard(2)
    assert (await house.lead(1)).epoch > second.epoch


async def test_a_stale_epoch_changes_nothing(house: StoreHarness):
    key = await house.make_job(spec_of("j"), next_fire_at=at(60))
    stale, term = await house.lead(), await house.lead()
    assert term.epoch == stale.epoch + 1
    with pytest.raises(FencedError):
        await house.fire(stale, spec_of("j"), key, at(60))
    assert await house.executions_of(key) == []
    assert await house.schedule_of(key) == (NOW, at(60))


async def test_two_timers_on_one_instant_make_one_row(house: StoreHarness):
    spec = spec_of("j", overlap="allow")
    key = await house.make_job(spec, next_fire_at=at(60))
    term = await house.lead()
    firing = await house.firing(spec, key, at(60))
    moved = []

    async def timer():
        moved.extend((await house.store.fire(term, [firing], now=at(60))).moved)

    async with asyncio.TaskGroup() as timers:
        for _ in range(8):
            timers.create_task(timer())
    assert moved == [key]
    assert len(await house.executions_of(key)) == 1


async def test_a_row_that_is_not_as_seen_is_left_alone_and_the_others_fire(house: StoreHarness):
    specs = [spec_of(name) for name in "abc"]
    keys = [await house.make_job(spec, next_fire_at=at(60)) for spec in specs]
    await house.make_job(specs[1], version=2)
    term = await house.lead()
    firings = [
        await house.firing(specs[0], keys[0], at(60)),
        await house.firing(specs[1], keys[1], at(60), version=1),
        await house.firing(specs[2], keys[2], at(60), seen_cursor=at(-1)),
    ]
    fired = await house.store.fire(term, firings, now=at(60))
    assert list(fired.moved) == [keys[0]]
    assert [len(await house.executions_of(key)) for key in keys] == [1, 0, 0]


async def test_skipped_instants_and_runs_of_them_are_one_row_each(house: StoreHarness):
    spec = spec_of("j")
    key = await house.make_job(spec)
    run = DueInstant(scheduled_for=at(60), run_at=at(60), skip="misfire", last=at(6000), count=100)
    one = DueInstant(scheduled_for=at(7000), run_at=at(7000), skip="excluded")
    await house.fire(await house.lead(), spec, key, run, one, now=at(7000))
    rows = await house.executions_of(key)
    assert told(rows, of=("state", "reason", "instants", "last_scheduled_for")) == [
        ("skipped", "misfire", 100, at(6000)),
        ("skipped", "excluded", 1, None),
    ]
    assert rows[0].finished_at == at(7000)


async def test_the_turn_goes_to_the_first_instant_and_skip_drops_the_rest(house: StoreHarness):
    spec = spec_of("j")
    key = await house.make_job(spec)
    term = await house.lead()
    await house.fire(term, spec, key, at(2), at(1))
    await house.fire(term, spec, key, at(3))
    rows = sorted(await house.executions_of(key), key=lambda row: row.scheduled_for)
    assert told(rows) == [
        ("scheduled", None, True),
        ("skipped", "overlap", False),
        ("skipped", "overlap", False),
    ]


async def test_a_finished_turn_is_free_again(house: StoreHarness):
    spec = spec_of("j")
    key = await house.make_job(spec)
    term = await house.lead()
    await house.fire(term, spec, key, at(1))
    await house.succeed(*await house.claim(now=at(1)))
    await house.fire(term, spec, key, at(2))
    assert told(await house.executions_of(key), of=("state",)) == [("succeeded",), ("scheduled",)]


async def test_overlap_allow_runs_side_by_side(house: StoreHarness):
    spec = spec_of("j", overlap="allow")
    key = await house.make_job(spec)
    await house.fire(await house.lead(), spec, key, at(1), at(2), at(3))
    assert told(await house.executions_of(key)) == [("scheduled", None, False)] * 3


async def test_a_queue_holds_a_hundred(house: StoreHarness):
    spec = spec_of("j", overlap="queue")
    key = await house.make_job(spec)
    term = await house.lead()
    await house.fire(term, spec, key, *(at(n) for n in range(1, 52)))
    fired = await house.fire(term, spec, key, *(at(n) for n in range(52, 105)))
    assert list(fired.followers) == [key]
    states = told(await house.executions_of(key), of=("state", "reason"))
    assert states == [
        ("scheduled", None),
        *[("blocked", "overlap")] * 100,
        *[("skipped", "overlap")] * 3,
    ]


async def test_what_is_caught_up_waits_where_skip_would_drop_it(house: StoreHarness):
    spec = spec_of("j")
    key = await house.make_job(spec)
    late = [DueInstant(scheduled_for=at(n), run_at=at(9), caught_up=True) for n in (1, 2, 3)]
    await house.fire(await house.lead(), spec, key, *late)
    assert told(await house.executions_of(key), of=("state", "reason")) == [
        ("scheduled", None),
        ("blocked", "overlap"),
        ("blocked", "overlap"),
    ]


async def test_cancel_running_asks_the_runner_and_cancels_the_waiting(house: StoreHarness):
    spec = spec_of("j", overlap="cancel_running")
    key = await house.make_job(spec)
    term = await house.lead()
    await house.fire(term, spec, key, at(1))
    await house.claim(now=at(1))
    await house.fire(term, spec, key, at(2))
    await house.fire(term, spec, key, at(3), at(4))
    assert told(await house.executions_of(key), of=("state", "reason", "cancel_requested")) == [
        ("running", None, True),
        ("cancelled", "overlap", False),
        ("cancelled", "overlap", False),
        ("blocked", "overlap", False),
    ]


async def test_cancel_running_cancels_outright_what_has_not_started(house: StoreHarness):
    spec = spec_of("j", overlap="cancel_running")
    key = await house.make_job(spec)
    term = await house.lead()
    await house.fire(term, spec, key, at(1))
    fired = await house.fire(term, spec, key, at(2))
    assert list(fired.followers) == [key]
    assert told(await house.executions_of(key)) == [
        ("cancelled", "overlap", False),
        ("blocked", "overlap", False),
    ]


@pytest.mark.parametrize("where", ["job", "house"])
async def test_paused_instants_are_recorded_not_run(house: StoreHarness, where: str):
    spec = spec_of("j")
    key = await house.make_job(spec, paused=where == "job")
    if where == "house":
        await house.pause(house=True, leadership=True)
    lead = await house.lead()
    ahead = await house.fire(lead, spec, key, at(1))
    assert (list(ahead.moved), await house.executions_of(key)) == ([], []), "not before its instant"
    fired = await house.fire(lead, spec, key, at(1), now=at(1))
    assert (list(fired.moved), list(fired.pools)) == ([key], [])
    assert told(await house.executions_of(key)) == [("skipped", "paused", False)]
    assert (await house.schedule_of(key))[0] == at(1)


async def test_a_dependent_job_is_blocked_with_its_edges(house: StoreHarness):
    parents = [await house.make_job(spec_of(name)) for name in ("a", "b")]
    spec = spec_of("j", dependencies=("a", "b"))
    key = await house.make_job(spec, parents=parents)
    fired = await house.fire(await house.lead(), spec, key, at(1))
    (row,) = await house.executions_of(key)
    assert (row.state, row.reason, row.holds_turn) == ("blocked", "dependency", False)
    assert await house.parents_of(row.id) == parents
    assert list(fired.followers) == [key]


async def test_catching_up_is_due_to_whoever_leads_next(house: StoreHarness):
    spec = spec_of("j")
    key = await house.make_job(spec)
    term = await house.lead()
    cursor, _ = await house.schedule_of(key)
    firing = await house.firing(spec, key, at(1), next_fire_at=None)
    missed = {"catchup_from": at(2), "catchup_until": at(5)}
    fields = {name: getattr(firing, name) for name in firing.__struct_fields__}
    await house.store.fire(term, [type(firing)(**{**fields, **missed})], now=NOW)
    (row,) = await house.due(await house.lead(), until=NOW)
    assert (row.next_fire_at, row.catchup_from, row.catchup_until) == (None, at(2), at(5))
    assert cursor == NOW


async def test_an_instant_that_has_a_row_is_passed_over(house: StoreHarness):
    """A timer whose cursor fell behind the rows must not stand still before them for ever."""
    spec = spec_of("j", overlap="allow")
    key = await house.make_job(spec)
    term = await house.lead()
    await house.fire(term, spec, key, at(1), at(2), cursor=NOW)
    (first, *_) = await house.claim(1, now=at(9))
    await house.store.finish(house.node, [ended(first)])
    fired = await house.fire(term, spec, key, at(1), at(2), at(3))
    assert list(fired.moved) == [key]
    rows = await house.executions_of(key)
    assert sorted(row.scheduled_for for row in rows) == [at(1), at(2), at(3)]


async def test_firing_and_triggering_at_once_share_out_the_turn(house: StoreHarness):
    spec = spec_of("j", overlap="queue")
    key = await house.make_job(spec)
    term = await house.lead()
    async with anyio.create_task_group() as racers:
        for _ in range(6):
            racers.start_soon(house.trigger, "j")
        racers.start_soon(house.fire, term, spec, key, at(1))
    rows = await house.executions_of(key)
    assert sum(row.holds_turn for row in rows) == 1
    assert {row.state for row in rows if not row.holds_turn} == {"blocked"}
    assert len(rows) == 7
