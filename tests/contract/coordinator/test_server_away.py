"""etcd restarted, frozen, stopped or emptied: nodes go on by themselves, and say what was wrong."""

import anyio
import pytest

from tests.contract.coordinator.harness import cluster, until

pytestmark = pytest.mark.asyncio


async def in_thread(work):
    await anyio.to_thread.run_sync(work)


async def test_a_node_started_before_etcd_leads_once_it_is_there(own_etcd):
    own_etcd.kill()
    async with cluster(own_etcd) as nodes:
        node = await nodes.node()
        await until(lambda: node.states)
        assert "etcd cannot be reached" in node.states[0]
        await in_thread(own_etcd.start)
        await until(lambda: node.leads == {0})
        assert len(node.states) == 2
        assert node.states[-1] is None


async def test_etcd_restarted_at_once_moves_no_leadership(own_etcd):
    async with cluster(own_etcd, ttl_s=10) as nodes:
        first, second = [await nodes.node(name, groups=2) for name in "ab"]
        await until(lambda: nodes.even(1, 1))
        led = (set(first.leads), set(second.leads))
        await in_thread(own_etcd.restart)
        for node in (first, second):
            last_ns = node.coordinator._session.trusted_until_ns
            await until(lambda: node.coordinator._session.trusted_until_ns > last_ns)  # noqa: B023
        assert (first.leads, second.leads) == led


async def test_etcd_stopped_past_the_lease_ends_trust_and_firing_resumes(own_etcd):
    async with cluster(own_etcd) as nodes:
        first, second = [await nodes.node(name, groups=2) for name in "ab"]
        await until(lambda: nodes.even(1, 1))
        own_etcd.kill()
        await until(lambda: not first.leads and not second.leads)
        await until(lambda: all(n.coordinator._session.life for n in (first, second)))
        assert all(node.states[-1] for node in (first, second))
        await in_thread(own_etcd.start)
        await until(lambda: nodes.even(1, 1))
        await until(lambda: first.states[-1] is None and second.states[-1] is None)


async def test_etcd_frozen_past_the_lease_ends_trust_and_firing_resumes(own_etcd):
    async with cluster(own_etcd) as nodes:
        node = await nodes.node()
        await until(lambda: node.leads == {0})
        own_etcd.pause()
        await until(lambda: not node.leads)
        await until(lambda: node.coordinator._session.life == 1)
        own_etcd.resume()
        await until(lambda: node.leads == {0})


async def test_etcd_emptied_is_begun_anew_and_firing_resumes(own_etcd):
    async with cluster(own_etcd, ttl_s=5) as nodes:
        first, second = [await nodes.node(name, groups=4) for name in "ab"]
        await until(lambda: nodes.even(2, 2))
        own_etcd.kill()
        own_etcd.empty()
        await in_thread(own_etcd.start)
        await until(lambda: first.coordinator._session.life and second.coordinator._session.life)
        await until(lambda: nodes.even(2, 2))


async def test_etcd_restored_from_a_copy_that_knows_the_lease_but_not_the_leader(own_etcd):
    async with cluster(own_etcd, ttl_s=30) as nodes:
        node = await nodes.node(stand=False)
        coordinator = node.coordinator
        await until(lambda: coordinator._view.members)
        lease = coordinator._session.lease
        own_etcd.kill()
        own_etcd.save()
        await in_thread(own_etcd.start)
        node.stand(0)
        await until(lambda: node.leads == {0})
        former = node.electors[0].leadership
        own_etcd.kill()
        own_etcd.restore()
        await in_thread(own_etcd.start)
        with anyio.fail_after(10):
            await former.lost()
        assert not former.trusted()
        await until(lambda: node.leads == {0})
        assert coordinator._session.lease == lease


async def test_a_lease_revoked_by_hand_is_replaced(own_etcd):
    async with cluster(own_etcd, ttl_s=5) as nodes:
        node = await nodes.node()
        await until(lambda: node.leads == {0})
        coordinator = node.coordinator
        lease = coordinator._session.lease
        await coordinator._client.reach(lambda: coordinator._client.lease_revoke(lease))
        await until(lambda: coordinator._session.lease not in (0, lease))
        await until(lambda: node.leads == {0})
        assert node.electors[0].won == 2
