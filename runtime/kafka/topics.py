"""Topics: their names, and making those that are not there yet."""

import re
from contextlib import suppress
from typing import Final

import msgspec
from aiokafka.admin import NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from runtime.kafka.client import KafkaSettings, new_admin

_LEGAL: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")
"""What Kafka takes as a topic's name (org.apache.kafka.common.internals.Topic)."""


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """A topic as it is made; one that exists already stays as it is.

    Args:
        name: As `topic_name` made it.
        partitions: How many.
        retention_s: How long its records are kept.
    """

    name: str
    partitions: int = 1
    retention_s: float


def topic_name(cluster: str, *parts: str) -> str:
    """The name of one of a cluster's topics: `{cluster}.inbox.{node}`, `{cluster}.events`.

    Raises:
        ValueError: Kafka takes no such name.
    """
    name = ".".join((cluster, *parts))
    if not _LEGAL.fullmatch(name):
        raise ValueError(f"kafka takes no topic named {name!r}: letters, digits, . _ - only")
    return name


def inbox_topic(cluster: str, node: str) -> str:
    """Where the node of that name reads."""
    return topic_name(cluster, "inbox", node)


async def create_topics(settings: KafkaSettings, *topics: Topic) -> None:
    """Make those that are not there.

    Raises:
        KafkaError: The broker could not be reached, or refused.
    """
    admin = new_admin(settings)
    try:
        await admin.start()
        if admin._client.cluster.controller is None:  # noqa: SLF001 - an AttributeError below
            raise KafkaError("the brokers know no controller yet")
        answer = await admin.create_topics(
            [_new(topic, settings.replication_factor) for topic in topics]
        )
    finally:
        with suppress(KafkaError, OSError):
            await admin.close()
    for name, code, *text in answer.topic_errors:
        error = for_code(code)
        if code != 0 and error is not TopicAlreadyExistsError:
            raise error(f"topic {name}: {text[0] if text and text[0] else error.__name__}")


def _new(topic: Topic, replication_factor: int) -> NewTopic:
    configs = {"retention.ms": str(round(topic.retention_s * 1000))}
    if replication_factor == 0:  # the broker's default is -1, which NewTopic takes only like this
        return NewTopic(topic.name, topic.partitions, -1, {}, configs)
    return NewTopic(topic.name, topic.partitions, replication_factor, topic_configs=configs)
