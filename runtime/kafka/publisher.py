"""What happened, told to whoever listens: two topics, each batch one transaction of one publisher.

Records of a job are in one partition, in order. Of all publishers of a cluster only the one that
began last can commit: they share a transactional id, so Kafka shuts the earlier ones out.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, Final
from zlib import crc32

import anyio
import msgspec
import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder

from protocols.instants import iso
from protocols.ports.outbox import Change, PublishError
from runtime.kafka.client import (
    ERRORS,
    KafkaSettings,
    abandon_producer,
    describe,
    new_producer,
    own_cancels_only,
)
from runtime.kafka.topics import Topic, create_topics, topic_name
from runtime.setting_rules import EventFormat

log = structlog.get_logger("tickwright.kafka")

EVENTS: Final = "events"
DEAD_LETTERS: Final = "dead_letter_queue"

PARTITIONS: Final = 8
"""Of each topic. Eight readers side by side read more than one database writes; a transaction
touches sixteen partitions at most, and 1, 2, 4 or 8 readers have equal shares. A topic that is
there already keeps the number it has."""

BATCH_BYTES: Final = 512 * 1024
"""Of one partition's records in one request; brokers take 1 MiB by default."""

BEGIN_S: Final = 15.0
"""The broker may first have to end what an earlier publisher left open."""
PUBLISH_S: Final = 10.0
TRANSACTION_MS: Final = 30_000
"""A transaction whose publisher is gone, with no other in its place, is ended by then."""

CONTENT_TYPES: Final[dict[EventFormat, bytes]] = {
    "json": b"application/json",
    "msgpack": b"application/msgpack",
}
_ENCODE: Final[dict[EventFormat, Callable[[object], bytes]]] = {
    "json": msgspec.json.encode,
    "msgpack": msgspec.msgpack.encode,
}
_EACH: Final = 100
"""Records encoded before others of the loop have their turn."""

Record = tuple[bytes, bytes, list[tuple[str, bytes]]]
"""Key, value, headers."""


class EventRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The value of a record of the events topic; instants are ISO-8601 in UTC."""

    execution_id: str
    tenant: str
    job_id: str
    scheduled_for: str
    state: str
    reason: str | None
    attempt: int
    node: str | None
    kind: str
    at: str
    sequence: int


class DeadLetterRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The value of a record of the dead letters; `timestamp` is when the execution died."""

    job_id: str
    execution_id: str
    tenant: str
    scheduled_for: str
    attempt: int
    retry_count: int
    failure_reason: str | None
    error: str | None
    node: str | None
    timestamp: str


