"""A worker runs each attempt once, writes every end, and loses nothing when it is restarted."""

import pytest

from actors.dispatcher.messages import Assign
from protocols.jobs import Retry
from protocols.messages import Ready
from protocols.ports.executor import Request
from protocols.ports.store import Budget, Lane
from runtime.kernel.context import local

pytestmark = pytest.mark.asyncio


async def claimed(house, count=1):
    budget = Budget(Lane("default", 2), count)
    now = house.kit.clock.now()
    return await house.line.store.claim("default", house.node, [budget], now=now, level=1)


async def running(house, count=1, **fields):
    """A worker with so many executions in its executor."""
    await house.trigger(house.job(**fields), count)
    worker = house.spawn_worker()
    worker.tell(Assign(await claimed(house, count), 1, count))
    await house.kit.wait_until(lambda: len(house.executor.started) == count)
    return worker


async def ask(house, kind, value):
    """Have the running attempt ask, and wait for the answer."""
    one = house.executor.started[0]
    request = Request(number=3, id=one.id, fencing_token=one.fencing_token, kind=kind, value=value)
    house.executor.tell(request)
    await house.kit.wait_until(lambda: 3 in house.executor.answers)


async def test_a_doubled_assignment_runs_once(open_house):
    async with open_house() as house:
        await house.trigger(house.job())
        worker = house.spawn_worker()
        assign = Assign(await claimed(house), 1, 1)
        worker.tell(assign)
        await house.kit.wait_until(lambda: bool(house.executor.started))
        house.executor.end(house.executor.started[0])
        await house.kit.wait_until(lambda: house.states() == ["succeeded"])
        worker.tell(assign)
        await house.kit.advance(5.0)
        assert len(house.executor.started) == 1


async def test_ends_are_kept_over_an_outage_and_written_after_it(open_house):
    async with open_house() as house:
        await running(house, 2)
        house.line.away = True
        for one in list(house.executor.started):
            house.executor.end(one)
        await house.kit.advance(30.0)
        assert house.line.asked.count("finish") < 60
        assert len(house.held.ended) == 2
        house.line.away = False
        await house.kit.wait_until(lambda: house.states() == ["succeeded"] * 2, within_s=3.0)
        assert not house.held.busy


async def test_an_end_whose_answer_was_lost_is_written_once(open_house):
    async with open_house() as house:
        await running(house, retry=Retry(max_retries=1))
        house.line.lose.add("finish")
        house.executor.end(house.executor.started[0], "failed")
        await house.kit.wait_until(lambda: not house.held.busy)
        assert house.books.hot[1].failures == 1
        assert len(house.books.attempts[1]) == 1


@pytest.mark.parametrize("limit", [None, 1])
async def test_an_end_that_makes_room_under_a_limit_wakes_the_dispatcher(open_house, limit):
    async with open_house() as house:
        job = house.job(concurrency_limit=limit)
        await house.trigger(job)
        (lane,) = (await house.line.store.lanes("default", now=house.kit.clock.now(), level=1)).due
        now = house.kit.clock.now()
        rows = await house.line.store.claim(
            "default", house.node, [Budget(lane, 1)], now=now, level=1
        )
        house.spawn_worker().tell(Assign(rows, 1, 1))
        await house.kit.wait_until(lambda: bool(house.executor.started))
        house.executor.end(house.executor.started[0])
        await house.kit.wait_until(lambda: not house.held.busy)
        assert (Ready("default") in house.hints) == (limit is not None)


async def test_definitions_are_asked_for_at_a_pace(open_house):
    async with open_house() as house:
        await house.trigger(house.job())
        assign = Assign(await claimed(house), 1, 1)
        house.line.away = True
        house.spawn_worker().tell(assign)
        await house.kit.advance(10.0)
        assert 10 <= house.line.asked.count("definitions") <= 25
        house.line.away = False
        await house.kit.wait_until(lambda: bool(house.executor.started), within_s=1.0)


async def test_a_restart_ends_nothing_that_runs(open_house):
    async with open_house() as house:
        worker = await running(house)
        local(worker).fail(ValueError("bug"))
        await house.kit.wait_restarts(worker, 1)
        assert not house.executor.stopped
        house.executor.end(house.executor.started[0])
        await house.kit.wait_until(lambda: house.states() == ["succeeded"])


