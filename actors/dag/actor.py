"""DagActor: one a node, it holds roots of runs, and takes account of what ended, whoever's it is.

All progress is in the store: this actor only asks for the next step of it, woken by hints and by a
poll each second. Any number of them work side by side; a root is held by one of them at a time,
only so that a run has an owner who ends it in the books.
"""

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final

import msgspec

from actors.dispatcher.messages import Cease
from actors.dispatcher.shares import budgets
from protocols.actor import Actor, Context, Timer
from protocols.dags import POOL
from protocols.errors import UnavailableError
from protocols.messages import (
    PROTOCOL_LEVEL,
    CancelRequested,
    JobsFinished,
    Ready,
    TasksEnded,
)
from protocols.ports.hints import Hints
from protocols.ports.store import GiveBack
from protocols.ports.store.dags import Advanced, DagStore

POLL_S: Final = 1.0
HELD_MAX: Final = 1_000
"""Roots that one node holds at once; and as many more of runs within these, at each depth."""
BATCH: Final = 1_000
"""Ends of tasks that one step takes account of."""
_BEGIN_BATCH: Final = 50
_WAKE_BATCH: Final = 500
_WAKE_S_MIN: Final = 0.01


class _Poll(msgspec.Struct, frozen=True):
    """Look, whether or not a hint came."""


class _Due(msgspec.Struct, frozen=True):
    """A wait or a deadline that was seen coming is due."""


class _Stepped(msgspec.Struct, frozen=True):
    what: str
    more: bool = False


class _Failed(msgspec.Struct, frozen=True):
    what: str
    error: Exception


