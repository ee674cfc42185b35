"""What tells which records of Kafka trigger which jobs."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from protocols.ports.records import Subscription
from protocols.ports.store.triggering import TriggerStore


class Match(msgspec.Struct, frozen=True):
    """The record at `place` of those asked about triggers this job."""

    place: int
    tenant: str
    job_key: int


class RecordStore(TriggerStore, Protocol):
    """What tells which records trigger which jobs, and makes their executions.

    `cluster` is the cluster's name, the first part of the groups that jobs do not name.
    """

    async def subscriptions(self, cluster: str) -> frozenset[Subscription]:
        """All that jobs of any tenant want read now."""
        ...

    async def followed_since(self, cluster: str, subscription: Subscription) -> datetime | None:
        """Since when a job that wants it has named this topic; None where none does."""
        ...

    async def match_records(
        self,
        cluster: str,
        subscription: Subscription,
        keys: Sequence[str | None],
        values: Sequence[str | None],
    ) -> Sequence[Match]:
        """The jobs that these records trigger, each job once a record, in the records' order.

        Args:
            cluster: as above.
            subscription: where the records come from.
            keys: theirs, None for one that is no text.
            values: theirs as JSON, None for one that is not: no filter holds for it.

        Raises:
            InvalidError: the store cannot keep one of the values as JSON.
        """
        ...
