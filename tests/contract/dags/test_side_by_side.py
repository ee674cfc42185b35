"""Several nodes at the same runs; what is forgotten; and by which indexes all of it is found."""

import re

import anyio
import pytest

from protocols.ports.store import Budget, Lane
from runtime.postgres.dags import (
    advance,
    again,
    begin,
    executions,
    inputs,
    keep,
    rows,
    shapes,
    starting,
    within,
)
from runtime.postgres.store import PostgresStore
from tests.contract.dags.conftest import ended
from tests.support.dags import task

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]

WIDE = (
    task("a"),
    *(task(f"b{n}", "a") for n in range(40)),
    task("z", *(f"b{n}" for n in range(40))),
)


async def test_two_nodes_take_account_of_one_run_and_count_each_end_once(house):
    await house.define("wide", *WIDE)
    runs = [await house.begin("wide") for _ in range(3)]
    other = PostgresStore(hot=house.house.pool, keeping=house.house.pool)
    while True:
        claimed = await house.store.claim(
            "default", house.node, [Budget(Lane("default", 2), 60)], now=house.now, level=1
        )
        if not claimed:
            break
        await house.store.finish(house.node, [ended(row) for row in claimed])

        async def take(store: PostgresStore) -> None:
            while (await store.advance(now=house.now, limit=7)).more:
                pass

        async with anyio.create_task_group() as group:
            for store in (house.store, other, house.store):
                group.start_soon(take, store)
    for run in runs:
        assert await house.run_state(run) == "succeeded"
        row = await house.owner.fetchrow(
            "SELECT pending, succeeded FROM dag_tasks WHERE run = $1 AND task_id = 'z'", run
        )
        assert tuple(row) == (0, 40)
    made = await house.owner.fetchval(
        "SELECT count(*) FROM execution_history WHERE job_id <> 'wide'"
    )
    assert made == 3 * len(WIDE)
    assert not await house.owner.fetchval("SELECT count(*) FROM dag_ended")


async def test_a_poll_sees_that_ends_are_left_whoever_left_them(house):
    await house.define("wide", *WIDE)
    await house.begin("wide")
    other = PostgresStore(hot=house.house.pool, keeping=house.house.pool)
    assert not (await other.glance()).ends
    (row,) = await house.store.claim(
        "default", house.node, [Budget(Lane("default", 2), 1)], now=house.now, level=1
    )
    await house.store.finish(house.node, [ended(row)])
    assert (await other.glance()).ends
    await other.advance(now=house.now, limit=7)
    assert not (await other.glance()).ends


async def test_a_root_that_another_node_takes_over_finds_its_run(house):
    await house.define("wide", *WIDE)
    run = await house.begin("wide")
    await house.claim()
    await house.house.silence(house.node)
    await house.store.declare_dead(ttl_s=10, now=house.now)
    house.running.clear()
    house.node = await house.house.enter()
    await house.run_all()
    assert await house.root(run) == ("succeeded", None)
    assert await house.owner.fetchval("SELECT count(*) FROM dag_runs") == 1


async def test_runs_are_forgotten_with_all_that_is_theirs_once_they_are_old(house, monkeypatch):
    await house.define("wide", *WIDE)
    old = await house.begin("wide")
    await house.run_all()
    ends = house.later(100)
    young = await house.begin("wide")
    await house.run_all()
    open_ = await house.begin("wide")
    await keep.forget_runs(house.house.pool, before=ends)
    left = await house.owner.fetch("SELECT run FROM dag_runs ORDER BY run")
    assert [row["run"] for row in left] == [young, open_]
    assert await house.states(old) == {}
    assert len(await house.states(young)) == len(WIDE)


MODULES = (
    *(advance, again, begin, executions, inputs, keep, rows, shapes),
    *(starting, within),
)


def statements() -> dict[str, str]:
    """Every statement of the modules that make progress."""
    return {
        f"{module.__name__.rpartition('.')[2]}.{name}": text
        for module in MODULES
        for name, text in vars(module).items()
        if name.startswith("_")
        and isinstance(text, str)
        and re.match(r"\s*(SELECT|WITH|INSERT|UPDATE|DELETE)\b", text)
    }


@pytest.mark.parametrize("filled", [False, True])
async def test_each_statement_goes_by_an_index_whatever_the_statistics_say(house, filled):
    await house.define("wide", *WIDE)
    if filled:
        for _ in range(5):
            await house.begin("wide")
        await house.run_all()
        await house.begin("wide")
    await house.owner.execute("VACUUM ANALYZE")
    assert len(statements()) > 20
    async with house.house.pool.connections.acquire() as session:
        for name, text in statements().items():
            await session.execute(f"PREPARE seen AS {text}")
            count = await session.fetchval(
                "SELECT cardinality(parameter_types) FROM pg_prepared_statements "
                "WHERE name = 'seen'"
            )
            nulls = ", ".join(["NULL"] * count)
            plan = [
                row[0]
                for row in await session.fetch(
                    f"EXPLAIN EXECUTE seen{f' ({nulls})' if count else ''}"
                )
            ]
            await session.execute("DEALLOCATE seen")
            assert not walks(plan, _SMALL.get(name, ())), f"{name}:\n" + "\n".join(plan)


# Taken from the front, or as many as there are of what is open.
_QUEUES = ("dag_ended_pkey", "dag_tasks_wake", "dag_runs_open", "dag_runs_finished")
# What every claim looks at, and so this one: the one row of house; nodes; and limits, by key or all
# of them, as they are many or few.
_SMALL = {"within._CLAIM": ("house", "nodes_name", "limits_pkey")}


def walks(plan: list[str], small: tuple[str, ...]) -> list[str]:
    """Scans of whole tables or whole indexes, but for queues and what is `small`."""
    found = []
    for number, line in enumerate(plan):
        scan = re.search(r"(Seq Scan on|Index (?:Only )?Scan (?:Backward )?using) (\S+)", line)
        if scan is None or scan[2] in (*small, *_QUEUES):
            continue
        bound = any("Index Cond" in one for one in plan[number + 1 : number + 2])
        if scan[1] == "Seq Scan on" or not bound:
            found.append(line)
    return found
