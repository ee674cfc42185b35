"""Expressions that cost much hold up neither the node nor, for long, what others have to start."""

import time
from types import SimpleNamespace

import anyio
import anyio.lowlevel
import msgspec
import pytest

from actors.dag import values
from protocols.dags import TaskInput
from runtime.postgres import pool as pools
from runtime.postgres.dags import advance, starting
from runtime.postgres.dags.control import cancel_run
from runtime.postgres.dags.progress import Turn
from runtime.postgres.dags.rows import leave_looks
from runtime.postgres.pool import NODE_ROLE, Pool
from runtime.postgres.store import PostgresStore
from tests.contract.dags.conftest import ended
from tests.support.dags import task

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]

ITEMS = b"[0, 1, 2, 3, 4, 5, 6, 7]"


def mapped(**fields):
    return task(
        "m", references=("item",), map={"over": "input", "parallelism": 8, "limit": 8}, **fields
    )


async def test_a_turn_starts_what_it_has_time_for_and_the_next_goes_on(house, monkeypatch):
    monkeypatch.setattr(starting, "TURN_S", 0.0)
    await house.define("dag", mapped(), task("after", "m", references=("tasks.m.state",)))
    run = await house.begin("dag", ITEMS)
    started = []
    while (await house.store.advance(now=house.now, limit=100)).more:
        started += await house.claim()
    turns = len(started)
    started += await house.claim()
    assert (turns, started) == (7, ["m"] * 8)
    given = [msgspec.json.decode(row.input, type=TaskInput) for row in house.running.values()]
    assert sorted(one.number for one in given) == list(range(8))
    await house.run_all()
    assert await house.run_state(run) == "succeeded"
    assert not await house.owner.fetchval("SELECT count(*) FROM dag_ended")


async def test_a_run_is_stopped_though_some_of_it_was_left_for_later(house, monkeypatch):
    monkeypatch.setattr(starting, "TURN_S", 0.0)
    tasks = [task(f"t{n}", "first", references=("input",)) for n in range(4)]
    await house.define("dag", task("first"), task("bad", "first"), *tasks, on_failure="fail_fast")
    run = await house.begin("dag")
    await house.claim()
    (first,) = house.running.values()
    await house.store.finish(house.node, [ended(first)])
    assert (await house.store.advance(now=house.now, limit=100)).more
    assert sorted(await house.claim()) == ["bad", "t0"]
    await house.end(bad="dead", t0="cancelled")
    assert await house.run_state(run) == "failed"
    states = await house.states(run)
    assert [states[f"t{n}"] for n in (1, 2, 3)] == ["skipped: fail_fast (bad)"] * 3


async def test_the_node_lives_between_one_costly_task_and_the_next(house, monkeypatch):
    monkeypatch.setattr(starting, "_HOLD_S", 0.0)
    beats = 0
    at_work: list[int] = []
    work = values.worked_out

    def counted(*arguments, **fields):
        at_work.append(beats)
        return work(*arguments, **fields)

    monkeypatch.setattr(values, "worked_out", counted)

    async def beat() -> None:
        nonlocal beats
        while True:
            await anyio.lowlevel.checkpoint()
            beats += 1

    await house.define("dag", mapped())
    async with anyio.create_task_group() as group:
        group.start_soon(beat)
        await house.begin("dag", ITEMS)
        group.cancel_scope.cancel()
    assert len(at_work) == len(set(at_work)) == 8


async def test_handlers_too_are_left_and_looked_at_again(house, monkeypatch):
    monkeypatch.setattr(starting, "TURN_S", 0.0)
    await house.define(
        "dag",
        task("a"),
        *(task(f"alas{n}", role="on_failure", references=("run.id",)) for n in range(3)),
        *(task(f"last{n}", role="finally", references=("run.id",)) for n in range(3)),
    )
    run = await house.begin("dag")
    await house.claim()
    await house.end(a="dead")
    assert await house.claim() == ["alas0", "alas1", "alas2"]
    await house.end(alas0="succeeded", alas1="dead", alas2="succeeded")
    assert await house.claim() == ["last0"]
    await house.run_all()  # what was left of `finally` begins as the first of it ends
    assert await house.run_state(run) == "failed"
    states = await house.states(run)
    assert {name: state for name, state in states.items() if state != "succeeded"} == {
        "a": "failed: failed",
        "alas1": "failed: failed",
    }


async def test_looks_that_are_left_take_no_place_of_ends(house):
    await house.define("dag", task("a"), task("b", "a"))
    runs = [await house.begin("dag") for _ in range(4)]
    await house.claim()
    rows = [(run, "default") for run in runs]
    async with house.house.pool.transaction() as session:
        await leave_looks(session, rows, now=house.now)
    one = next(iter(house.running.values()))
    await house.store.finish(house.node, [ended(one)])
    assert (await house.store.advance(now=house.now, limit=1)).more
    assert await house.claim() == ["b"]


async def test_costly_tasks_leave_handlers_their_time(house, monkeypatch):
    monkeypatch.setattr(starting, "TURN_S", 0.0)
    await house.define("busy", mapped())
    await house.define("dag", task("a"), task("alas", role="on_failure", references=("run.id",)))
    await house.begin("dag")
    await house.claim()
    await house.begin("busy", ITEMS)
    (one,) = house.running.values()
    await house.store.finish(house.node, [ended(one, "dead")])
    assert (await house.store.advance(now=house.now, limit=100)).more
    assert sorted(await house.claim()) == ["alas", "m", "m", "m"]