class KafkaPublisher:
    """The Publisher port over Kafka.

    Args:
        settings: Where the brokers are.
        cluster: Prefix of the topics' names and of the transactional id.
        form: How values are encoded.
        retention_s: How long records are kept, of topics that are made here.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        cluster: str,
        form: EventFormat = "json",
        retention_s: float,
    ) -> None:
        self._settings = settings
        self._id = f"{cluster}.outbox"
        self._events = topic_name(cluster, EVENTS)
        self._dead = topic_name(cluster, DEAD_LETTERS)
        self._retention_s = retention_s
        self._encode = _ENCODE[form]
        self._content_type = CONTENT_TYPES[form]
        self._producer: AIOKafkaProducer | None = None
        self._partitions: dict[str, int] = {}

    async def begin(self) -> None:
        """As the port says; the topics are made if they are not there."""
        await self.close()
        topics = (self._events, self._dead)
        producer = new_producer(
            self._settings,
            transactional_id=self._id,
            transaction_timeout_ms=TRANSACTION_MS,
            max_batch_size=BATCH_BYTES,
        )
        try:
            with own_cancels_only(), anyio.fail_after(BEGIN_S):
                await create_topics(
                    self._settings,
                    *(
                        Topic(name=name, partitions=PARTITIONS, retention_s=self._retention_s)
                        for name in topics
                    ),
                )
                await producer.start()
                for name in topics:
                    self._partitions[name] = len(await producer.partitions_for(name))
        except BaseException as error:
            await _abandon(producer)
            if isinstance(error, Exception):
                raise await self._failed(error) from error
            raise
        self._producer = producer

    async def publish(self, changes: Sequence[Change]) -> None:
        """As the port says, in one transaction."""
        producer = self._producer
        if producer is None:
            raise PublishError("kafka: the publisher has ended")
        try:
            records = await self._records(changes)
            with own_cancels_only(), anyio.fail_after(PUBLISH_S):
                await producer.begin_transaction()
                sent = []
                for (topic, partition), here in records.items():
                    for batch in _batches(producer, here):
                        future = await producer.send_batch(batch, topic, partition=partition)
                        future.add_done_callback(_look_at)
                        sent.append(future)
                for future in sent:
                    await future
                await producer.commit_transaction()
        except Exception as error:
            raise await self._failed(error) from error

    async def close(self) -> None:
        """As the port says; what is open is ended by the next to begin."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await _abandon(producer)

    async def _failed(self, error: Exception) -> PublishError:
        if not isinstance(error, ERRORS):  # one of aiokafka's own, as the transport meets them
            log.error("kafka producer failed", exc_info=error)
        await self.close()
        return PublishError(f"kafka: {describe(error)}")

    async def _records(self, changes: Sequence[Change]) -> dict[tuple[str, int], list[Record]]:
        """Records by topic and partition, in order."""
        records: dict[tuple[str, int], list[Record]] = defaultdict(list)
        for number, change in enumerate(changes):
            if number % _EACH == _EACH - 1:
                await anyio.lowlevel.checkpoint()
            job = crc32(f"{change.tenant}/{change.job_id}".encode())
            key, headers = change.execution_id.encode(), self._headers(change)
            values: list[tuple[str, object]] = [(self._events, event_record(change))]
            if change.state == "dead":
                values.append((self._dead, dead_letter_record(change)))
            for topic, value in values:
                place = (topic, job % self._partitions[topic])
                records[place].append((key, self._encode(value), headers))
        return records

    def _headers(self, change: Change) -> list[tuple[str, bytes]]:
        return [
            ("kind", change.kind.encode()),
            ("tenant", change.tenant.encode()),
            ("job_id", change.job_id.encode()),
            ("sequence", str(change.sequence).encode()),
            ("content-type", self._content_type),
        ]


def event_record(change: Change) -> EventRecord:
    """What the events topic says of a change."""
    return EventRecord(
        execution_id=change.execution_id,
        tenant=change.tenant,
        job_id=change.job_id,
        scheduled_for=iso(change.scheduled_for),
        state=change.state,
        reason=change.reason,
        attempt=change.attempt,
        node=change.node,
        kind=change.kind,
        at=iso(change.at),
        sequence=change.sequence,
    )


def dead_letter_record(change: Change) -> DeadLetterRecord:
    """What the dead letters say of an execution that died."""
    return DeadLetterRecord(
        job_id=change.job_id,
        execution_id=change.execution_id,
        tenant=change.tenant,
        scheduled_for=iso(change.scheduled_for),
        attempt=change.attempt,
        retry_count=change.retry_count,
        failure_reason=change.reason,
        error=change.error,
        node=change.node,
        timestamp=iso(change.at),
    )


def _batches(producer: AIOKafkaProducer, records: Sequence[Record]) -> list[BatchBuilder]:
    """The records in order, as few batches as they go into; the first of one always does."""
    batches = [producer.create_batch()]
    for key, value, headers in records:
        while batches[-1].append(timestamp=None, key=key, value=value, headers=headers) is None:
            batches.append(producer.create_batch())
    for batch in batches:
        batch.close()
    return batches


async def _abandon(producer: AIOKafkaProducer) -> None:
    """End it; what became of its last batches and transaction nobody asks for any more."""
    await abandon_producer(producer)
    held = producer._message_accumulator  # noqa: SLF001 - no other way to what the loop would tell
    batches = chain(held._pending_batches, *held._batches.values())  # noqa: SLF001
    ends = [producer._txn_manager._transaction_waiter]  # noqa: SLF001
    ends += [batch._drain_waiter for batch in batches]  # noqa: SLF001
    for end in ends:
        if end is not None:
            end.add_done_callback(_look_at)


def _look_at(future: Any) -> None:
    """An error that nobody waits for any more is not told by the loop either."""
    if not future.cancelled():
        future.exception()
