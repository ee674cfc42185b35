"""Nodes that read topics for the jobs of one house, without the rest of a node around them."""

from contextlib import asynccontextmanager
from datetime import UTC, datetime

import anyio
import msgspec
from aiokafka.admin import AIOKafkaAdminClient

from actors.records import RecordTriggers
from protocols.jobs import KafkaTrigger, Trigger
from runtime.kafka.client import KafkaSettings, connection, new_producer
from runtime.kafka.subscriber import KafkaSubscriber
from runtime.kafka.topics import Topic, create_topics
from runtime.postgres.store import PostgresStore
from tests.integration.kafka.conftest import until
from tests.integration.operations.conftest import NOW, World, job

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


class Sent:
    """Keeps the hints that were sent."""

    def __init__(self):
        self.hints = []

    def send(self, hint, /):
        self.hints.append(hint)


class Reading:
    """One node's readers."""

    def __init__(self, house: "House", take=None):
        self.states: list[str | None] = []
        self.omitted = []
        self.hints = Sent()
        self.triggers = RecordTriggers(
            store=house.store,
            hints=self.hints,
            cluster=house.cluster,
            now=lambda: NOW,
            on_omitted=self.omitted.append,
        )
        self.subscriber = KafkaSubscriber(
            house.settings,
            take=take or self.triggers.take,
            since=self.triggers.since,
            on_state=self.states.append,
        )

    @property
    def counts(self):
        return self.triggers.counts


class House:
    """Jobs in a database, and topics of their own."""

    def __init__(self, world: World, settings: KafkaSettings, cluster: str):
        self.world = world
        self.settings = settings
        self.cluster = cluster
        self.topic = f"{cluster}.orders"
        self.store = PostgresStore(hot=world.hot, keeping=world.node)

    async def make_topic(self, partitions: int = 1) -> None:
        await create_topics(
            self.settings, Topic(name=self.topic, partitions=partitions, retention_s=3600)
        )

    @asynccontextmanager
    async def admin(self):
        admin = AIOKafkaAdminClient(**connection(self.settings))
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()

    async def make_topic_anew(self) -> None:
        async with self.admin() as admin:
            await admin.delete_topics([self.topic])
            while self.topic in await admin.list_topics():  # noqa: ASYNC110 - only Kafka knows
                await anyio.sleep(0.05)
        await self.make_topic()

    async def send(self, *values, partition: int | None = 0, **fields) -> None:
        """Append records; what is no bytes is sent as JSON."""
        producer = new_producer(self.settings, max_request_size=4 << 20)
        await producer.start()
        try:
            for value in values:
                plain = value is None or isinstance(value, bytes)
                data = value if plain else msgspec.json.encode(value)
                await producer.send_and_wait(self.topic, data, partition=partition, **fields)
        finally:
            await producer.stop()

    async def job(self, job_id: str, *, fields=None, now=LONG_AGO, **kafka):
        """Apply a job on the topic; `fields` are what a value has to have."""
        on = Trigger(kafka=KafkaTrigger(topic=self.topic, **kafka), filter=fields or {})
        await self.world.apply(
            job(job_id, on=(on,), overlap="allow"), source=job_id, now=now, adopt=True
        )

    @asynccontextmanager
    async def reading(self, take=None):
        """A node that reads what the jobs want when the block begins."""
        node = Reading(self, take)
        node.subscriber.want(await self.store.subscriptions(self.cluster))
        async with anyio.create_task_group() as group:
            group.start_soon(node.subscriber.run)
            try:
                yield node
            finally:
                group.cancel_scope.cancel()

    async def inputs(self, job_id: str):
        rows = await self.world.rows(
            "SELECT input FROM all_executions WHERE job_id = $1 ORDER BY id", job_id
        )
        return [msgspec.json.decode(row["input"]) for row in rows]

    async def values(self, job_id: str):
        return [given["value"] for given in await self.inputs(job_id)]

    async def clock(self) -> datetime:
        """Ask what time it is."""
        return (await self.world.one("SELECT clock_timestamp() AS now"))["now"]

    async def until_values(self, job_id: str, wanted) -> None:
        """Return once exactly these have triggered the job, in this order."""
        with anyio.move_on_after(60):
            while (found := await self.values(job_id)) != wanted:
                assert len(found) <= len(wanted), found
                await anyio.sleep(0.05)
            return
        raise AssertionError(f"{await self.values(job_id)}, not {wanted}")


__all__ = ["LONG_AGO", "House", "Reading", "until"]
