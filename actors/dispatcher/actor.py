"""DispatcherActor: one per pool and node, it claims what its workers have asked for, and no more.

Woken by hints and demand, and by a poll each second under both. One claim is under way at a
time; what arrives meanwhile is served by the next.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from actors.dispatcher.messages import (
    Assign,
    Cease,
    Demand,
    DemandWanted,
    Reconcile,
    Unimportable,
)
from actors.dispatcher.shares import budgets
from protocols.actor import Actor, Context, Delivered, Ref, Timer
from protocols.errors import UnavailableError
from protocols.messages import PROTOCOL_LEVEL, FreeSlots, Ready
from protocols.ports.hints import Hints
from protocols.ports.store import Budget, Claimed, DispatchStore, GiveBack, Lane

POLL_S: Final = 1.0
BATCH: Final = 500
"""At most this many a claim."""
_LANES_REMEMBERED: Final = 64


class _Poll(msgspec.Struct, frozen=True):
    """Look, whether or not a hint came."""


class _Due(msgspec.Struct, frozen=True):
    """A row that was seen coming falls due."""


class _Took(msgspec.Struct, frozen=True):
    """A round of claims ended; `more` where lanes were left that may hold due work."""

    next_run_at: datetime | None
    more: bool


class _Failed(msgspec.Struct, frozen=True):
    error: Exception


class DispatcherActor(Actor):
    """Claims ready executions of one pool and assigns them to its worker."""

    def __init__(
        self,
        *,
        store: DispatchStore,
        pool: str,
        incarnation: int,
        worker: str,
        hints: Hints,
        on_look: Callable[[], None],
    ) -> None:
        self._store = store
        self._hints = hints
        self._pool = pool
        self._incarnation = incarnation
        self._worker_name = worker
        self._on_look = on_look
        self._session = 0
        self._sent = 0
        self._sent_at_poll = 0
        self._arrived = 0
        self._free = 0
        self._said_free = False
        self._stopping = False
        self._lanes: dict[Lane, None] = {}
        self._refused: set[tuple[int, int]] = set()
        self._looked = False
        self._busy = False
        self._again = False
        self._turn = 0
        self._alarm: Timer | None = None

    async def on_start(self, ctx: Context) -> None:
        """Ask the worker what it can take, and look."""
        self._session = ctx.clock.monotonic_ns()  # greater than that of any instance before
        ctx.register(f"dispatcher:{self._pool}")
        ctx.every(POLL_S, _Poll())
        self._tell_worker(ctx, DemandWanted())

    async def receive(self, message: Any, ctx: Context) -> None:
        """Serve demand, hints and the poll."""
        match message:
            case Demand(free=free, session=session, received=received):
                if session == self._session:
                    self._arrived = max(self._arrived, received)
                self._free = max(0, free - (self._sent - self._arrived))
                self._say_free()
            case Ready():
                self._again = True
            case Cease():
                self._stopping = True
                self._say_free()
            case _Poll():
                if not self._busy:
                    self._on_look()
                self._looked = False
                self._find_lost(ctx)
                self._tell_worker(ctx, DemandWanted())
            case _Due():
                self._alarm = None
                self._looked = False
            case _Took(next_run_at=next_run_at, more=more):
                self._busy = False
                self._on_look()
                self._say_free()
                self._again = self._again or more
                if more and self._free <= 0:
                    self._hints.send(Ready(self._pool))  # what is left may start elsewhere
                self._arm(ctx, next_run_at)
            case _Failed(error=error):
                self._busy = False
                if not isinstance(error, UnavailableError):
                    raise error
                self._tell_worker(ctx, Reconcile())
            case Unimportable(job_key=job_key, version=version):
                self._refused.add((job_key, version))
        self._step(ctx)

    async def on_stop(self, ctx: Context) -> None:
        """See a claim that is under way to its end, so that its rows are handed to the worker."""
        self._stopping = True
        await ctx.drain()

    def _say_free(self) -> None:
        """Tell whoever has more work than slots when this pool has free ones, and when none."""
        free = 0 if self._stopping else self._free
        if (free > 0) != self._said_free:
            self._said_free = free > 0
            self._hints.send(FreeSlots(self._pool, self._incarnation, free))

    def _find_lost(self, ctx: Context) -> None:
        """Work sent before the last poll that has not arrived by now never will."""
        if self._arrived < self._sent_at_poll:
            self._arrived = self._sent_at_poll
            self._tell_worker(ctx, Reconcile())
        self._sent_at_poll = self._sent

    def _step(self, ctx: Context) -> None:
        if self._busy or self._stopping or self._free <= 0:
            return
        if self._looked and not self._again:
            return
        self._busy, self._again, self._looked = True, False, True
        ctx.pipe(lambda: self._round(ctx), on_error=_Failed)

    async def _round(self, ctx: Context) -> _Took:
        """Claim from the lanes that are known; where these run dry, look which others are due."""
        await self._drain(ctx, list(self._lanes))
        if self._free <= 0 or self._stopping:
            return _Took(None, more=True)
        found = await self._store.lanes(self._pool, now=ctx.clock.now(), level=PROTOCOL_LEVEL)
        took = await self._drain(ctx, found.due)
        return _Took(found.next_run_at, more=took > 0)

    async def _drain(self, ctx: Context, lanes: Sequence[Lane]) -> int:
        """Claim lane by lane until none yields or no slot is free; how many were taken."""
        left, total = list(lanes), 0
        while left and self._free > 0 and not self._stopping:
            self._turn += 1
            asked = budgets(left, min(self._free, BATCH), turn=self._turn)
            claimed = await self._store.claim(
                self._pool,
                self._incarnation,
                asked,
                now=ctx.clock.now(),
                level=PROTOCOL_LEVEL,
                refused=tuple(self._refused),
            )
            await self._assign(ctx, claimed)
            total += len(claimed)
            left = self._still_due(left, asked, claimed)
        return total

    def _still_due(
        self, lanes: list[Lane], asked: Sequence[Budget], claimed: Sequence[Claimed]
    ) -> list[Lane]:
        """The lanes not yet known to be dry; remembers those that gave."""
        gave: dict[tuple[str, int], int] = {}
        for row in claimed:
            key = (row.tenant, row.priority)
            gave[key] = gave.get(key, 0) + 1
        dry = set()
        for budget in asked:
            lane = budget.lane
            given = gave.get((lane.tenant, lane.priority), 0)
            if given and lane.limit_key is None:
                self._lanes.pop(lane, None)
                self._lanes[lane] = None
            if given < budget.count or lane.limit_key is not None:
                dry.add(lane)
        while len(self._lanes) > _LANES_REMEMBERED:
            del self._lanes[next(iter(self._lanes))]
        return [lane for lane in lanes if lane not in dry]

    async def _assign(self, ctx: Context, claimed: Sequence[Claimed]) -> None:
        if not claimed:
            return
        self._sent += len(claimed)
        self._free -= len(claimed)
        if not self._tell_worker(ctx, Assign(claimed, self._session, self._sent)):
            given = [GiveBack(row.id, row.fencing_token) for row in claimed]
            await self._store.give_back(self._incarnation, given)

    def _tell_worker(self, ctx: Context, message: Any) -> bool:
        worker: Ref | None = ctx.lookup(self._worker_name)
        return worker is not None and isinstance(worker.tell(message), Delivered)

    def _arm(self, ctx: Context, next_run_at: datetime | None) -> None:
        """Wake at the next row's instant, if that is before the next poll."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if next_run_at is None:
            return
        wait = next_run_at - ctx.clock.now()
        if wait < timedelta(seconds=POLL_S * 2):
            self._alarm = ctx.after(max(0.0, wait.total_seconds()), _Due())
