"""OutboxActor: publishes what happened, in order, at least once; one node of a cluster at a time.

Who publishes holds a claim in the books. Its token proves each read and each advance, and a
publisher that begins shuts earlier ones out of where it publishes. So whatever a stale one does,
it publishes nothing after its successor has begun: it began before its claim was taken over, or it
finds its token stale when it reads. What was published and not noted is published again, in the
same order.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from protocols.actor import Actor, Context
from protocols.errors import UnavailableError
from protocols.ports.outbox import Backlog, OutboxStore, Publisher, PublishError

POLL_S: Final = 0.5
LOOK_S: Final = 2.0
"""How often each node looks how things stand, whoever publishes."""
REST_S: Final = 5.0
"""Who could not publish leaves it to others for so long."""
BATCH_EVENTS: Final = 500
BATCH_CHANGES: Final = 1_000


class OutboxStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How publishing goes, as this node sees it; counts are this actor's own."""

    publishing: bool = False
    """Whether it is this node that publishes."""
    events_behind: int = 0
    behind_s: float = 0.0
    """Age of the oldest event that is not published."""
    dropped: int = 0
    published: int = 0
    error: str | None = None
    """Why this node could not publish when it last tried."""


class _Poll(msgspec.Struct, frozen=True):
    """See whether there is anything to do."""


class _Went(msgspec.Struct, frozen=True):
    more: bool


class _Failed(msgspec.Struct, frozen=True):
    error: Exception


class OutboxActor(Actor):
    """Publishes, or waits for its turn to.

    Args:
        ttl_s: How long the claim of a node that is gone keeps others out.
        on_status: Told how it goes, at every look.
    """

    def __init__(
        self,
        *,
        store: OutboxStore,
        publisher: Publisher,
        incarnation: int,
        ttl_s: float,
        on_status: Callable[[OutboxStatus], None],
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._incarnation = incarnation
        self._ttl_s = ttl_s
        self._on_status = on_status
        self._token = 0
        self._begun = False
        self._busy = False
        self._look_at = self._rest_until = 0.0
        self._published = 0
        self._error: str | None = None

    async def on_start(self, ctx: Context) -> None:
        """Begin to look."""
        ctx.every(POLL_S, _Poll())
        self._begin(ctx)

    async def receive(self, message: Any, ctx: Context) -> None:
        """The poll, and how each round went."""
        match message:
            case _Poll():
                self._begin(ctx)
            case _Went(more=more):
                self._busy = False
                if more:
                    self._begin(ctx)
            case _Failed(error=error):
                self._busy = False
                if not isinstance(error, UnavailableError):
                    raise error

    async def on_stop(self, ctx: Context) -> None:
        """Let another go on at once; what is in hand is published again there."""
        del ctx
        await self._end()

    def _begin(self, ctx: Context) -> None:
        if not self._busy:
            self._busy = True
            ctx.pipe(lambda: self._round(ctx), on_error=_Failed)

    async def _round(self, ctx: Context) -> _Went:
        """One look at most, one batch at most: others of this node have their turn in between."""
        now = ctx.clock.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            backlog = await self._store.look()
            self._tell(backlog, ctx)
            if not self._begun and (not backlog.free or now < self._rest_until):
                return _Went(more=False)
            token = await self._store.take(self._incarnation, self._token, ttl_s=self._ttl_s)
            if token != self._token:
                await self._publisher.close()
                self._begun, self._token = False, token or 0
        if not self._token:
            return _Went(more=False)
        try:
            return await self._publish()
        except PublishError as error:
            self._error = str(error)
            self._rest_until = ctx.clock.monotonic() + REST_S
            await self._end()
            return _Went(more=False)

    async def _publish(self) -> _Went:
        if not self._begun:
            await self._publisher.begin()
            self._begun = True
        batch = await self._store.read(self._token, events=BATCH_EVENTS, changes=BATCH_CHANGES)
        if batch is None:
            await self._end()
            return _Went(more=False)
        self._error = None
        if not batch.events:
            return _Went(more=False)
        if batch.changes:
            await self._publisher.publish(batch.changes)
            self._published += len(batch.changes)
        return _Went(more=await self._store.advance(self._token, batch, ttl_s=self._ttl_s))

    async def _end(self) -> None:
        token, self._token, self._begun = self._token, 0, False
        await self._publisher.close()
        if token:
            try:
                await self._store.release(token)
            except UnavailableError:
                return  # it ends by itself

    def _tell(self, backlog: Backlog, ctx: Context) -> None:
        oldest = backlog.oldest_at
        behind_s = 0.0 if oldest is None else (ctx.clock.now() - oldest).total_seconds()
        self._on_status(
            OutboxStatus(
                publishing=self._begun,
                events_behind=backlog.events,
                behind_s=max(0.0, behind_s),
                dropped=backlog.dropped,
                published=self._published,
                error=self._error,
            )
        )
