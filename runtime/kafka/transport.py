"""The Transport port over Kafka: one inbox topic per node, read from its end by this node alone.

Neither half ever fails its owner: a broker that is away is a state, told once when it begins and
once when it ends, and the way back is tried for ever, at growing intervals.
"""

import random
from collections.abc import Awaitable, Callable
from typing import Final

import anyio
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from protocols.ports.transport import Inbox, TransportCounts
from runtime.kafka.client import (
    ERRORS,
    KafkaSettings,
    describe,
    new_consumer,
    own_cancels_only,
    probe,
    stop_consumer,
)
from runtime.kafka.outgoing import Outgoing
from runtime.kafka.topics import Topic, create_topics, inbox_topic

log = structlog.get_logger("tickwright.kafka")

RECORD_BYTES_MAX: Final = 512 * 1024
"""No larger record is taken: what is larger belongs in the database, and its name in a message."""

POLL_RECORDS: Final = 500
"""Records handed over in one go, before others of the loop have their turn."""

BACKOFF_S: Final = (0.1, 2.0)
"""Wait before the next try: the first, and the longest."""

PROBE_S: Final = 1.0
"""How often a quiet connection is asked whether it still is one."""

PROBE_FAILS_S: Final = 4.0
"""So long without an answer, and Kafka is away."""

PREPARE_S: Final = 5.0

NOT_STARTED: Final = "not started"

OnState = Callable[[str | None], None]
"""Told why Kafka is away, or None when it is back; called on changes only, must not raise."""


