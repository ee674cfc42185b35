"""What people and events ask for: one execution each, and one for each idempotency key."""

import anyio
import pytest

from protocols.errors import KeyReusedError, NotFoundError
from protocols.ports.store import Triggered, TriggerRequest
from tests.contract.store.harness import NOW, StoreHarness, at, spec_of

pytestmark = pytest.mark.asyncio


async def test_a_triggered_job_is_there_at_once(house: StoreHarness):
    key = await house.make_job(spec_of("j", pool="p", priority=0, expires_s=5))
    answer = await house.trigger("j", input=b'{"day": 3}')
    (row,) = await house.executions_of(key)
    assert answer == Triggered(id=row.id, created_at=NOW, job_key=key, state="scheduled", pool="p")
    assert (row.origin, row.scheduled_for, row.run_at, row.input) == (
        row.id,
        NOW,
        NOW,
        b'{"day": 3}',
    )
    assert (row.pool, row.priority, row.expires_at, row.holds_turn) == ("p", 0, at(5), True)
    assert await house.events() == [("triggered", [row.id], ["scheduled"])]


async def test_a_batch_answers_in_its_order_with_errors_in_their_place(house: StoreHarness):
    keys = [await house.make_job(spec_of(name, overlap="allow")) for name in ("a", "b")]
    answers = await house.store.trigger(
        [
            TriggerRequest(tenant="default", job_id="b"),
            TriggerRequest(tenant="default", job_id="nobody"),
            TriggerRequest(tenant="default", job_key=keys[0]),
            TriggerRequest(tenant="other", job_id="a"),
            TriggerRequest(tenant="other", job_key=keys[0]),
        ],
        now=NOW,
    )
    assert [getattr(answer, "job_key", None) for answer in answers] == [
        keys[1],
        None,
        keys[0],
        None,
        None,
    ]
    assert [type(answer) for answer in answers].count(NotFoundError) == 3


async def test_under_skip_a_person_waits_and_is_never_dropped(house: StoreHarness):
    key = await house.make_job(spec_of("j"))
    for _ in range(3):
        assert isinstance(await house.trigger("j"), Triggered)
    rows = await house.executions_of(key)
    assert [row.state for row in rows] == ["scheduled", "blocked", "blocked"]


async def test_a_paused_job_can_still_be_triggered(house: StoreHarness):
    await house.make_job(spec_of("j"), paused=True)
    assert (await house.trigger("j")).state == "scheduled"


async def test_an_event_for_a_paused_job_is_a_skipped_row(house: StoreHarness):
    key = await house.make_job(spec_of("j"), paused=True)
    answer = await house.trigger("j", by_event=True, key="k")
    assert answer.state == "skipped"
    assert (await house.trigger("j", by_event=True, key="k")).id == answer.id
    (row,) = await house.executions_of(key)
    assert (row.state, row.reason) == ("skipped", "paused")


async def test_what_is_meant_for_later_leaves_the_turn_to_others(house: StoreHarness):
    spec = spec_of("j")
    key = await house.make_job(spec)
    await house.trigger("j", run_at=at(3600))
    await house.fire(await house.lead(), spec, key, at(1))
    later, fired = await house.executions_of(key)
    assert (later.state, later.reason, later.scheduled_for, later.run_at) == (
        "blocked",
        "delayed",
        at(3600),
        at(3600),
    )
    assert (fired.state, fired.holds_turn) == ("scheduled", True)


async def test_overlap_allow_needs_no_turn_later(house: StoreHarness):
    await house.make_job(spec_of("j", overlap="allow"))
    assert (await house.trigger("j", run_at=at(60))).state == "scheduled"
    assert await house.claim(now=at(59)) == []
    assert len(await house.claim(now=at(60))) == 1


async def test_dependencies_are_looked_at_only_when_asked(house: StoreHarness):
    parent = await house.make_job(spec_of("p"))
    await house.make_job(spec_of("j", dependencies=("p",)), parents=[parent])
    waiting = await house.trigger("j", with_dependencies=True)
    assert waiting.state == "blocked"
    assert await house.parents_of(waiting.id) == [parent]
    assert (await house.trigger("j")).state == "scheduled"


async def test_what_its_parents_let_go_for_later_leaves_the_turn_to_others(house: StoreHarness):
    parent = await house.make_job(spec_of("p", overlap="allow"))
    key = await house.make_job(spec_of("j", dependencies=("p",)), parents=[parent])
    await house.trigger("p")
    await house.succeed(*await house.claim())
    later = await house.trigger("j", with_dependencies=True, run_at=at(3600))
    await house.store.settle(None, now=at(2))
    assert await house.parents_of(later.id) == []
    assert (await house.trigger("j")).state == "scheduled"
    first, second = await house.executions_of(key)
    assert (first.state, first.reason, first.holds_turn) == ("blocked", "delayed", False)
    assert second.holds_turn

    await house.succeed(*await house.claim())
    await house.store.settle(None, now=at(3599))
    assert await house.claim(now=at(3599)) == []
    await house.store.settle(None, now=at(3600))
    assert [c.id for c in await house.claim(now=at(3600))] == [later.id]


async def test_a_known_key_gives_the_same_execution_for_a_day(house: StoreHarness):
    key = await house.make_job(spec_of("j", overlap="allow"))
    first = await house.trigger("j", key="k", body_hash=b"1")
    again = await house.trigger("j", key="k", body_hash=b"1")
    assert (first.known, again.known) == (False, True)
    assert (again.id, again.created_at) == (first.id, first.created_at)
    assert isinstance(await house.trigger("j", key="k", body_hash=b"2"), KeyReusedError)

    (late,) = await house.store.trigger(
        [TriggerRequest(tenant="default", job_id="j", key="k", body_hash=b"2")], now=at(86400)
    )
    assert not late.known
    assert len(await house.executions_of(key)) == 2


async def test_a_key_is_its_jobs_own(house: StoreHarness):
    for name in ("a", "b"):
        await house.make_job(spec_of(name))
    answers = [await house.trigger(name, key="k", body_hash=name.encode()) for name in ("a", "b")]
    assert [answer.known for answer in answers] == [False, False]


async def test_one_key_twice_in_a_batch_is_one_execution(house: StoreHarness):
    key = await house.make_job(spec_of("j", overlap="allow"))
    request = TriggerRequest(tenant="default", job_id="j", key="k", body_hash=b"1")
    by_key = TriggerRequest(tenant="default", job_key=key, key="k", body_hash=b"1")
    answers = await house.store.trigger([request, request, by_key], now=NOW)
    assert len({answer.id for answer in answers}) == 1
    assert sorted(answer.known for answer in answers) == [False, True, True]
    assert len(await house.executions_of(key)) == 1


async def test_racing_requests_with_one_key_make_one_execution(house: StoreHarness):
    key = await house.make_job(spec_of("j", overlap="allow"))
    answers = []

    async def ask(number: int) -> None:
        answers.append(await house.trigger("j", key=f"k{number % 3}", body_hash=b"1"))

    async with anyio.create_task_group() as racers:
        for number in range(12):
            racers.start_soon(ask, number)
    assert len(await house.executions_of(key)) == 3
    assert len({answer.id for answer in answers}) == 3
    assert sum(not answer.known for answer in answers) == 3