async def test_a_run_whose_handler_was_left_is_over_in_time(house, monkeypatch):
    monkeypatch.setattr(starting, "TURN_S", 0.0)
    handler = task("hurray", role="on_success", references=("run.id",))
    await house.define("dag", task("a"), handler, timeout_s=10)
    runs = [await house.begin("dag") for _ in range(2)]
    await house.claim()
    await house.store.finish(house.node, [ended(row) for row in house.running.values()])
    assert (await house.store.advance(now=house.now, limit=100)).more
    assert await house.claim() == ["hurray"]
    house.later(20)
    await house.wake()
    await house.run_all()
    assert [await house.run_state(run) for run in runs] == ["succeeded"] * 2
    assert [(await house.states(run))["hurray"] for run in runs] == ["succeeded"] * 2


async def test_a_run_that_is_cancelled_while_its_handler_is_left_has_its_finally(
    house, monkeypatch
):
    monkeypatch.setattr(starting, "TURN_S", 0.0)
    handler = task("hurray", role="on_success", references=("run.id",))
    await house.define("dag", task("a"), handler, task("last", role="finally"))
    runs = [await house.begin("dag") for _ in range(2)]
    await house.claim()
    await house.store.finish(house.node, [ended(row) for row in house.running.values()])
    assert (await house.store.advance(now=house.now, limit=100)).more
    assert await house.claim() == ["hurray"]
    (left,) = [run for run in runs if (await house.states(run))["hurray"] == "blocked"]
    await house.steer(cancel_run, left)
    await house.run_all()
    assert await house.run_state(left) == "cancelled"
    states = await house.states(left)
    assert (states["hurray"], states["last"]) == ("skipped: trigger", "succeeded")


async def test_a_run_that_is_cancelled_again_while_its_finally_is_left_has_none(house, monkeypatch):
    monkeypatch.setattr(starting, "TURN_S", 0.0)
    await house.define("dag", task("a"), task("last", role="finally", references=("run.id",)))
    runs = [await house.begin("dag") for _ in range(2)]
    await house.claim()
    await house.store.finish(house.node, [ended(row) for row in house.running.values()])
    for run in runs:
        await house.ask(cancel_run, run=await house.name(run), now=house.now)
    assert (await house.store.advance(now=house.now, limit=100)).more
    assert await house.claim() == ["last"]
    (left,) = [run for run in runs if (await house.states(run))["last"] == "blocked"]
    await house.steer(cancel_run, left)
    await house.run_all()
    states = [(await house.states(run))["last"] for run in runs]
    assert sorted(states) == ["skipped: cancelled", "succeeded"]
    assert [await house.run_state(run) for run in runs] == ["cancelled"] * 2


async def test_a_costly_list_is_not_worked_out_for_each_of_its_items(house, monkeypatch):
    clock = 0.0
    work = values.items
    lists = []

    def costly(*arguments):
        nonlocal clock
        clock += 2 * starting.TURN_S
        lists.append(arguments)
        return work(*arguments)

    monkeypatch.setattr(values, "items", costly)
    monkeypatch.setattr(starting, "time", SimpleNamespace(thread_time=lambda: clock))
    names = [f"m{n}" for n in range(3)]
    mapping = {"over": "input", "parallelism": 8, "limit": 8}
    await house.define("dag", *(task(n, references=("item",), map=mapping) for n in names))
    await house.begin("dag", ITEMS)
    await house.advance()
    assert len(lists) == len(names)
    assert await house.claim() == [name for name in names for _ in range(8)]


async def test_a_turn_looks_at_no_more_costly_runs_than_it_has_time_for(house, monkeypatch):
    monkeypatch.setattr(starting, "TURN_S", 0.0)
    monkeypatch.setattr(advance, "COSTLY_AT_ONCE", 2)
    await house.define("dag", task("a", references=("run.id",)))
    for _ in range(6):
        await house.trigger("dag")
    looked: list[int] = []
    look = Turn.look

    async def counted(turn: Turn, run: int) -> None:
        looked.append(run)
        await look(turn, run)

    monkeypatch.setattr(Turn, "look", counted)
    await house.take_roots()
    assert len(looked) == 2
    more = True
    while more:
        looked.clear()
        more = (await house.store.advance(now=house.now, limit=100)).more
        assert len(looked) <= 2
    assert await house.claim() == ["a"] * 6


async def test_a_session_outlasts_what_a_turn_works_out(house, monkeypatch):
    monkeypatch.setitem(pools.LIMITS, "idle_in_transaction_session_timeout", "1s")
    work = values.worked_out

    def slow(*arguments, **fields):
        time.sleep(1.5)  # the loop is held, and no statement comes
        return work(*arguments, **fields)

    monkeypatch.setattr(values, "worked_out", slow)
    b = task("b", "a", references=("tasks.a.state",))
    await house.define("dag", task("a", references=("run.id",)), b)
    arguments = house.house.settings.arguments()
    async with Pool(arguments, name="own", size=2, role=NODE_ROLE, pinned=True) as pool:
        house.store = PostgresStore(hot=pool, keeping=pool)
        run = await house.begin("dag")
        await house.run_all()
    assert await house.run_state(run) == "succeeded"