class DagActor(Actor):
    """Moves runs of DAGs on."""

    def __init__(self, *, store: DagStore, hints: Hints, incarnation: int) -> None:
        self._store = store
        self._hints = hints
        self._incarnation = incarnation
        self._held: dict[int, int] = {}
        """Roots in hand, and the fencing token of each."""
        self._depths: dict[int, int] = {}
        """Of those that were claimed for the sake of one in hand, one more than its depth."""
        self._over: set[int] = set()
        """Of these, those whose run is final."""
        self._cancels: set[int] = set()
        self._ceased = False
        self._stopping = False
        self._adopted = False
        self._turn = 0
        """Whose turn it is among lanes, where there is room for less than one of each."""
        self._wanted: dict[str, None] = {}
        """In the order they were asked for: a set of names has another in each process."""
        self._busy: set[str] = set()
        self._alarm: Timer | None = None
        self._steps: dict[str, Callable[[Context], Awaitable[_Stepped]]] = {
            "advance": self._advance,
            "claim": self._claim,
            "within": self._claim_within,
            "glance": self._glance,
            "wake": self._wake,
            "end": self._end,
            "look": self._look,
        }

    async def on_start(self, ctx: Context) -> None:
        """Be found by hints, and look."""
        ctx.register("dags")
        ctx.every(POLL_S, _Poll())
        self._want(ctx, "claim", "advance", "glance", "look")

    async def receive(self, message: Any, ctx: Context) -> None:
        """Hints, the poll, and how steps went."""
        match message:
            case TasksEnded():
                self._want(ctx, "advance")
            case Ready():
                self._want(ctx, "claim")
            case CancelRequested(id=root):
                if root in self._held:
                    self._cancels.add(root)
                    self._want(ctx, "look")
            case Cease():
                self._ceased = True
            case _Poll():
                self._want(ctx, "claim", "glance")
                if self._held or self._cancels:
                    self._want(ctx, "look", "end", "within")
            case _Due():
                self._alarm = None
                self._want(ctx, "glance")
            case _Stepped(what=what, more=more):
                self._busy.discard(what)
                if more:
                    self._wanted[what] = None
                elif what == "wake":
                    self._arm(ctx, ctx.clock.now())
                self._want(ctx)
            case _Failed(what=what, error=error):
                self._busy.discard(what)
                if not isinstance(error, UnavailableError):
                    raise error  # the poll tries again what was only out of reach
                if what in ("claim", "within"):
                    self._adopted = False  # its answer may be lost

    async def on_stop(self, ctx: Context) -> None:
        """Hand back what is held: another node goes on at once."""
        self._ceased = self._stopping = True
        await ctx.drain()
        if not self._held:
            return
        given = [GiveBack(root, token) for root, token in self._held.items()]
        try:
            await self._store.give_back(self._incarnation, given)
        except UnavailableError:
            return  # the books will find them lost
        self._hints.send(Ready(POOL))

    def _want(self, ctx: Context, *steps: str) -> None:
        """Have these steps taken, one of a kind at a time."""
        if self._stopping:
            return
        self._wanted.update(dict.fromkeys(steps))
        for what in [w for w in self._wanted if w not in self._busy]:
            del self._wanted[what]
            self._busy.add(what)
            ctx.pipe(partial(self._steps[what], ctx), on_error=partial(_Failed, what))

    async def _advance(self, ctx: Context) -> _Stepped:
        done = await self._store.advance(now=ctx.clock.now(), limit=BATCH)
        self._tell(done, ctx)
        return _Stepped("advance")

    async def _claim(self, ctx: Context) -> _Stepped:
        """Take up roots that are due, as many as may be held."""
        if not self._adopted:
            await self._adopt(ctx)
        room = self._room()
        if self._ceased or room <= 0:
            return _Stepped("claim")
        found = await self._store.lanes(POOL, now=ctx.clock.now(), level=PROTOCOL_LEVEL)
        if not found.due:
            return _Stepped("claim")
        self._turn += 1
        claimed = await self._store.claim(
            POOL,
            self._incarnation,
            budgets(found.due, min(room, _BEGIN_BATCH), turn=self._turn),
            now=ctx.clock.now(),
            level=PROTOCOL_LEVEL,
        )
        roots = [(row.id, row.fencing_token) for row in claimed]
        self._held.update(roots)
        for root, _ in roots:
            self._depths.pop(root, None)
        await self._begin(roots, ctx)
        if claimed and self._room() <= 0:
            self._want(ctx, "within")
        return _Stepped("claim", more=bool(claimed))

    def _room(self) -> int:
        """How many more of the outermost may be held."""
        return HELD_MAX - len(self._held) + len(self._depths)

    async def _claim_within(self, ctx: Context) -> _Stepped:
        """Take up runs within those in hand, which else would wait for room until they end.

        The deepest first, which others wait for; of these each has the same chance.
        """
        if self._ceased or not self._adopted or self._room() > 0:
            return _Stepped("within")
        counts = Counter(self._depths.get(root, 0) for root in self._held)
        parents = [r for r in self._held if counts[self._depths.get(r, 0) + 1] < HELD_MAX]
        random.shuffle(parents)
        claimed = await self._store.claim_within(
            self._incarnation,
            sorted(parents, key=lambda root: self._depths.get(root, 0), reverse=True),
            limit=_BEGIN_BATCH,
            now=ctx.clock.now(),
            level=PROTOCOL_LEVEL,
        )
        for row in claimed:
            self._held[row.id] = row.fencing_token
            self._depths[row.id] = self._depths.get(row.within, 0) + 1
        await self._begin([(row.id, row.fencing_token) for row in claimed], ctx)
        return _Stepped("within", more=bool(claimed))

    async def _adopt(self, ctx: Context) -> None:
        """Take up what a former instance held, whose runs may not have been made yet."""
        self._adopted = True  # until a step fails whose answer may be lost, this one or another
        roots = [tuple(key) for key in await self._store.running(self._incarnation, POOL)]
        self._held.update(roots)  # type: ignore[arg-type]
        for start in range(0, len(roots), _BEGIN_BATCH):
            await self._begin(roots[start : start + _BEGIN_BATCH], ctx)  # type: ignore[arg-type]

    async def _begin(self, roots: Sequence[tuple[int, int]], ctx: Context) -> None:
        if not roots:
            return
        done = await self._store.begin_runs(self._incarnation, roots, now=ctx.clock.now())
        self._tell(done, ctx)
        self._over.update(await self._store.runs_over([root for root, _ in roots]))
        if self._over:
            self._want(ctx, "end")

    async def _glance(self, ctx: Context) -> _Stepped:
        """Look whether there is anything to do, so that a quiet poll is one statement."""
        seen = await self._store.glance()
        if seen.ends:
            self._want(ctx, "advance")
        if seen.next_at is not None and seen.next_at <= ctx.clock.now():
            self._want(ctx, "wake")
        else:
            self._arm(ctx, seen.next_at)
        return _Stepped("glance")

    async def _wake(self, ctx: Context) -> _Stepped:
        woken = await self._store.wake(now=ctx.clock.now(), limit=_WAKE_BATCH)
        self._tell(woken, ctx)
        return _Stepped("wake", more=woken.more)

    async def _look(self, ctx: Context) -> _Stepped:
        """See which runs in hand others have brought to their end, or want cancelled."""
        if self._held:
            self._over.update(await self._store.runs_over(list(self._held)))
            asked = await self._store.cancel_requests(self._incarnation)
            self._cancels.update(root for root, _ in asked if root in self._held)
        if self._cancels:
            cancels = sorted(self._cancels)
            await self._store.cancel_runs(cancels, now=ctx.clock.now())
            self._cancels.difference_update(cancels)
            self._want(ctx, "advance")
        if self._over:
            self._want(ctx, "end")
        return _Stepped("look")

    async def _end(self, ctx: Context) -> _Stepped:
        """End the roots of runs that are final."""
        roots = [(root, self._held[root]) for root in self._over if root in self._held]
        self._over.clear()
        if not roots:
            return _Stepped("end")
        try:
            ended, followers = await self._store.finish_runs(
                self._incarnation, roots[:BATCH], now=ctx.clock.now()
            )
        finally:
            self._over.update(root for root, _ in roots[BATCH:])
        tokens = dict(roots)
        for root in ended:
            if self._held.get(root) == tokens[root]:  # not claimed anew since, for a retry
                del self._held[root]
                self._depths.pop(root, None)
        if followers:
            self._hints.send(JobsFinished(tuple(followers)))
        if ended:
            # A run within another one's is that one's task.
            self._want(ctx, "advance", "claim", "within")
        return _Stepped("end", more=bool(self._over))

    def _tell(self, done: Advanced, ctx: Context) -> None:
        for pool in done.pools:
            self._hints.send(Ready(pool))
        if POOL in done.pools:
            self._want(ctx, "within")
        for root, token in done.asked:
            self._hints.send(CancelRequested(root, token))
        if done.more:
            self._want(ctx, "advance")
        mine = [run for run in done.over if run in self._held]
        if mine:
            self._over.update(mine)
            self._want(ctx, "end")

    def _arm(self, ctx: Context, next_at: datetime | None) -> None:
        """Wake at the next instant, if that is before the next poll."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if next_at is not None:
            wait_s = (next_at - ctx.clock.now()).total_seconds()
            if wait_s < 2 * POLL_S:
                self._alarm = ctx.after(max(_WAKE_S_MIN, wait_s), _Due())
