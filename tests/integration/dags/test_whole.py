"""DAGs end to end: DagActor, dispatcher, worker, hosts and PostgreSQL."""

import pytest

from tests.support.dags import task

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]


async def test_a_diamond_runs_end_to_end(house):
    line = "echo {} >> order"
    async with house.node() as node:
        await house.define(
            "diamond",
            task("a", shell=line.format("a")),
            task("b", "a", shell=line.format("b")),
            task("c", "a", shell=line.format("c")),
            task("d", "b", "c", shell=line.format("d")),
        )
        run = await house.run(node, "diamond")
        assert await house.ended(run) == "succeeded"

    order = (house.folder / "order").read_text().split()
    assert order[0] == "a"
    assert sorted(order[1:3]) == ["b", "c"]
    assert order[3:] == ["d"]
    assert set((await house.states(run)).values()) == {"succeeded"}
