"""Until when a leader may be trusted: by its own clock and the lease that etcd granted."""

import time

import anyio
import anyio.lowlevel
import pytest

from tests.contract.coordinator.harness import cluster, until
from tests.support.etcd import Etcd

pytestmark = pytest.mark.asyncio


def session(node):
    return node.coordinator._session


async def renewed(node):
    """Wait for the next renewal."""
    last_ns = session(node).trusted_until_ns
    await until(lambda: session(node).trusted_until_ns > last_ns)


async def test_the_ttl_granted_is_trusted_not_the_one_asked_for():
    with Etcd("--election-timeout=2000") as slow:  # grants 3 s at least
        async with cluster(slow, ttl_s=2) as nodes:
            node = await nodes.node()
            await until(lambda: node.leads == {0})
            assert session(node).granted_s == 3
            await renewed(node)
            left_s = (session(node).trusted_until_ns - node.clock.now_ns()) / 1e9
            assert 1.0 < left_s <= 2.0


async def test_a_renewal_that_is_late_but_in_time_keeps_the_leadership(open_etcd):
    async with open_etcd(ttl_s=8) as nodes:
        node = await nodes.node()
        await until(lambda: node.leads == {0})
        await renewed(node)
        node.clock.jump(7.01)
        assert not node.leads, "a second before the lease may pass on"
        session(node).look()
        await until(lambda: node.leads == {0})
        assert node.electors[0].won == 1


async def test_a_leader_paused_past_its_lease_by_its_own_clock_leads_a_new_term(open_etcd):
    async with open_etcd(ttl_s=5) as nodes:
        node = await nodes.node()
        await until(lambda: node.leads == {0})
        leadership = node.electors[0].leadership
        node.clock.jump(5.0)
        assert not leadership.trusted()
        with anyio.fail_after(5):
            await leadership.lost()
        await until(lambda: node.leads == {0})
        assert not leadership.trusted(), "what is over stays over"
        assert node.electors[0].won == 2


async def test_a_wall_clock_that_jumps_changes_nothing(open_etcd, monkeypatch):
    async with open_etcd() as nodes:
        node = await nodes.node()
        await until(lambda: node.leads == {0})
        real, real_ns = time.time, time.time_ns  # noqa: TID251 - to be made to jump
        for by_s in (7200, -7200):
            monkeypatch.setattr(time, "time", lambda by_s=by_s: real() + by_s)
            monkeypatch.setattr(time, "time_ns", lambda by_s=by_s: real_ns() + by_s * 10**9)
            await renewed(node)
            assert node.leads == {0}
        assert node.electors[0].won == 1


async def test_a_leader_cut_off_is_distrusted_before_another_leads(open_etcd):
    async with open_etcd() as nodes:
        first = await nodes.node("a")
        await until(lambda: first.leads == {0})
        second = await nodes.node("b")
        leadership = first.electors[0].leadership
        first.wire.cut()
        while not second.leads:
            trusted = leadership.trusted()
            await anyio.lowlevel.checkpoint()
            assert not (trusted and second.leads)
        assert not leadership.trusted()
        await until(lambda: any(first.states))
        first.wire.heal()
        await until(lambda: first.states[-1] is None)


async def test_a_connection_that_died_with_nobody_told_is_noticed(open_etcd):
    async with open_etcd() as nodes:
        first = await nodes.node("a")
        await until(lambda: first.leads == {0})
        second = await nodes.node("b")
        first.wire.hold()
        await until(lambda: second.leads == {0})
        assert not first.leads
        first.wire.cut()
        first.wire.heal()
        await until(lambda: first.states[-1:] == [None])
        assert nodes.led() == [0]


async def test_resigning_while_etcd_is_away_never_fails_and_is_made_good(open_etcd):
    async with open_etcd(ttl_s=30) as nodes:
        first = await nodes.node("a", stand=False)
        leadership = await first.coordinator.campaign(0)
        first.wire.cut()
        await leadership.resign()
        assert not leadership.trusted()
        first.wire.heal()
        second = await nodes.node("b")
        await until(lambda: second.leads == {0})
