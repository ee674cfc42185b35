"""A broker that is away: nothing waits for it, everybody is told, and the way back is found."""

import asyncio
from functools import partial

import anyio
import pytest

from protocols.actor import AskTimeout, Delivered, Rejected, Unreachable
from runtime.kafka import buffers
from runtime.kafka.client import new_admin
from runtime.kafka.topics import inbox_topic
from tests.support.remote import Listener

PACE_S = 0.02


@pytest.mark.asyncio
async def test_without_kafka_a_node_starts_and_says_so(lost_cluster):
    async with lost_cluster.member(1, "a", expect=False) as a:
        a.remoting.roster.hear(2, "b")
        ref = a.remoting.ref(2, "listener")
        assert ref.tell("x") == Delivered("sent")
        await lost_cluster.until(lambda: a.transport.away, "it is known to be away")
        with pytest.raises(AskTimeout):
            await ref.ask("x", deadline=0.2)
        assert a.states[0].startswith("kafka: ")
        assert len(a.states) == 1


@pytest.mark.asyncio
async def test_a_full_buffer_is_a_typed_result_and_what_is_too_old_makes_room(
    lost_cluster, monkeypatch
):
    monkeypatch.setattr(buffers, "RECORDS_MAX", 3)
    async with lost_cluster.member(1, "a", expect=False) as a:
        a.remoting.roster.hear(2, "b")
        ref = a.remoting.ref(2, "listener")
        old = [ref.ask("x", deadline=0.05) for _ in range(3)]
        assert ref.tell("y") == Rejected("unreachable")
        with pytest.raises(Unreachable):
            await ref.ask("y", deadline=5)
        for each in old:
            with pytest.raises(AskTimeout):
                await each
        await lost_cluster.until(lambda: ref.tell("y"), "the old ones made room")
        counts = a.transport.counts()
        assert counts.expired == 3
        assert counts.waiting == 1
        a.transport.forget("b")
        assert a.transport.counts().waiting == 0


@pytest.mark.asyncio
@pytest.mark.parametrize("hurt", ["restart", "pause"])
async def test_after_an_outage_all_goes_on_in_order_and_nothing_is_handled_twice(
    cluster, kafka_server, hurt
):
    heard = []
    async with cluster.member(1, "a") as a, cluster.member(2, "b") as b:
        b.system.spawn(lambda: Listener(heard))
        ref = a.remoting.ref(2, "listener")
        assert await ref.ask("before", deadline=20) == "before"
        sent = 0
        slowest_s = 0.0

        async def tell_on():
            nonlocal sent, slowest_s
            loop = asyncio.get_running_loop()
            while True:
                began_s = loop.time()
                sent += bool(ref.tell(sent))
                slowest_s = max(slowest_s, loop.time() - began_s)
                await anyio.sleep(PACE_S)

        async with anyio.create_task_group() as group:
            group.start_soon(tell_on)
            if hurt == "restart":
                await anyio.to_thread.run_sync(kafka_server.kill)
                await cluster.until(lambda: a.states and b.states, "both have noticed")
                await anyio.to_thread.run_sync(partial(kafka_server.restart))
            else:
                await anyio.to_thread.run_sync(kafka_server.pause)
                try:
                    await cluster.until(lambda: a.states and b.states, "both have noticed")
                finally:
                    await anyio.to_thread.run_sync(kafka_server.resume)
            await cluster.until(lambda: a.states[-1] is b.states[-1] is None, "both are back")
            await cluster.until(
                lambda: len(heard) > 1 and heard[-1] >= sent - 2, "it has caught up"
            )
            group.cancel_scope.cancel()
        assert await ref.ask("after", deadline=20) == "after"
        numbers = heard[1:-1]
        assert numbers == sorted(set(numbers))
        assert [state is None for state in a.states] == [False, True]
        assert slowest_s < 1.0, "a tell has waited for the broker"
        assert b.system.lookup("listener").cell.restarts == 0


@pytest.mark.asyncio
async def test_an_inbox_that_is_deleted_under_its_node_is_made_again(cluster):
    async with cluster.member(1, "a") as a, cluster.member(2, "b") as b:
        b.system.spawn(Listener)
        ref = a.remoting.ref(2, "listener")
        for number in range(5):
            assert await ref.ask(number, deadline=20) == number
        admin = new_admin(cluster.settings)
        await admin.start()
        try:
            await admin.delete_topics([inbox_topic(cluster.name, "b")])
        finally:
            await admin.close()

        async def answered():
            try:
                return await ref.ask("again", deadline=1) == "again"
            except AskTimeout:
                return False

        with anyio.fail_after(60):
            while not await answered():
                pass
