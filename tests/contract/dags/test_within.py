"""Roots of runs within runs are claimed by the run they are within, and as all others else."""

import pytest

from protocols.ports.store.dags import Within
from tests.support.dags import task

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]


async def outer(house, count: int = 2, **inner) -> list[int]:
    """Runs of which each waits for one within it."""
    await house.define("inner", task("i"), **inner)
    await house.define("outer", task("sub", dag={"dag_id": "inner"}))
    runs = [await house.trigger("outer") for _ in range(count)]
    await house.take_roots()
    return runs


async def claim(house, runs: list[int], limit: int = 10, node: int | None = None) -> list[Within]:
    return list(
        await house.store.claim_within(
            node or house.node, runs, limit=limit, now=house.now, level=1
        )
    )


async def test_only_those_within_these_runs_are_claimed_and_each_once(house):
    one, other = await outer(house)
    assert await claim(house, []) == []
    (found,) = await claim(house, [one])
    assert found.within == one
    assert await claim(house, [one]) == []
    assert [row.within for row in await claim(house, [one, other])] == [other]
    await house.begin_roots({found.id: found.fencing_token})
    assert await house.claim() == ["i"]
    await house.run_all()
    assert await house.run_state(one) == "succeeded"


async def test_no_more_are_claimed_than_asked_for(house):
    runs = await outer(house, 3)
    assert [len(await claim(house, runs, limit=2)) for _ in range(3)] == [2, 1, 0]


async def test_none_is_claimed_in_a_house_that_is_paused_or_by_a_node_that_is_dead(house):
    runs = await outer(house)
    await house.owner.execute("UPDATE house SET paused = true")
    assert await claim(house, runs) == []
    await house.owner.execute("UPDATE house SET paused = false")
    await house.house.silence(house.node)
    await house.store.declare_dead(ttl_s=10, now=house.now)
    assert await claim(house, runs) == []
    assert len(await claim(house, runs, node=await house.house.enter())) == 2


async def test_of_a_limit_as_many_are_claimed_as_it_has_room_for(house):
    runs = await outer(house, 4)
    await house.owner.execute(
        "INSERT INTO limits (tenant, limit_key, most) VALUES ('default', 'k', 2)"
    )
    await house.owner.execute("UPDATE executions SET limit_key = 'k' WHERE within IS NOT NULL")
    assert [len(await claim(house, runs)) for _ in range(2)] == [2, 0]
    holders = await house.owner.fetchval("SELECT cardinality(holders) FROM limits")
    assert holders == 2


async def test_what_a_dead_node_claimed_so_is_claimed_so_again(house):
    one, _ = await outer(house)
    assert len(await claim(house, [one])) == 1
    await house.house.silence(house.node)
    await house.store.declare_dead(ttl_s=10, now=house.now)
    assert len(await claim(house, [one], node=await house.house.enter())) == 1


async def test_those_whose_limit_is_full_take_no_place_of_others(house):
    runs = await outer(house, 4)
    await house.owner.execute(
        "INSERT INTO limits (tenant, limit_key, most, holders) VALUES ('default', 'k', 1, '{1}')"
    )
    await house.owner.execute(
        "UPDATE executions SET limit_key = 'k' WHERE within = ANY($1)", runs[:3]
    )
    assert [row.within for row in await claim(house, runs, limit=2)] == [runs[3]]


async def test_who_has_the_turn_that_one_waits_for_is_claimed_whoever_asked_for_it(house):
    runs = await outer(house, 2)
    first, second = await house.owner.fetch(
        "SELECT id FROM executions WHERE within IS NOT NULL ORDER BY within"
    )
    await house.owner.execute(
        "UPDATE executions SET state = 'blocked', reason = 'overlap' WHERE id = $1", second["id"]
    )
    await house.owner.execute(
        "UPDATE executions SET within = NULL, holds_turn = true WHERE id = $1", first["id"]
    )
    (found,) = await claim(house, runs)
    assert (found.id, found.within) == (first["id"], runs[1])
    assert await claim(house, runs) == []


async def test_one_run_with_many_within_it_leaves_room_for_those_of_another(house):
    await house.define("inner", task("i"))
    many = {"over": "[1, 2, 3, 4, 5, 6, 7, 8, 9]", "parallelism": 9, "limit": 9}
    await house.define("wide", task("each", dag={"dag_id": "inner"}, map=many))
    await house.define("narrow", task("sub", dag={"dag_id": "inner"}))
    wide, narrow = await house.trigger("wide"), await house.trigger("narrow")
    await house.take_roots()
    assert narrow in [row.within for row in await claim(house, [wide, narrow], limit=8)]
