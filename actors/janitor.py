"""JanitorActor: declares dead what has stopped beating, and ends what has waited too long.

It judges only after it has itself reached the database for a whole TTL without a gap, so that an
outage which silenced every node kills none of them, nor does a sleep that all of them shared.
"""

from typing import Any, Final

import msgspec

from protocols.actor import Actor, Context
from protocols.errors import UnavailableError
from protocols.messages import JobsFinished, Ready
from protocols.ports.hints import Hints
from protocols.ports.store import JanitorStore

_POLL_S_MAX: Final = 1.0
_POLLS_PER_TTL: Final = 5
_GAP_OF_TTL: Final = 0.5
"""Of a TTL: a longer silence of the janitor's own, and it begins to count anew."""
TIDY_EVERY_S: Final = 60.0
_EXPIRE_BATCH: Final = 1000


class _Poll(msgspec.Struct, frozen=True):
    """Look for what is overdue."""


class _Tidy(msgspec.Struct, frozen=True):
    """Make the coming days, drop the old, fold what is long."""


class _Did(msgspec.Struct, frozen=True):
    what: str
    changed: bool = False
    more: bool = False


class _Failed(msgspec.Struct, frozen=True):
    what: str
    error: Exception


class JanitorActor(Actor):
    """Keeps the books in order for all nodes; any number of janitors may work side by side."""

    def __init__(
        self,
        *,
        store: JanitorStore,
        hints: Hints,
        pools: tuple[str, ...],
        ttl_s: float,
        keep_s: float,
    ) -> None:
        self._store = store
        self._hints = hints
        self._pools = pools
        self._ttl_s = ttl_s
        self._keep_s = keep_s
        self._reached_since: float | None = None
        self._reached_at = 0.0
        self._busy: set[str] = set()

    async def on_start(self, ctx: Context) -> None:
        """Begin to look."""
        ctx.every(min(_POLL_S_MAX, self._ttl_s / _POLLS_PER_TTL), _Poll())
        ctx.every(TIDY_EVERY_S, _Tidy())
        self._begin("tidy", ctx)

    async def receive(self, message: Any, ctx: Context) -> None:
        """The polls, and how they went."""
        match message:
            case _Poll():
                self._begin("judge", ctx)
            case _Tidy():
                self._begin("tidy", ctx)
            case _Did(what=what, changed=changed, more=more):
                self._busy.discard(what)
                self._reached(ctx.clock.monotonic())
                if changed:
                    self._tell()
                if more:
                    self._begin(what, ctx)
            case _Failed(what=what, error=error):
                self._busy.discard(what)
                if not isinstance(error, UnavailableError):
                    raise error
                self._reached_since = None

    def _reached(self, now: float) -> None:
        if self._reached_since is None or self._slept(now):
            self._reached_since = now
        self._reached_at = now

    def _slept(self, now: float) -> bool:
        """Whether this node stood still, as it does while its machine sleeps."""
        return now - self._reached_at > self._ttl_s * _GAP_OF_TTL

    def _begin(self, what: str, ctx: Context) -> None:
        if what in self._busy:
            return
        self._busy.add(what)
        work = self._judge if what == "judge" else self._tidy
        ctx.pipe(lambda: work(ctx), on_error=lambda error: _Failed(what, error))

    async def _judge(self, ctx: Context) -> _Did:
        now, since, moment = ctx.clock.now(), self._reached_since, ctx.clock.monotonic()
        dead: tuple[int, ...] = ()
        if since is not None and moment - since >= self._ttl_s and not self._slept(moment):
            dead = tuple(await self._store.declare_dead(ttl_s=self._ttl_s, now=now))
        expired = await self._store.expire(now=now, limit=_EXPIRE_BATCH)
        more = expired >= _EXPIRE_BATCH
        return _Did("judge", changed=bool(dead or expired), more=bool(dead) or more)

    async def _tidy(self, ctx: Context) -> _Did:
        await self._store.tidy(now=ctx.clock.now(), keep_s=self._keep_s)
        return _Did("tidy")

    def _tell(self) -> None:
        """What was lost is ready again, and turns came free."""
        self._hints.send(JobsFinished(()))
        for pool in self._pools:
            self._hints.send(Ready(pool))