class KafkaTransport:
    """This node's way to the others, and its own inbox.

        transport = KafkaTransport(settings, cluster="tickwright", name="a", now_ns=clock.now_ns)
        await transport.prepare()       # before the node joins
        group.start_soon(transport.run)

    Args:
        settings: Where the brokers are.
        cluster: Prefix of the topics' names.
        name: This node's.
        now_ns: Epoch nanoseconds of the Clock port.
        on_state: Told when Kafka goes away, and when it is back.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        cluster: str,
        name: str,
        now_ns: Callable[[], int],
        on_state: OnState = lambda _: None,
    ) -> None:
        self._settings = settings
        self._topic = inbox_topic(cluster, name)
        self._partition = TopicPartition(self._topic, 0)
        self._outgoing = Outgoing(settings, cluster=cluster, now_ns=now_ns)
        self._on_state = on_state
        self._troubles: dict[str, str] = {"inbox": NOT_STARTED, "outgoing": NOT_STARTED}
        self._told: str | None = None
        self._inbox: Inbox | None = None
        self._position: int | None = None
        self._fresh = False
        """The inbox was made and its end found just now."""
        self._received = self._oversize = 0

    record_bytes_max: Final = RECORD_BYTES_MAX

    @property
    def away(self) -> str | None:
        """Why nothing can be carried now; None while all is well."""
        return next(iter(self._troubles.values()), None)

    def send(self, node: str, record: bytes, *, deadline_ns: int) -> bool:
        """Take a record for a node's inbox; see the port."""
        if len(record) > RECORD_BYTES_MAX:
            self._oversize += 1
            return False
        return self._outgoing.offer(node, record, deadline_ns)

    def forget(self, node: str) -> None:
        """No node of that name lives any more."""
        self._outgoing.forget(node)

    def listen(self, inbox: Inbox) -> None:
        """Hand what comes to `inbox`, from here on; until then it waits in Kafka."""
        self._inbox = inbox

    def counts(self) -> TransportCounts:
        """What it has done so far."""
        outgoing = self._outgoing
        return TransportCounts(
            sent=outgoing.sent,
            received=self._received,
            rejected=outgoing.rejected + self._oversize,
            expired=outgoing.expired,
            lost=outgoing.lost,
            waiting=outgoing.waiting,
        )

    async def prepare(self, within_s: float = PREPARE_S) -> bool:
        """Make the inbox and find its end, so that all that is sent from here on is read.

        False if Kafka cannot be reached in that time: the node joins all the same, and the inbox
        is read from the end found when Kafka is there.
        """
        try:
            with own_cancels_only(), anyio.fail_after(within_s):
                await self._find_end()
        except Exception as error:  # noqa: BLE001 - as in `_keep`
            self._trouble("inbox", error)
            return False
        return True

    async def _make_inbox(self) -> None:
        await create_topics(
            self._settings,
            Topic(name=self._topic, retention_s=self._settings.inbox_retention_s),
        )

    async def _find_end(self) -> None:
        await self._make_inbox()
        consumer = new_consumer(self._settings)
        try:
            await consumer.start()
            ends = await consumer.end_offsets([self._partition])
        finally:
            await stop_consumer(consumer)
        self._position = ends[self._partition]
        self._fresh = True

    async def run(self) -> None:
        """Send and receive until cancelled; a broker that is away ends nothing."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._keep, "inbox", self._read)
            group.start_soon(self._keep, "outgoing", self._send)

    async def drain(self, within_s: float) -> bool:
        """Return once all that was taken has left; false if it has not in that time."""
        with anyio.move_on_after(within_s):
            while self._outgoing.waiting:  # noqa: ASYNC110 - once in a life, at its end
                await anyio.sleep(0.01)
        return self._outgoing.waiting == 0

    # Away and back.

    async def _keep(self, half: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do it again whenever it fails, after a wait that grows while nothing works."""
        tries = 0
        while True:
            try:
                with own_cancels_only():
                    await work()
            except Exception as error:
                # aiokafka has errors of its own while brokers come and go (an AttributeError for
                # a controller not known yet): they are told with their trace, and end nothing.
                if not isinstance(error, ERRORS):
                    log.exception("kafka client failed", half=half)
                if half not in self._troubles:
                    tries = 0
                self._trouble(half, error)
            wait_s = min(BACKOFF_S[1], BACKOFF_S[0] * 2**tries)
            tries = min(tries + 1, 10)
            await anyio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads nodes

    def _trouble(self, half: str, error: BaseException) -> None:
        self._troubles[half] = f"kafka: {describe(error)}"
        self._tell()

    def _well(self, half: str) -> None:
        self._troubles.pop(half, None)
        self._tell()

    def _tell(self) -> None:
        """Tell of a change between well and away, not of each new reason."""
        away = self.away
        if away == NOT_STARTED:
            return  # neither well nor away: the other half has yet to say
        if (away is None) == (self._told is None):
            return
        self._told = away
        if away is None:
            log.info("kafka is back")
        else:
            log.warning("kafka is away", reason=away)
        self._on_state(away)

    # The two halves.

    async def _send(self) -> None:
        await self._outgoing.run(lambda: self._well("outgoing"))

    async def _read(self) -> None:
        """Read the inbox from where it was left; from its beginning, if it had to be made anew."""
        with anyio.fail_after(PREPARE_S):
            if self._position is None:
                await self._find_end()
            elif not self._fresh:
                await self._make_inbox()
        self._fresh = False
        consumer = new_consumer(self._settings, auto_offset_reset="earliest")
        try:
            with anyio.fail_after(PREPARE_S):
                await consumer.start()
            consumer.assign([self._partition])
            assert self._position is not None
            consumer.seek(self._partition, self._position)
            self._well("inbox")
            await self._poll(consumer)
        finally:
            await stop_consumer(consumer)

    async def _poll(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            wait_ms = round(PROBE_S * 1000)
            batches = await consumer.getmany(
                self._partition, timeout_ms=wait_ms, max_records=POLL_RECORDS
            )
            records = batches.get(self._partition, ())
            for record in records:
                self._received += 1
                if self._inbox is not None and record.value is not None:
                    self._inbox(record.value)
                self._position = record.offset + 1
            if records:
                await anyio.lowlevel.checkpoint()
            else:
                with anyio.fail_after(PROBE_FAILS_S):
                    await probe(consumer, self._topic)
