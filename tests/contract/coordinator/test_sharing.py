"""What nodes make of it together: groups are spread evenly, and move when nodes come and go."""

import anyio
import pytest

from tests.contract.coordinator.harness import until

pytestmark = pytest.mark.asyncio


async def test_three_nodes_share_evenly_and_a_leaver_s_groups_move_alone(open_etcd):
    async with open_etcd() as cluster:
        await cluster.three(groups=8)
        await until(lambda: cluster.even(2, 3, 3))
        before = {name: set(node.leads) for name, node in cluster.nodes.items()}
        left = before.pop("b")
        await cluster.stop("b")
        await until(lambda: cluster.even(4, 4))
        for name, had in before.items():
            now = cluster.nodes[name].leads
            assert had <= now, "who stays keeps what it had"
            assert now - had <= left
        again = await cluster.node("d", groups=8)
        await until(lambda: cluster.even(2, 3, 3))
        assert len(again.leads) == 2


async def test_a_node_that_is_killed_is_followed_when_its_lease_ends(open_etcd):
    async with open_etcd() as cluster:
        first = await cluster.node("a")
        await until(lambda: first.leads == {0})
        second = await cluster.node("b")
        leadership = first.electors[0].leadership
        await cluster.kill("a")
        assert not leadership.trusted()
        await until(lambda: second.leads == {0})


async def test_who_is_unfit_gives_its_groups_up_and_who_is_fit_again_gets_its_share(open_etcd):
    async with open_etcd() as cluster:
        first, second = [await cluster.node(name, groups=4) for name in "ab"]
        await until(lambda: cluster.even(2, 2))
        first.coordinator.fit(False)
        await until(lambda: second.leads == {0, 1, 2, 3})
        assert not first.leads
        first.coordinator.fit(True)
        await until(lambda: cluster.even(2, 2))


async def test_a_node_that_stands_for_nothing_is_given_nothing(open_etcd):
    async with open_etcd() as cluster:
        await cluster.node("idle", groups=4, stand=False)
        node = await cluster.node("a", groups=4)
        await until(lambda: node.leads == {0, 1, 2, 3})
        with anyio.move_on_after(1.5):
            await node.electors[0].leadership.lost()
        assert node.leads == {0, 1, 2, 3}


async def test_more_groups_are_shared_out_and_fewer_are_given_up(open_etcd):
    async with open_etcd() as cluster:
        for name in "ab":
            node = await cluster.node(name, groups=2, stand=False)
            node.stand(*range(6))
        await until(lambda: cluster.even(1, 1))
        for node in cluster.nodes.values():
            node.coordinator.cover(6)
        await until(lambda: cluster.even(3, 3))
        for node in cluster.nodes.values():
            node.coordinator.cover(1)
        await until(lambda: cluster.even(0, 1))


async def test_a_leadership_moves_only_after_its_work_has_ended(open_etcd):
    async with open_etcd() as cluster:
        first = await cluster.node("a")
        await until(lambda: first.leads == {0})
        first.electors[0].work = anyio.Event()
        leadership = first.electors[0].leadership
        second = await cluster.node("b")
        first.coordinator.fit(False)
        with anyio.fail_after(10):
            await leadership.lost()
        assert leadership.trusted()
        assert not second.leads
        first.electors[0].work.set()
        await until(lambda: second.leads == {0})
        assert not leadership.trusted()


async def test_a_key_deleted_by_hand_ends_the_leadership_and_is_won_anew(open_etcd):
    async with open_etcd() as cluster:
        node = await cluster.node()
        await until(lambda: node.leads == {0})
        leadership = node.electors[0].leadership
        coordinator = node.coordinator
        key = coordinator._view.leader_key(0)
        await coordinator._client.reach(lambda: coordinator._client.delete_range(key))
        with anyio.fail_after(5):
            await leadership.lost()
        assert not leadership.trusted()
        await until(lambda: node.electors[0].won == 2)


async def test_a_member_s_key_deleted_by_hand_is_written_again(open_etcd):
    async with open_etcd() as cluster:
        node = await cluster.node()
        await until(lambda: node.leads == {0})
        coordinator = node.coordinator
        before = coordinator._view.revision
        key = coordinator._view.member_key(1)
        await coordinator._client.reach(lambda: coordinator._client.delete_range(key))
        await until(lambda: coordinator._view.revision > before + 1)
        assert coordinator._view.fit == {1: "a"}
        assert node.electors[0].won == 1


async def test_keys_that_are_not_understood_hold_nobody_up_but_their_own_group(open_etcd):
    async with open_etcd() as cluster:
        scout = await cluster.node("scout", groups=2, stand=False)
        coordinator, prefix = scout.coordinator, scout.coordinator._view._prefix.encode()
        for key in (b"members/x", b"members/7", b"leaders/\xff", b"leaders/0", b"other"):
            await coordinator._client.reach(
                lambda key=key: coordinator._client.put(prefix + key, b"\xff{")
            )
        node = await cluster.node("a", groups=2)
        await until(lambda: node.leads == {1})
        key = prefix + b"leaders/0"
        await coordinator._client.reach(lambda: coordinator._client.delete_range(key))
        await until(lambda: node.leads == {0, 1})
