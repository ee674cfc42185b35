"""A node that may be held for dead begins nothing, and begins it all once it is known to live."""

import pytest

from tests.integration.hosts.house import eventually, open_house, process, shared, shell

pytestmark = pytest.mark.asyncio

TASKS = """
async def quick(): return 1
def plain(): return 2
"""


async def test_what_is_given_to_a_node_that_is_not_sure_waits_until_it_is(tmp_path):
    async with open_house(tmp_path) as house:
        house.module(TASKS)
        house.sure = False
        given = [
            house.begin(task) for task in (shared("quick"), process("plain"), shell("echo hi"))
        ]
        first = house.begin(shell("true"))
        house.executor.cancel(first.id, first.fencing_token)
        assert (await house.outcome_of(first)).state == "cancelled"
        assert not any(house.started(one) for one in given)
        assert len(house.executor.holds()) == len(given)
        house.sure = True
        for one in given:
            assert (await house.outcome_of(one)).state == "succeeded"


async def test_what_runs_goes_on_and_what_is_kept_is_handed_back_at_the_end(tmp_path):
    async with open_house(tmp_path) as house:
        running = house.begin(shell("sleep 0.5"))
        await eventually(lambda: house.started(running))
        house.sure = False
        kept = house.begin(shell("true"))
        assert (await house.outcome_of(running)).state == "succeeded"
        await house.executor.stop(0.2)
        assert house.outcome(kept).state == "unstarted"
