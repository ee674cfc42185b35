"""Reads one topic in one consumer group, and commits an offset only once its record is kept.

Each commit names the topic's id beside the offset, so that an offset of a topic that was deleted
is never taken for a place in the one made anew under its name. Records may be handed over twice
(after a rebalance, a crash, a failed commit); none is passed over.
"""

import random
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import anyio
import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)
from aiokafka.structs import ConsumerRecord

from protocols.errors import UnavailableError
from protocols.instants import epoch_us
from protocols.ports.records import Record, Subscription
from runtime.kafka.client import (
    ERRORS,
    KafkaSettings,
    describe,
    new_consumer,
    own_cancels_only,
    stop_consumer,
)
from runtime.kafka.topic_ids import topic_id

log = structlog.get_logger("tickwright.kafka")

POLL_S: Final = 1.0
"""How long one poll waits; after each, the topic is asked whether it still is the same."""

POLL_RECORDS: Final = 500
BATCH_RECORDS: Final = 250
BATCH_BYTES: Final = 1 << 20
"""What is handed over in one go, before others of the loop have their turn."""

START_S: Final = 10.0
ASK_AGAIN_S: Final = 0.5
OUTAGE_S: Final = 60.0
"""So long brokers that are away keep their consumer; then it is made anew."""

METADATA_AGE_MS: Final = 5_000
"""How soon a partition that was added is read."""

PATIENCE_S: Final = 10.0
"""So long a database that is away is waited for; then other nodes may have the partitions."""

BACKOFF_S: Final = (0.1, 5.0)

_MARK: Final = "tickwright topic "

Take = Callable[[Subscription, Sequence[Record]], Awaitable[None]]
Since = Callable[[Subscription], Awaitable[datetime | None]]
OnState = Callable[[Subscription, str | None], None]


class _MadeAnewError(Exception):
    """The topic is gone, or another one has its name."""


