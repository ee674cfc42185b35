"""Actors of two nodes reach each other through a real broker."""

import asyncio

import anyio
import msgspec
import pytest
from aiokafka.admin.config_resource import ConfigResource
from aiokafka.errors import InvalidReplicationFactorError

from protocols.actor import Actor, ActorDead, Delivered, MailboxFull, Rejected, Terminated
from protocols.messages import Ready
from runtime.kafka.client import new_admin, new_producer
from runtime.kafka.topics import Topic, create_topics, inbox_topic
from runtime.kafka.transport import RECORD_BYTES_MAX
from tests.support.remote import Listener, Note


class Watcher(Actor):
    def __init__(self, ends):
        self.ends = ends

    async def receive(self, message, ctx):
        if isinstance(message, Terminated):
            self.ends.append((message.ref, message.reason))
        else:
            ctx.watch(message[0])


@pytest.mark.asyncio
async def test_tell_put_ask_and_watch_cross_and_a_dead_node_ends_them(cluster):
    heard, ends = [], []
    async with cluster.member(1, "a") as a, cluster.member(2, "b") as b:
        b.system.spawn(lambda: Listener(heard))
        ref = a.system.look_everywhere("listener@b")
        assert await ref.ask(Note("hello", more=[1]), deadline=20) == Note("hello", more=[1])
        assert ref.tell(Ready("default")) == Delivered("sent")
        assert await ref.put("put", deadline=20) == Delivered("queued")
        assert heard[1:] == [Ready("default"), "put"]
        exact = await ref.ask("who?", deadline=20)
        assert exact.incarnation == b.system.lookup("listener").incarnation
        with pytest.raises(ActorDead):
            await a.remoting.ref(2, "nobody").ask("x", deadline=20)
        watcher = a.system.spawn(lambda: Watcher(ends))
        watcher.tell([exact])
        waiting = ref.ask("later", deadline=60)
        await cluster.until(lambda: "later" in heard, "the question is there")
        a.peers.update([])
        with pytest.raises(ActorDead, match="node b is gone"):
            await waiting
        await cluster.until(lambda: ends, "the end is told")
        assert ends == [(exact, "killed")]


@pytest.mark.asyncio
async def test_many_messages_keep_their_order_and_are_counted(cluster):
    heard = []
    async with cluster.member(1, "a") as a, cluster.member(2, "b") as b:
        b.system.spawn(lambda: Listener(heard))
        ref = a.remoting.ref(2, "listener")
        for number in range(3000):
            assert await ref.put(number, deadline=30) if number % 100 == 0 else ref.tell(number)
        await cluster.until(lambda: 2999 in heard or b.system.dead_letters.counts, "all is there")
        await ref.put("last", deadline=30)
        assert heard == [*sorted(set(heard[:-1])), "last"]
        full = b.system.dead_letters.counts.get("full", 0)
        assert len(heard) + full == 3001
        assert a.transport.counts().sent == b.transport.counts().received
        assert a.transport.counts().waiting == 0
        assert b.remoting.traffic.received["tell", "int"] == 2970


@pytest.mark.asyncio
async def test_what_is_sent_after_prepare_is_read_and_what_came_before_is_not(cluster):
    heard = []
    async with cluster.member(1, "a") as a:
        async with cluster.member(2, "b"):
            a.remoting.ref(2, "listener").tell("to the first b")
            await cluster.until(lambda: a.transport.counts().sent == 1, "it has left")
        async with cluster.member(3, "b", run=False) as b:
            b.system.spawn(lambda: Listener(heard))
            a.remoting.ref(3, "listener").tell("early")
            await cluster.until(lambda: a.transport.counts().sent == 2, "it has left")
            async with cluster.member(4, "unused"):
                assert heard == []
            async with anyio.create_task_group() as group:
                group.start_soon(b.transport.run)
                await cluster.until(lambda: heard, "what was early is read")
                group.cancel_scope.cancel()
        assert heard == ["early"]
        assert b.transport.counts().received == 1


@pytest.mark.asyncio
async def test_garbage_in_the_inbox_is_counted_and_skipped(cluster):
    async with cluster.member(1, "a") as a, cluster.member(2, "b") as b:
        b.system.spawn(Listener)
        topic = inbox_topic(cluster.name, "b")
        forged = [b"", b"\xff" * 50, b"{}", msgspec.msgpack.encode([1, 2, 3]), b"\x91" * 2000]
        producer = new_producer(cluster.settings)
        await producer.start()
        try:
            for record in forged:
                await producer.send_and_wait(topic, record, partition=0)
            await producer.send_and_wait(topic, None, key=b"tombstone", partition=0)
        finally:
            await producer.stop()
        assert await a.remoting.ref(2, "listener").ask("still there?", deadline=20)
        assert b.remoting.traffic.dropped == {"garbage": len(forged)}


@pytest.mark.asyncio
async def test_too_large_a_message_is_refused_where_it_is_sent(cluster):
    async with cluster.member(1, "a") as a, cluster.member(2, "b") as b:
        b.system.spawn(Listener)
        ref = a.remoting.ref(2, "listener")
        assert ref.tell("x" * RECORD_BYTES_MAX) == Rejected("too_large")
        large = "x" * (RECORD_BYTES_MAX - 1000)
        assert await ref.ask(large, deadline=20) == large
        for _ in range(10):  # more than one batch may hold
            ref.tell(large)
        assert await ref.ask("and on", deadline=20) == "and on"


@pytest.mark.asyncio
async def test_an_inbox_is_made_as_settings_say_and_taken_as_it_is(cluster):
    async with cluster.member(1, "a"), cluster.member(2, "b"):
        pass
    topic = Topic(name=inbox_topic(cluster.name, "b"), retention_s=1)
    await create_topics(cluster.settings, topic)
    three = msgspec.structs.replace(cluster.settings, replication_factor=3)
    with pytest.raises(InvalidReplicationFactorError, match="topic"):
        await create_topics(three, Topic(name=f"{cluster.name}.other", retention_s=60))
    one = msgspec.structs.replace(cluster.settings, replication_factor=1)
    await create_topics(one, Topic(name=f"{cluster.name}.events", partitions=3, retention_s=60))
    admin = new_admin(cluster.settings)
    await admin.start()
    try:
        found = await admin.describe_topics([f"{cluster.name}.events", topic.name])
        configs = await admin.describe_configs([ConfigResource("topic", topic.name)])
    finally:
        await admin.close()
    assert [(each["topic"], len(each["partitions"])) for each in found] == [
        (f"{cluster.name}.events", 3),
        (topic.name, 1),
    ]
    entries = {entry[0]: entry[1] for entry in configs[0].resources[0][4]}
    assert entries["retention.ms"] == "600000", "an inbox that exists stays as it is"


@pytest.mark.asyncio
async def test_a_mailbox_full_on_the_other_node_is_told(cluster):
    gate = asyncio.Event()

    class Slow(Listener):
        async def receive(self, message, ctx):
            await gate.wait()

    async with cluster.member(1, "a") as a, cluster.member(2, "b") as b:
        b.system.spawn(Slow)
        ref = a.remoting.ref(2, "listener")
        for number in range(300):
            ref.tell(number)
        with pytest.raises(MailboxFull):
            await ref.ask("?", deadline=20)
        gate.set()
