"""How runs move on: children start once all parents are over, each once, to the run's end."""

import pytest

from tests.support.dags import task

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]

DIAMOND = (task("a"), task("b", "a"), task("c", "a"), task("d", "b", "c"))


async def test_a_diamond_runs_in_the_order_of_its_edges(house):
    await house.define("diamond", *DIAMOND)
    run = await house.begin("diamond")

    assert await house.claim() == ["a"]
    await house.end(a="succeeded")
    assert await house.claim() == ["b", "c"]
    await house.end(b="succeeded")
    assert await house.claim() == []
    await house.end(c="succeeded")
    assert await house.claim() == ["d"]
    await house.end(d="succeeded")

    assert await house.run_state(run) == "succeeded"
    assert set((await house.states(run)).values()) == {"succeeded"}
    await house.end_roots()
    assert await house.root(run) == ("succeeded", None)


async def test_what_follows_from_a_failure_is_skipped_all_the_way_with_its_cause(house):
    await house.define("diamond", *DIAMOND)
    run = await house.begin("diamond")
    await house.claim()
    await house.end(a="succeeded")
    await house.claim()
    await house.end(b="dead", c="succeeded")

    assert await house.states(run) == {
        "a": "succeeded",
        "b": "failed: failed",
        "c": "succeeded",
        "d": "skipped: upstream_failed (b)",
    }
    assert await house.run_state(run) == "failed"
    await house.end_roots()
    assert await house.root(run) == ("dead", "failed: b")
