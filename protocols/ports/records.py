"""What triggers know of Kafka: topics that are read on, and the records that come from them."""

from collections.abc import Set as AbstractSet
from typing import Protocol

import msgspec


class Subscription(msgspec.Struct, frozen=True, order=True):
    """A topic, and the consumer group that remembers how far it was read."""

    topic: str
    group: str


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A record as it stands in its topic.

    `topic_id` is the topic's own, which no topic of the same name has again. `timestamp_ms` is
    epoch milliseconds as the producer or the broker set it, so any number.
    """

    topic: str
    topic_id: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()


class Subscriber(Protocol):
    """Reads topics for as long as somebody wants them, and hands their records over."""

    def want(self, wanted: AbstractSet[Subscription], /) -> None:
        """Read these from now on, and no others; never blocks, never fails."""
        ...
