"""The Subscriber port over Kafka: a reader for each topic and group that is wanted."""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Final

import anyio
import structlog

from protocols.ports.records import Record, Subscription
from runtime.kafka.client import KafkaSettings
from runtime.kafka.reader import Since, Take, TopicReader

log = structlog.get_logger("tickwright.kafka")

READERS_MAX: Final = 500
"""Each holds connections of its own to the brokers."""

TAKING_MAX: Final = 2
"""Batches that are being kept at once, so that topics leave the database to others as well."""


class KafkaSubscriber:
    """All topics that this node reads for its jobs.

    Args:
        settings: Where the brokers are.
        take: Makes records durable.
        since: From when on records of a subscription count.
        on_state: Told why something cannot be read, or None when all can; on changes.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        take: Take,
        since: Since,
        on_state: Callable[[str | None], None],
    ) -> None:
        self._settings = settings
        self._keep = take
        self._since = since
        self._on_state = on_state
        self._wanted: frozenset[Subscription] = frozenset()
        self._changed = anyio.Event()
        self._slots = anyio.Semaphore(TAKING_MAX)
        self._troubles: dict[Subscription, str] = {}
        self._told: str | None = None
        self._reading = 0

    def want(self, wanted: AbstractSet[Subscription], /) -> None:
        """Read these from now on, and no others; beyond `READERS_MAX`, the first by name."""
        some = frozenset(sorted(wanted)[:READERS_MAX])
        if some == self._wanted:
            return
        if len(some) < len(wanted):
            log.error("too many topics are wanted", wanted=len(wanted), read=len(some))
        self._wanted = some
        self._changed.set()

    async def run(self) -> None:
        """Read what is wanted, until cancelled."""
        running: dict[Subscription, anyio.CancelScope] = {}
        async with anyio.create_task_group() as group:
            while True:
                self._changed = anyio.Event()
                for gone in running.keys() - self._wanted:
                    running.pop(gone).cancel()
                    self._note(gone, None)
                for new in sorted(self._wanted - running.keys()):
                    running[new] = scope = anyio.CancelScope()
                    group.start_soon(self._run, new, scope, name=f"topic {new.topic}")
                await self._changed.wait()

    @property
    def reading(self) -> int:
        """How many readers there are, those included that are ending."""
        return self._reading

    async def _run(self, subscription: Subscription, scope: anyio.CancelScope) -> None:
        reader = TopicReader(
            self._settings,
            subscription,
            take=self._take,
            since=self._since,
            on_state=partial(self._hear, scope),
        )
        self._reading += 1
        try:
            with scope:
                await reader.run()
        finally:
            self._reading -= 1

    async def _take(self, subscription: Subscription, records: Sequence[Record]) -> None:
        async with self._slots:
            await self._keep(subscription, records)

    def _hear(
        self, scope: anyio.CancelScope, subscription: Subscription, reason: str | None
    ) -> None:
        """A reader that was ended has nothing more to say."""
        if not scope.cancel_called:
            self._note(subscription, reason)

    def _note(self, subscription: Subscription, reason: str | None) -> None:
        if reason is None:
            self._troubles.pop(subscription, None)
        else:
            self._troubles[subscription] = f"topic {subscription.topic}: {reason}"
        first = next(iter(self._troubles.values()), None)
        if first != self._told:
            self._told = first
            self._on_state(first)
