"""Nodes, figures, the audit trail, and requests that come twice."""

import asyncio

import pytest

from protocols.errors import InvalidError, KeyReusedError
from runtime.postgres.operations.audit import list_audit, record
from runtime.postgres.operations.idempotency import answered_once
from runtime.postgres.operations.nodes_view import list_nodes
from runtime.postgres.operations.session import transact
from runtime.postgres.operations.stats import read_stats
from tests.integration.operations.conftest import NOW, at, job
from tests.integration.operations.helpers import hot

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]


async def _node(world, name, state, second):
    await world.node.fetch(
        "INSERT INTO nodes (name, url, pid, host, version, state, pools, leads, started_at,"
        " last_beat_at) VALUES ($1, 'http://x', 7, 'h', '0.1', $2,"
        ' \'{"default": {"slots": 64, "running": 3}}\', \'{"0": 5}\', $3, $3)',
        name,
        state,
        at(second),
    )


async def test_a_node_is_listed_once_by_its_living_or_newest_incarnation(world):
    await _node(world, "a", "dead", 0)
    await _node(world, "b", "up", 1)
    await _node(world, "a", "up", 2)
    await _node(world, "b", "stopped", 3)
    await _node(world, "c", "dead", 4)
    await _node(world, "c", "stopped", 5)
    ended, *nodes = await transact(world.api, "default", list_nodes)
    assert (ended.name, ended.state) == ("c", "stopped")
    assert [(node.name, node.state) for node in nodes] == [("a", "up"), ("b", "up")]
    assert (nodes[0].leads, nodes[0].epochs) == ((0,), {"0": 5})
    assert (nodes[0].pools["default"].slots, nodes[0].pools["default"].running) == (64, 3)


async def test_figures_tell_what_waits_and_who_leads(world):
    await world.apply(job("a", overlap="allow"), job("b", overlap="allow", pool="p"))
    for seconds in (0, 5, 500):
        await hot(world, "a", seconds)
    await hot(world, "b", 7, limit_key="job:1")
    await hot(world, "b", 8, "running")
    stats = await transact(world.node, "", lambda conn: read_stats(conn, now=at(10)))
    assert stats.executions == {"blocked": 0, "running": 1, "ready": 3, "scheduled": 1}
    assert stats.oldest_ready_s == {"default": 10.0, "p": 3.0}
    assert [(leader.number, leader.epoch) for leader in stats.leaderships] == [(0, 0)]
    assert stats.paused is False


async def test_the_audit_trail_is_read_newest_first_in_pages(world):
    for n in range(5):
        await world.do(record, who="me", action="test", target=str(n), detail={"n": n}, now=NOW)
    first = await world.do(list_audit, limit=3)
    rest = await world.do(list_audit, limit=3, cursor=first.next)
    assert [row.detail["n"] for row in (*first.items, *rest.items)] == [4, 3, 2, 1, 0]
    assert rest.next is None
    world.tenant = "other"
    assert (await world.do(list_audit)).items == ()


def _asking(world, done, *, key="k", body=b"1", now=NOW, scope="s"):
    async def work(conn):
        done.append(key)
        return b'{"n": %d}' % len(done)

    return world.do(
        lambda conn, tenant: answered_once(
            conn, work, tenant=tenant, scope=scope, key=key, body_hash=body, now=now
        )
    )


async def test_a_known_key_is_answered_and_nothing_is_done_again(world):
    done = []
    first = await _asking(world, done)
    again = await _asking(world, done)
    assert (first.known, again.known, done) == (False, True, ["k"])
    assert again.answer == b'{"n": 1}'
    with pytest.raises(KeyReusedError):
        await _asking(world, done, body=b"2")
    assert (await _asking(world, done, scope="other")).known is False
    assert (await _asking(world, done, now=at(86_400))).known is False
    for key in ("", "x" * 256):
        with pytest.raises(InvalidError):
            await _asking(world, done, key=key)


async def test_the_same_key_at_the_same_time_is_done_once(world):
    done = []
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_asking(world, done)) for _ in range(4)]
    assert len(done) == 1
    assert sorted(task.result().known for task in tasks) == [False, True, True, True]


async def test_what_fails_keeps_no_key(world):
    async def fails(conn):
        raise ValueError

    with pytest.raises(ValueError):
        await world.do(
            lambda conn, tenant: answered_once(
                conn, fails, tenant=tenant, scope="s", key="k", body_hash=b"1", now=NOW
            )
        )
    assert (await _asking(world, [])).known is False
