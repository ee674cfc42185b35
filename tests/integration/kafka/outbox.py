"""A house with an outbox, whose publishers are led by hand, and a reader of what they published."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import msgspec
from aiokafka import TopicPartition

from protocols.ids import execution_id
from runtime.kafka.client import KafkaSettings, new_consumer, stop_consumer
from runtime.kafka.publisher import DEAD_LETTERS, EVENTS, PARTITIONS, KafkaPublisher
from runtime.kafka.topics import topic_name
from runtime.postgres.outbox import PostgresOutbox
from tests.contract.store.books import Books

TTL_S = 30.0


class Outbox:
    """One claim and one publisher, as a node has them."""

    def __init__(self, books: Books, settings: KafkaSettings, cluster: str, form: str = "json"):
        self.store = PostgresOutbox(books.pool)
        self.publisher = KafkaPublisher(settings, cluster=cluster, form=form, retention_s=3600.0)
        self.token = 0

    async def begin(self, incarnation: int, *, ttl_s: float = TTL_S) -> None:
        self.token = await self.store.take(incarnation, self.token, ttl_s=ttl_s)
        await self.publisher.begin()

    async def read(self, events: int = 500, changes: int = 1000):
        return await self.store.read(self.token, events=events, changes=changes)

    async def drain(self, **bounds) -> int:
        """Publish all there is; how many batches."""
        batches = 0
        while (batch := await self.read(**bounds)).events:
            await self.publisher.publish(batch.changes)
            assert await self.store.advance(self.token, batch, ttl_s=TTL_S)
            batches += 1
        return batches


@asynccontextmanager
async def opened(books: Books, settings, cluster: str, form: str = "json") -> AsyncIterator[Outbox]:
    outbox = Outbox(books, settings, cluster, form)
    try:
        yield outbox
    finally:
        await outbox.publisher.close()


async def published(settings: KafkaSettings, cluster: str, topic: str = EVENTS):
    """Read all committed records: partition, key, value, headers; in order within a partition."""
    name = topic_name(cluster, topic)
    consumer = new_consumer(
        settings, auto_offset_reset="earliest", isolation_level="read_committed"
    )
    records = []
    try:
        await consumer.start()
        places = [TopicPartition(name, n) for n in range(PARTITIONS)]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        ends = await consumer.end_offsets(places)
        with anyio.fail_after(60):
            while any([await consumer.position(place) < ends[place] for place in places]):
                for batch in (await consumer.getmany(timeout_ms=200)).values():
                    records += batch
    finally:
        await stop_consumer(consumer)
    return [(r.partition, r.key.decode(), _value(r), dict(r.headers)) for r in records]


async def dead_letters(settings: KafkaSettings, cluster: str):
    return [value for _, _, value, _ in await published(settings, cluster, DEAD_LETTERS)]


def _value(record):
    if dict(record.headers)["content-type"] == b"application/msgpack":
        return msgspec.msgpack.decode(record.value)
    return msgspec.json.decode(record.value)


async def public_id(books: Books, row: int) -> str:
    created_at = await books.one("SELECT created_at FROM all_executions WHERE id = $1", row)
    return execution_id(row, created_at)
