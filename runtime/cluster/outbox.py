"""What a node shows of the outbox: how far behind it is, and that this is trouble past a minute."""

from collections.abc import Callable
from typing import Final

from actors.outbox import OutboxActor, OutboxStatus
from protocols.ports.outbox import OutboxStore, Publisher

TROUBLE_S: Final = 60.0
"""Who listens to events is told of them later than this: shown by /health."""


class Outbox:
    """One life's outbox; its figures outlive restarts of its actor.

    Args:
        publisher: The way out.
        ttl_s: How long the claim of a node that is gone keeps others out.
        tell: Told why it is in trouble, or None where it is not.
    """

    def __init__(
        self, publisher: Publisher, *, ttl_s: float, tell: Callable[[str | None], None]
    ) -> None:
        self._publisher = publisher
        self._ttl_s = ttl_s
        self._tell = tell
        self.status = OutboxStatus()

    def actor(self, store: OutboxStore, incarnation: int) -> OutboxActor:
        """Make the actor of an incarnation."""
        return OutboxActor(
            store=store,
            publisher=self._publisher,
            incarnation=incarnation,
            ttl_s=self._ttl_s,
            on_status=self._take,
        )

    def _take(self, status: OutboxStatus) -> None:
        self.status = status
        if status.behind_s <= TROUBLE_S:
            self._tell(None)
            return
        why = f": {status.error}" if status.error is not None else ""
        self._tell(f"Kafka's topics are {status.behind_s:.0f} s behind what happened{why}")
