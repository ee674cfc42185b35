"""When the outbox is trouble: past a minute behind, and until it is not any more."""

from actors.outbox import OutboxStatus
from runtime.cluster.outbox import TROUBLE_S, Outbox


class Nowhere:
    """Publishes nothing: no actor is made here."""


def test_a_minute_behind_is_trouble_and_says_why():
    said = []
    outbox = Outbox(Nowhere(), ttl_s=5.0, tell=said.append)
    actor = outbox.actor(Nowhere(), 1)
    actor._on_status(OutboxStatus(behind_s=TROUBLE_S))
    actor._on_status(OutboxStatus(behind_s=TROUBLE_S + 1))
    actor._on_status(OutboxStatus(behind_s=3600.0, error="kafka: no answer in time"))
    actor._on_status(OutboxStatus())
    assert said == [
        None,
        "Kafka's topics are 61 s behind what happened",
        "Kafka's topics are 3600 s behind what happened: kafka: no answer in time",
        None,
    ]
    assert outbox.status == OutboxStatus()