async def test_what_was_asked_before_a_restart_is_answered_after_it(open_house):
    async with open_house() as house:
        worker = await running(house)
        one = house.executor.started[0]
        house.line.away = True
        ask = {"id": one.id, "fencing_token": one.fencing_token}
        house.executor.tell(Request(number=3, kind="checkpoint", value=b"7", **ask))
        await house.kit.wait_until(lambda: "save_checkpoint" in house.line.asked)
        local(worker).fail(ValueError("bug"))
        await house.kit.wait_restarts(worker, 1)
        house.line.away = False
        await house.kit.wait_until(lambda: 3 in house.executor.answers)
        assert house.executor.answers[3] == (True, None)
        assert house.held.requests == {}


async def test_an_event_whose_answer_was_lost_is_told_once(open_house):
    async with open_house() as house:
        await running(house)
        one = house.executor.started[0]
        house.line.lose.add("emit")
        ask = {"id": one.id, "fencing_token": one.fencing_token}
        value = b'{"event": "go", "payload": {"n": 1}}'
        house.executor.tell(Request(number=3, kind="emit", value=value, **ask))
        await house.kit.wait_until(lambda: 3 in house.executor.answers)
        assert house.line.asked.count("emit") == 2
        assert [event.name for event in house.books.events if event.kind == "emitted"] == ["go"]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("once", b'{"key": "%s", "ttl_s": 5}' % (b"k" * 300)),
        ("once", b'{"key": "", "ttl_s": 5}'),
        ("emit", b'{"event": "%s"}' % (b"e" * 300)),
    ],
)
async def test_a_name_that_no_index_holds_is_its_askers_error(open_house, kind, value):
    async with open_house() as house:
        await running(house)
        await ask(house, kind, value)
        (answer, error) = house.executor.answers[3]
        assert answer is None
        assert "length" in error
        assert kind not in house.line.asked


async def test_no_question_of_a_task_ends_the_worker(open_house):
    async with open_house() as house:
        worker = await running(house)
        house.line.fault = ValueError("no text of yours")
        await ask(house, "checkpoint", b"7")
        assert house.executor.answers[3] == (None, "the node cannot: ValueError")
        assert local(worker).restarts == 0
        assert house.held.requests == {}


async def test_what_was_claimed_and_never_came_is_handed_back(open_house):
    async with open_house() as house:
        await house.trigger(house.job())
        rows = await claimed(house)
        worker = house.spawn_worker()
        await house.kit.wait_until(lambda: house.states() == ["scheduled"], within_s=5.0)
        assert house.books.hot[1].attempt == 0
        worker.tell(Assign(rows, 1, 1))  # it comes after all
        await house.kit.advance(2.0)
        assert house.executor.started == []


async def test_a_cancel_is_found_by_the_poll(open_house):
    async with open_house() as house:
        await running(house)
        house.books.hot[1].cancel_requested = True
        one = house.executor.started[0]
        await house.kit.wait_until(lambda: bool(house.executor.cancelled), within_s=1.5)
        assert house.executor.cancelled[0] == (one.id, one.fencing_token)


async def test_a_worker_with_nothing_in_hand_leaves_the_books_alone(open_house):
    async with open_house() as house:
        house.spawn_worker()
        await house.kit.advance(3.0)
        house.line.asked.clear()
        await house.kit.advance(10.0)
        assert house.line.asked == []


async def test_at_the_nodes_end_all_is_ended_written_or_handed_back(open_house):
    async with open_house() as house:
        job = house.job()
        await house.trigger(job, 4)
        worker = house.spawn_worker()
        worker.tell(Assign(await claimed(house, 2), 1, 2))
        await house.kit.wait_until(lambda: len(house.executor.started) == 2)
        done, late = house.executor.started
        house.executor.end(done)
        await claimed(house)  # its assignment is lost
        worker.tell(Assign(await claimed(house), 1, 4))  # and this one lies unread
        house.held.closing = True
        await house.kit.main.stop_actor(worker)
        assert not house.held.busy
        assert house.states() == ["succeeded", "scheduled", "scheduled", "scheduled"]
        rows = house.books.hot
        assert [rows[id_].attempt for id_ in sorted(rows)] == [1, 0, 0]
        assert [a.state for a in house.books.attempts[late.id]] == ["lost"]
        assert rows[late.id].losses == 0, "a bystander's loss is nobody's fault"
        assert set(house.books.attempts) == {late.id}
