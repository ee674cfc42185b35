"""Many runs at once, and large ones: a turn is bounded by tasks, whatever there is to look at."""

import pytest

from runtime.postgres.dags import advance, begin
from tests.support.dags import task

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]


async def test_as_many_runs_are_looked_at_in_one_turn_as_it_has_the_time_for(house, monkeypatch):
    monkeypatch.setattr(advance, "LOOKED_AT_ONCE", 5)
    monkeypatch.setattr(begin, "TASKS_AT_ONCE", 5)
    await house.define("dag", task("a"), task("b"), task("c", "a", "b"))
    runs = [await house.trigger("dag") for _ in range(7)]
    await house.take_roots()
    began = len(await house.claim())
    assert began == 2
    turns = 1
    while (await house.store.advance(now=house.now, limit=100)).more:
        turns += 1
        began += len(await house.claim())
    began += len(await house.claim())
    assert (turns, began) == (6, 14)

    await house.store.cancel_runs(runs, now=house.now)
    stopped = []
    more = True
    while more:
        more = (await house.store.advance(now=house.now, limit=100)).more
        stopped.append(
            await house.owner.fetchval("SELECT count(*) FROM dag_tasks WHERE state = 'skipped'")
        )
    assert stopped == [1, 2, 3, 4, 5, 6, 7]
    await house.end(a="cancelled", b="cancelled")
    assert {await house.run_state(run) for run in runs} == {"cancelled"}