class TopicReader(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped
    """One subscription of this node.

    Args:
        settings: Where the brokers are.
        subscription: What to read.
        take: Makes records durable; raises `UnavailableError` where it cannot now.
        since: From when on records count where the group has no place yet.
        on_state: Told why nothing can be read, or None when it can.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        subscription: Subscription,
        *,
        take: Take,
        since: Since,
        on_state: OnState,
    ) -> None:
        self._settings = settings
        self._subscription = subscription
        self._take = take
        self._since = since
        self._on_state = on_state
        self._id: UUID | None = None
        self._made_anew = False
        self._placed: set[TopicPartition] = set()
        self._well = False

    async def run(self) -> None:
        """Read until cancelled; nothing that fails ends it."""
        tries = 0
        while True:
            self._well = False
            try:
                with own_cancels_only():
                    await self._read()
            except _MadeAnewError:
                log.warning("topic was deleted or made anew", topic=self._subscription.topic)
            except UnavailableError as error:
                log.info("records wait for the database", error=str(error), **self._name)
            except Exception as error:
                if not isinstance(error, ERRORS):
                    log.exception("kafka consumer failed", **self._name)
                self._on_state(self._subscription, describe(error))
            tries = 0 if self._well else min(tries + 1, 10)
            wait_s = min(BACKOFF_S[1], BACKOFF_S[0] * 2**tries)
            await anyio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads nodes

    @property
    def _name(self) -> dict[str, str]:
        return {"topic": self._subscription.topic, "group": self._subscription.group}

    async def _read(self) -> None:
        """Join the group and read on, until something fails."""
        since = await self._since(self._subscription)  # no group is joined for a database away
        consumer = new_consumer(
            self._settings,
            group_id=self._subscription.group,
            auto_offset_reset="none",
            isolation_level="read_committed",
            metadata_max_age_ms=METADATA_AGE_MS,
        )
        self._placed.clear()
        try:
            with anyio.fail_after(START_S):
                await consumer.start()
            await self._find_topic(consumer)
            consumer.subscribe([self._subscription.topic], listener=self)
            while True:
                await self._step(consumer, since)
        finally:
            await stop_consumer(consumer)

    async def _find_topic(self, consumer: AIOKafkaConsumer) -> None:
        """Wait until the topic is there; a question does not make it, as a subscription might."""
        while True:
            found = await self._ask_id(consumer)
            if found is not None:
                break
            self._on_state(
                self._subscription, f"there is no topic {self._subscription.topic}: make it"
            )
            self._made_anew = True
            await anyio.sleep(POLL_S)
        self._made_anew = self._made_anew or self._id not in (None, found)
        self._id = found

    async def _ask_id(self, consumer: AIOKafkaConsumer) -> UUID | None:
        with anyio.fail_after(START_S):
            return await topic_id(consumer._client, self._subscription.topic)  # noqa: SLF001

    async def _see_same(self, consumer: AIOKafkaConsumer) -> None:
        """Return once Kafka says that this still is the topic that was found.

        A broker that is away for a moment costs no membership in the group, and so no rebalance.

        Raises:
            _MadeAnewError: It is gone, or another.
            KafkaError: Nobody can be asked for long.
        """
        give_up_at = anyio.current_time() + OUTAGE_S
        while True:
            try:
                found = await self._ask_id(consumer)
                break
            except ERRORS as error:
                self._well = False
                self._on_state(self._subscription, describe(error))
                if anyio.current_time() > give_up_at:
                    raise
            await anyio.sleep(ASK_AGAIN_S)
        if found != self._id:
            raise _MadeAnewError
        if not self._well:
            self._well = True
            self._on_state(self._subscription, None)

    async def _step(self, consumer: AIOKafkaConsumer, since: datetime | None) -> None:
        """Take over what was assigned, poll once, keep what came, and commit it."""
        new = consumer.assignment() - self._placed
        if new:
            await self._place(consumer, new, since)
        try:
            batches = await consumer.getmany(
                *self._placed, timeout_ms=round(POLL_S * 1000), max_records=POLL_RECORDS
            )
        except NoOffsetForPartitionError:  # said of a partition before it was given its place
            return
        except OffsetOutOfRangeError as error:
            await self._place_again(consumer, error.args[0])
            return
        await self._see_same(consumer)  # before they are given this id
        records = {part: batch for part, batch in batches.items() if part in self._placed}
        for part, batch in records.items():
            for some in _slices(batch):
                await self._hand_over([self._record(record) for record in some])
                await self._commit(consumer, {part: some[-1].offset + 1})

    def _record(self, record: "ConsumerRecord[bytes, bytes]") -> Record:
        return Record(
            topic=record.topic,
            topic_id=str(self._id),
            partition=record.partition,
            offset=record.offset,
            timestamp_ms=record.timestamp,
            key=record.key,
            value=record.value,
            headers=tuple(record.headers),
        )

    async def _hand_over(self, records: Sequence[Record]) -> None:
        """Have records kept, however often that has to be tried.

        While it is, nothing is fetched beyond what aiokafka has in hand.

        Raises:
            UnavailableError: Not within `PATIENCE_S`.
        """
        delay_s = BACKOFF_S[0]
        give_up_at = anyio.current_time() + PATIENCE_S
        while True:
            try:
                await self._take(self._subscription, records)
            except UnavailableError:
                if anyio.current_time() + delay_s > give_up_at:
                    raise
            else:
                return
            await anyio.sleep(delay_s)
            delay_s = min(1.0, delay_s * 2)

    # Places.

    async def _place(
        self, consumer: AIOKafkaConsumer, new: Iterable[TopicPartition], since: datetime | None
    ) -> None:
        """Begin to read partitions where the group is, or where it has to begin."""
        parts = list(new)
        with anyio.fail_after(START_S):
            committed = await consumer._coordinator.fetch_committed_offsets(parts)  # noqa: SLF001
        begin = {}
        for part in parts:
            found = committed.get(part)
            if found is not None and found.offset >= 0 and self._is_ours(found.metadata):
                self._seek(consumer, part, found.offset)
            else:
                begin[part] = found is not None and found.offset >= 0
        if begin:
            anew = [part for part, stale in begin.items() if stale or self._made_anew]
            starts = await consumer.beginning_offsets(anew) if anew else {}
            starts |= await _since(consumer, begin.keys() - starts.keys(), since)
            for part, offset in starts.items():
                self._seek(consumer, part, offset)
            await self._commit(consumer, starts)
            log.info("reading a topic", partitions=len(starts), anew=len(anew), **self._name)

    def _is_ours(self, metadata: str | None) -> bool:
        """Whether an offset is one of this topic; one set by hand is taken at its word."""
        return not (metadata or "").startswith(_MARK) or metadata == f"{_MARK}{self._id}"

    async def _place_again(
        self, consumer: AIOKafkaConsumer, lost: dict[TopicPartition, int]
    ) -> None:
        """Go on at the nearest record there is: what lay before it was deleted unread."""
        await self._see_same(consumer)
        first = await consumer.beginning_offsets(list(lost))
        last = await consumer.end_offsets(list(lost))
        for part, offset in lost.items():
            there = min(max(offset, first[part]), last[part])
            log.warning(
                "records are gone before they were read",
                partition=part.partition,
                wanted=offset,
                next=there,
                **self._name,
            )
            self._seek(consumer, part, there)

    def _seek(self, consumer: AIOKafkaConsumer, part: TopicPartition, offset: int) -> None:
        try:
            consumer.seek(part, offset)
        except IllegalStateError:  # it was taken away meanwhile
            return
        self._placed.add(part)

    async def _commit(self, consumer: AIOKafkaConsumer, offsets: dict[TopicPartition, int]) -> None:
        mine = {
            part: (offset, f"{_MARK}{self._id}")
            for part, offset in offsets.items()
            if part in consumer.assignment()
        }
        if not mine:
            return
        try:
            with anyio.fail_after(START_S):
                await consumer.commit(mine)
        except (CommitFailedError, IllegalStateError):
            return  # whoever has the partition now reads from the last commit, and is told `known`

    # What aiokafka tells of the group.

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Whatever is assigned next is placed anew: another may have read on meanwhile."""
        del revoked
        self._placed.clear()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """The next step sees them."""


async def _since(
    consumer: AIOKafkaConsumer, parts: Iterable[TopicPartition], since: datetime | None
) -> dict[TopicPartition, int]:
    """The first record not older than `since` of each partition, or else its end."""
    wanted = list(parts)
    if not wanted:
        return {}
    ends: dict[TopicPartition, int] = await consumer.end_offsets(wanted)
    if since is None:
        return ends
    ms = epoch_us(since) // 1000
    found = await consumer.offsets_for_times(dict.fromkeys(wanted, ms))
    return {
        part: end if found.get(part) is None else found[part].offset for part, end in ends.items()
    }


def _slices(
    records: Sequence["ConsumerRecord[bytes, bytes]"],
) -> Iterator[Sequence["ConsumerRecord[bytes, bytes]"]]:
    """The same in their order, a bounded part at a time."""
    part: list[ConsumerRecord[bytes, bytes]] = []
    size = 0
    for record in records:
        weight = len(record.value or b"") + len(record.key or b"")
        if part and (len(part) >= BATCH_RECORDS or size + weight > BATCH_BYTES):
            yield part
            part, size = [], 0
        part.append(record)
        size += weight
    if part:
        yield part
