"""What every coordinator keeps: one leader per group, until it resigns."""

import anyio
import anyio.lowlevel
import pytest

from tests.contract.coordinator.harness import until

pytestmark = pytest.mark.asyncio


async def test_who_campaigns_alone_leads_and_is_trusted(open_any):
    async with open_any() as cluster:
        node = await cluster.node(groups=3)
        await until(lambda: node.leads == {0, 1, 2})
        assert [node.electors[n].leadership.number for n in range(3)] == [0, 1, 2]


async def test_of_two_candidates_the_second_waits_for_the_first_to_resign(open_any):
    async with open_any() as cluster:
        node = await cluster.node(stand=False)
        first = await node.coordinator.campaign(0)
        second = []

        async def stand():
            second.append(await node.coordinator.campaign(0))

        async with anyio.create_task_group() as group:
            group.start_soon(stand)
            await anyio.lowlevel.checkpoint()
            assert first.trusted()
            assert not second
            await first.resign()
            assert not first.trusted()
            with anyio.fail_after(5):
                await first.lost()
                await until(lambda: second)
        assert second[0].trusted()
        await first.resign()
        assert second[0].trusted(), "a resignation after the fact takes nothing from the next one"


async def test_a_campaign_given_up_holds_nothing(open_any):
    async with open_any() as cluster:
        node = await cluster.node(stand=False)
        first = await node.coordinator.campaign(0)
        async with anyio.create_task_group() as group:
            group.start_soon(node.coordinator.campaign, 0)
            await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        await first.resign()
        with anyio.fail_after(5):
            assert (await node.coordinator.campaign(0)).trusted()


async def test_a_group_that_is_no_more_is_lost_but_trusted_until_resigned(open_any):
    async with open_any() as cluster:
        node = await cluster.node(groups=2)
        await until(lambda: node.leads == {0, 1})
        elector = node.electors[1]
        elector.work = anyio.Event()
        leadership = elector.leadership
        node.coordinator.cover(1)
        with anyio.fail_after(5):
            await leadership.lost()
        assert leadership.trusted()
        assert node.electors[0].leads
        elector.work.set()
        await until(lambda: elector.leadership is None)
        assert not leadership.trusted()
        node.coordinator.cover(2)
        await until(lambda: node.leads == {0, 1})
        assert (node.electors[0].won, elector.won) == (1, 2)


async def test_where_nobody_is_fit_each_keeps_what_it_has(open_any):
    async with open_any() as cluster:
        node = await cluster.node()
        await until(lambda: node.leads == {0})
        node.coordinator.fit(False)
        with anyio.move_on_after(1.5) as waited:
            await node.electors[0].leadership.lost()
        assert waited.cancelled_caught
        assert node.leads == {0}
