"""The sending half: one idempotent producer, one sender per inbox, one batch of each under way.

A batch is what came while the one before was under way, so nobody waits for company and nothing
overtakes. Whatever fails ends the producer, and the next one begins with what was not
acknowledged: what arrived all the same arrives twice, and is dropped there by its sequence.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import anyio
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    UnknownTopicOrPartitionError,
)
from aiokafka.producer.message_accumulator import BatchBuilder

from runtime.kafka.buffers import Buffer
from runtime.kafka.client import (
    KafkaSettings,
    abandon_producer,
    new_producer,
    own_cancels_only,
)
from runtime.kafka.topics import inbox_topic

BATCH_RECORDS: Final = 1000
BATCH_BYTES: Final = 900_000
"""Below the broker's default limit on a batch (message.max.bytes, 1 MiB)."""

SEND_S: Final = 10.0
"""A batch that is not acknowledged by then ends the producer, and is sent by the next."""

EXPIRE_AGAIN_NS: Final = 100_000_000
"""How often a full buffer is looked through for what nobody wants any more."""


class Outgoing:
    """Buffers for other nodes' inboxes, and what empties them.

    Args:
        settings: Where the brokers are.
        cluster: Prefix of the topics' names.
        now_ns: Epoch nanoseconds of the Clock port.
    """

    def __init__(self, settings: KafkaSettings, *, cluster: str, now_ns: Callable[[], int]) -> None:
        self._settings = settings
        self._cluster = cluster
        self._now_ns = now_ns
        self._buffers: dict[str, Buffer] = {}
        self._fresh: list[tuple[str, Buffer]] = []
        """Buffers that no sender of the present producer has in hand yet."""
        self._look: asyncio.Future[None] | None = None
        self.sent = self.rejected = self.expired = self.lost = 0

    @property
    def waiting(self) -> int:
        """Records in all buffers."""
        return sum(len(buffer) for buffer in self._buffers.values())

    def offer(self, node: str, record: bytes, deadline_ns: int) -> bool:
        """Take a record for a node's inbox, if there is room for it."""
        buffer = self._buffers.get(node)
        if buffer is None:
            buffer = self._buffers[node] = Buffer()
            self._fresh.append((node, buffer))
            self._wake()
        if buffer.offer(record, deadline_ns):
            return True
        now_ns = self._now_ns()
        if now_ns >= buffer.look_again_ns:  # looking through a full buffer costs, and a full one
            buffer.look_again_ns = now_ns + EXPIRE_AGAIN_NS  # is offered more at every message
            self.expired += buffer.expire(now_ns)
            if buffer.offer(record, deadline_ns):
                return True
        self.rejected += 1
        return False

    def forget(self, node: str) -> None:
        """Nobody of that name lives: drop what waits."""
        buffer = self._buffers.pop(node, None)
        if buffer is not None:
            self.lost += buffer.clear()
            buffer.forgotten = True
            buffer.wake()

    def _wake(self) -> None:
        if self._look is not None and not self._look.done():
            self._look.set_result(None)

    async def run(self, on_up: Callable[[], None]) -> None:
        """Send until something fails; `on_up` is called when a broker has answered.

        Raises:
            KafkaError: The producer came to an end, with no fault of this program.
            OSError: The same.
        """
        producer = new_producer(self._settings, max_batch_size=BATCH_BYTES + 100_000)
        try:
            with own_cancels_only(), anyio.fail_after(SEND_S):
                await producer.start()
            on_up()
            async with anyio.create_task_group() as group:
                self._fresh = list(self._buffers.items())
                while True:
                    fresh, self._fresh = self._fresh, []
                    for node, buffer in fresh:
                        group.start_soon(self._empty, producer, node, buffer)
                    self._look = asyncio.get_running_loop().create_future()
                    await self._look
        except BaseExceptionGroup as errors:
            raise first_error(errors) from errors
        finally:
            self._look = None
            await abandon_producer(producer)

    async def _empty(self, producer: AIOKafkaProducer, node: str, buffer: Buffer) -> None:
        """Send what comes for one inbox, for ever."""
        topic = inbox_topic(self._cluster, node)
        while not buffer.forgotten:
            if not buffer:
                more: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                buffer.on_more = lambda more=more: more.done() or more.set_result(None)
                await more
                continue
            batch = producer.create_batch()
            try:
                done, sent = self._fill(batch, buffer)
                if sent:
                    with own_cancels_only(), anyio.fail_after(SEND_S):
                        await (await producer.send_batch(batch, topic, partition=0))
                self.sent += sent
                buffer.left(done)
            except (
                UnknownTopicOrPartitionError,
                MessageSizeTooLargeError,
                RecordListTooLargeError,
            ):
                # Nobody reads there, or the broker takes less than we do: again helps nobody.
                self.lost += sent
                buffer.left(done)
            finally:
                buffer.keep()

    def _fill(self, batch: BatchBuilder, buffer: Buffer) -> tuple[int, int]:
        """Put into the batch what still is of use: (how many were looked at, how many are in)."""
        now_ns = self._now_ns()
        done = sent = 0
        for waiting in buffer.take(BATCH_RECORDS):
            if waiting.deadline_ns <= now_ns:
                self.expired += 1
            elif sent and batch.size() + len(waiting.record) > BATCH_BYTES:
                break
            else:
                batch.append(key=None, value=waiting.record, timestamp=None)
                sent += 1
            done += 1
        batch.close()
        return done, sent


def first_error(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """What a task group ended with, without the group."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
