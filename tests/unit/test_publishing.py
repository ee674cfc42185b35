"""The publisher: whatever Kafka's client raises, to the outbox it is a Kafka that is away."""

import pytest

from protocols.ports.outbox import PublishError
from runtime.kafka import publisher as publishing
from runtime.kafka.client import KafkaSettings
from runtime.kafka.publisher import KafkaPublisher


@pytest.mark.asyncio
async def test_an_error_that_kafkas_client_should_not_raise_is_a_kafka_that_is_away(monkeypatch):
    """It has such errors while brokers come and go; the actor's few restarts are for our bugs."""

    async def no_controller(*_args: object) -> None:
        raise AttributeError("'NoneType' object has no attribute 'host'")

    monkeypatch.setattr(publishing, "create_topics", no_controller)
    settings = KafkaSettings(bootstrap_servers=("127.0.0.1:1",))
    publisher = KafkaPublisher(settings, cluster="c", retention_s=60.0)
    with pytest.raises(PublishError, match="no attribute"):
        await publisher.begin()
