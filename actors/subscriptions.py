"""SubscriptionsActor: has read what jobs want read of Kafka, and nothing else.

What is wanted is the database's to say, asked at every change and at every poll; while the
database is away, what was wanted last goes on being read, up to where its records cannot be kept.
"""

from typing import Any, Final

import msgspec

from actors.dispatcher.messages import Cease
from protocols.actor import Actor, Context
from protocols.errors import UnavailableError
from protocols.messages import SchedulesChanged
from protocols.ports.records import Subscriber, Subscription
from protocols.ports.store import RecordStore

POLL_S: Final = 1.0


class _Poll(msgspec.Struct, frozen=True):
    """Ask what is wanted."""


class _Wanted(msgspec.Struct, frozen=True):
    subscriptions: frozenset[Subscription]


class _Failed(msgspec.Struct, frozen=True):
    error: Exception


class SubscriptionsActor(Actor):
    """Tells the subscriber what to read; one a node, and Kafka shares the work out among them.

    Args:
        store: knows what jobs want.
        subscriber: reads.
        cluster: the cluster's name.
    """

    def __init__(self, *, store: RecordStore, subscriber: Subscriber, cluster: str) -> None:
        self._store = store
        self._subscriber = subscriber
        self._cluster = cluster
        self._asking = False
        self._again = False
        self._ceased = False

    async def on_start(self, ctx: Context) -> None:
        """Be found by hints, and ask."""
        ctx.register("subscriptions")
        ctx.every(POLL_S, _Poll())
        self._ask(ctx)

    async def receive(self, message: Any, ctx: Context) -> None:
        """Changes, the poll, and what was answered."""
        match message:
            case SchedulesChanged() | _Poll():
                self._ask(ctx)
            case Cease():
                self._ceased = True
                self._subscriber.want(frozenset())
            case _Wanted(subscriptions=wanted):
                if not self._ceased:
                    self._subscriber.want(wanted)
                self._done(ctx)
            case _Failed(error=error):
                if not isinstance(error, UnavailableError):
                    raise error
                self._asking = self._again = False  # the next poll tries again

    def _ask(self, ctx: Context) -> None:
        """Ask, or once more after the answer that is under way, which may be older than this."""
        if self._asking or self._ceased:
            self._again = True
            return
        self._asking = True
        ctx.pipe(self._look, on_error=_Failed)

    async def _look(self) -> _Wanted:
        return _Wanted(await self._store.subscriptions(self._cluster))

    def _done(self, ctx: Context) -> None:
        self._asking = False
        if self._again:
            self._again = False
            self._ask(ctx)
