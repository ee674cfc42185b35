"""A broker that comes and goes leaves nothing behind in a node: no task, no descriptor."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import anyio
import psutil
import pytest

from protocols.ports.outbox import Change, PublishError
from protocols.ports.records import Subscription
from runtime.kafka.publisher import EVENTS, KafkaPublisher
from runtime.kafka.subscriber import KafkaSubscriber
from runtime.kafka.topics import topic_name
from tests.support.remote import Listener

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
SETTLED_S = 30.0


def held() -> Counter[str]:
    """Tasks that aiokafka runs here by what they run, and open descriptors."""
    coros = [task.get_coro() for task in asyncio.all_tasks()]
    found = Counter(coro.__qualname__ for coro in coros if "aiokafka" in coro.cr_code.co_filename)
    found["descriptors"] = psutil.Process().num_fds()
    return found


async def most_held() -> Counter[str]:
    """The most of each in a few looks: a fetch ends and is made again all the time."""
    most = held()
    for _ in range(20):
        await anyio.sleep(0.05)
        most |= held()
    return most


async def beyond(before: Counter[str]) -> Counter[str]:
    """What is held beyond that, once what is only under way has had its time."""
    with anyio.move_on_after(SETTLED_S):
        while held() - before:  # noqa: ASYNC110 - the broker is another process
            await anyio.sleep(0.05)
    return held() - before


class Traffic:
    """All three ways a node uses Kafka at once: refs, events that go out, records that come in."""

    def __init__(self, cluster, a, b):
        self.cluster, self.a, self.b = cluster, a, b
        self.heard, self.taken, self.states = [], [], []
        self.publisher = KafkaPublisher(cluster.settings, cluster=cluster.name, retention_s=3600.0)
        self.subscriber = KafkaSubscriber(
            cluster.settings, take=self._take, since=self._since, on_state=self.states.append
        )
        self.subscriptions = {Subscription(topic=topic_name(cluster.name, EVENTS), group="g")}
        self.begun = False
        self.number = 0
        b.system.spawn(lambda: Listener(self.heard))

    async def _take(self, _, records):
        self.taken.extend(records)

    async def _since(self, _):
        return LONG_AGO

    @property
    def away(self) -> list[bool]:
        """Of each way, whether it knows that the broker is away."""
        ways = (self.a.transport.away, self.b.transport.away, *self.states[-1:])
        return [way is not None for way in ways]

    async def publish(self) -> bool:
        """Publish one event; false if Kafka is away."""
        self.number += 1
        change = Change(
            sequence=self.number,
            kind="ended",
            at=LONG_AGO,
            execution_id=f"e{self.number}",
            tenant="default",
            job_id="j",
            scheduled_for=LONG_AGO,
            state="succeeded",
        )
        try:
            if not self.begun:
                await self.publisher.begin()
                self.begun = True
            await self.publisher.publish([change])
        except PublishError:
            self.begun = False
        return self.begun

    async def all_goes_on(self) -> None:
        """Return once something has gone each way."""
        while not await self.publish():  # noqa: ASYNC110 - the broker is another process
            await anyio.sleep(0.2)
        taken = len(self.taken)
        while len(self.taken) == taken:
            await self.publish()
            await anyio.sleep(0.2)
        assert await self.a.remoting.ref(2, "listener").ask(self.number, deadline=60) == self.number
        await self.cluster.until(lambda: not any(self.away), "all is back")

    async def all_stands(self) -> None:
        """Return once each way has noticed that Kafka is away."""
        while await self.publish():  # noqa: ASYNC110 - the broker is another process
            await anyio.sleep(0.05)
        await self.cluster.until(lambda: self.away == [True] * 3, "it is noticed")


@asynccontextmanager
async def traffic(cluster):
    async with (
        cluster.member(1, "a") as a,
        cluster.member(2, "b") as b,
        anyio.create_task_group() as group,
    ):
        made = Traffic(cluster, a, b)
        made.subscriber.want(made.subscriptions)
        group.start_soon(made.subscriber.run)
        try:
            yield made
        finally:
            await made.publisher.close()
            group.cancel_scope.cancel()


@pytest.mark.asyncio
async def test_a_broker_that_comes_and_goes_leaves_no_task_and_no_descriptor(cluster, kafka_server):
    nothing = held()
    async with traffic(cluster) as all_ways:
        with anyio.fail_after(120):
            await all_ways.all_goes_on()
        before = await most_held()
        for hurt in ("kill", "pause", "kill", "kill"):
            mend = kafka_server.restart if hurt == "kill" else kafka_server.resume
            await anyio.to_thread.run_sync(getattr(kafka_server, hurt))
            try:
                with anyio.fail_after(120):
                    await all_ways.all_stands()
            finally:
                await anyio.to_thread.run_sync(mend)
            with anyio.fail_after(120):
                await all_ways.all_goes_on()
            assert not await beyond(before), f"left behind by {hurt}"
    assert not await beyond(nothing)


@pytest.mark.asyncio
async def test_a_reader_that_ends_while_the_broker_stands_still_leaves_nothing(
    cluster, kafka_server
):
    nothing = held()
    async with traffic(cluster) as all_ways:
        with anyio.fail_after(120):
            await all_ways.all_goes_on()
        await anyio.to_thread.run_sync(kafka_server.pause)
        try:
            all_ways.subscriber.want(frozenset())
            await cluster.until(lambda: not all_ways.subscriber.reading, "it has ended")
        finally:
            await anyio.to_thread.run_sync(kafka_server.resume)
        all_ways.subscriber.want(all_ways.subscriptions)
        with anyio.fail_after(120):  # the group is given to the next one
            await all_ways.all_goes_on()
    assert not await beyond(nothing)
