"""TimerActor: leader of a group of shards, it turns instants that fall due into executions.

It holds the near future in a wheel, fires what is due in one statement a batch, and reads the
schedule rows again each second, which finds whatever no hint told of. It fires only while its
leadership is trusted, and every statement carries its term's epoch.
"""

from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from actors.timer.misfire import PLAN_ROWS_MAX
from actors.timer.near import Held, Key, NearFuture
from protocols.actor import Actor, Context, Timer
from protocols.errors import FencedError, UnavailableError
from protocols.jobs import JobSpec
from protocols.messages import JobsFinished, Ready, SchedulesChanged
from protocols.ports.coordinator import Leadership
from protocols.ports.hints import Hints
from protocols.ports.store import DueSchedule, Fired, Firing, Term, TimerStore

POLL_S: Final = 1.0
WINDOW_S: Final = 120.0
"""How far ahead the wheel is filled, once every half of it."""
_POLL_ROWS: Final = 2000
_WINDOW_ROWS: Final = 20_000
_RETRY_S: Final = 0.2
_REARMED_AT_ONCE: Final = 50
_LIVE_ROWS: Final = 200
"""Of what is on time at most so many a statement, so that the first of a thousand jobs of one
second may run while the rest is being written; no gain of it was measured."""


class _Poll(msgspec.Struct, frozen=True):
    """Read what falls due before the next poll."""


class _Fill(msgspec.Struct, frozen=True):
    """Read the whole window."""


class _Tick(msgspec.Struct, frozen=True):
    """The wheel's next instant has come, as far as the loop's timer can tell."""


class _Read(msgspec.Struct, frozen=True):
    rows: Sequence[DueSchedule]
    keys: Sequence[Key]
    specs: Sequence[JobSpec | None]
    full: bool


class _Wrote(msgspec.Struct, frozen=True):
    batch: Sequence[tuple[Held, Firing, bool]]
    fired: Fired


class _Rearm(msgspec.Struct, frozen=True):
    """There is something fired that is not back in the wheel."""


class _Failed(msgspec.Struct, frozen=True):
    what: str
    error: Exception


class TimerActor(Actor):
    """Fires the schedules of one term."""

    def __init__(
        self,
        *,
        store: TimerStore,
        hints: Hints,
        term: Term,
        leadership: Leadership,
        on_broken: Callable[[int, Exception], None],
        on_tick: Callable[[], None],
    ) -> None:
        self._store = store
        self._hints = hints
        self._term = term
        self._leadership = leadership
        self._on_broken = on_broken
        self._on_tick = on_tick
        self._live: deque[Held] = deque()
        self._late: deque[Held] = deque()
        self._fired: deque[DueSchedule] = deque()
        self._in_hand: set[int] = set()
        self._reading = False
        self._wanted: tuple[float, int] | None = None
        self._writing = False
        self._alarm: Timer | None = None
        self._alarm_ns = 0

    async def on_start(self, ctx: Context) -> None:
        """Fill the wheel; a new leader evaluates all since the last fire."""
        self._near = NearFuture(ctx.clock.now_ns(), self._on_broken)
        ctx.register(f"timer:{self._term.number}")
        ctx.every(POLL_S, _Poll())
        ctx.every(WINDOW_S / 2, _Fill())
        self._read(WINDOW_S, _WINDOW_ROWS, ctx)

    async def receive(self, message: Any, ctx: Context) -> None:
        """Ticks, polls and hints, and the outcomes of the store's statements."""
        match message:
            case _Tick():
                self._alarm = None
            case _Poll() | SchedulesChanged():
                self._read(POLL_S, _POLL_ROWS, ctx)
            case _Fill():
                self._read(WINDOW_S, _WINDOW_ROWS, ctx)
            case _Read():
                self._take_in(message, ctx)
            case _Wrote():
                self._wrote(message, ctx)
            case _Rearm():
                self._rearm(ctx)
            case _Failed(what=what, error=error):
                self._failed(what, error, ctx)
        if not self._leadership.trusted():
            ctx.stop()
            return
        self._fire(ctx)
        self._arm(ctx)

    def _read(self, ahead_s: float, rows: int, ctx: Context) -> None:
        if self._reading:
            if self._wanted is None or self._wanted[0] < ahead_s:
                self._wanted = (ahead_s, rows)
            return
        self._reading = True
        until = ctx.clock.now() + timedelta(seconds=ahead_s)
        ctx.pipe(lambda: self._rows(until, rows), on_error=lambda error: _Failed("read", error))

    async def _rows(self, until: datetime, limit: int) -> _Read:
        rows = await self._store.due(self._term, until=until, limit=limit)
        keys = self._near.lacking(rows)
        specs = await self._store.definitions(keys) if keys else ()
        return _Read(rows, keys, specs, full=len(rows) >= limit)

    def _take_in(self, read: _Read, ctx: Context) -> None:
        self._reading = False
        anchors = {(row.job_key, row.version): row.anchor for row in read.rows}
        for key, spec in zip(read.keys, read.specs, strict=True):
            if spec is None:
                continue
            try:
                self._near.definitions.add(key, spec, anchors[key])
            except (ValueError, LookupError) as error:
                self._on_broken(key[0], error)
        for row in read.rows:
            if row.job_key not in self._in_hand:
                self._near.hold(row)
        self._on_tick()
        if self._wanted is not None:
            wanted, self._wanted = self._wanted, None
            self._read(*wanted, ctx)
        elif read.full and self._overdue(read.rows[-1].next_fire_at, ctx.clock.now()):
            self._read(POLL_S, _POLL_ROWS, ctx)

    @staticmethod
    def _overdue(at: datetime | None, now: datetime) -> bool:
        return at is not None and at <= now

    def _fire(self, ctx: Context) -> None:
        """Write what is due, the live before the late, if no statement is under way."""
        now_ns = ctx.clock.now_ns()
        for held in self._near.due(now_ns):
            self._in_hand.add(held.due.job_key)
            (self._live if held.on_time is not None else self._late).append(held)
        if self._writing or not (self._live or self._late):
            return
        batch: list[tuple[Held, Firing, bool]] = []
        now, budget = ctx.clock.now(), _LIVE_ROWS if self._live else PLAN_ROWS_MAX
        while budget > 0 and (queue := self._live or self._late):
            held = queue.popleft()
            try:
                firing, more = held.plan(now, budget)
            except (ValueError, OverflowError) as error:
                self._on_broken(held.due.job_key, error)
                self._in_hand.discard(held.due.job_key)
                continue
            batch.append((held, firing, more))
            budget -= max(1, len(firing.instants))
        if batch:
            self._writing = True
            ctx.pipe(lambda: self._write(batch, now), on_error=lambda error: _Failed("fire", error))

    async def _write(self, batch: Sequence[tuple[Held, Firing, bool]], now: datetime) -> _Wrote:
        firings = [firing for _, firing, _ in batch]
        return _Wrote(batch, await self._store.fire(self._term, firings, now=now))

    def _wrote(self, wrote: _Wrote, ctx: Context) -> None:
        self._writing = False
        for pool in wrote.fired.pools:
            self._hints.send(Ready(pool))
        if wrote.fired.followers:
            self._hints.send(JobsFinished(tuple(wrote.fired.followers)))
        moved = frozenset(wrote.fired.moved)
        for held, firing, more in wrote.batch:
            row = _after(held.due, firing)
            if firing.job_key not in moved:
                self._near.refused(firing.job_key)
                self._in_hand.discard(firing.job_key)
                continue
            self._near.moved(firing.job_key)
            if row is None:
                self._in_hand.discard(firing.job_key)
            elif more:
                self._late.append(Held(row, held.definition))
            else:
                self._fired.append(row)
        if self._fired:
            ctx.after(0.0, _Rearm())
        self._on_tick()
        if len(moved) < len(wrote.batch):
            self._read(POLL_S, _POLL_ROWS, ctx)

    def _rearm(self, ctx: Context) -> None:
        """Put what was fired back into the wheel, a few at a time: starting work comes first."""
        horizon = ctx.clock.now() + timedelta(seconds=WINDOW_S)
        for _ in range(min(_REARMED_AT_ONCE, len(self._fired))):
            row = self._fired.popleft()
            self._in_hand.discard(row.job_key)
            if row.next_fire_at is None or row.next_fire_at <= horizon:
                self._near.hold(row)
        if self._fired:
            ctx.after(0.0, _Rearm())

    def _failed(self, what: str, error: Exception, ctx: Context) -> None:
        """Wait out an absent database; end a term that is over; whatever was in hand is re-read."""
        if what == "read":
            self._reading = False
        else:
            self._writing = False
            self._live.clear()
            self._late.clear()
            self._in_hand.clear()
        if isinstance(error, FencedError):
            ctx.stop()
        elif not isinstance(error, UnavailableError):
            raise error
        else:
            ctx.after(_RETRY_S, SchedulesChanged())

    def _arm(self, ctx: Context) -> None:
        """Wake at the wheel's next instant; a timer that fires early looks, and waits again."""
        expiry = self._near.next_ns()
        if expiry is None or (self._alarm is not None and self._alarm_ns == expiry):
            return
        if self._alarm is not None:
            self._alarm.cancel()
        wait_s = max(0, expiry - ctx.clock.now_ns()) / 1e9
        self._alarm = ctx.after(wait_s, _Tick())
        self._alarm_ns = expiry


def _after(due: DueSchedule, firing: Firing) -> DueSchedule | None:
    """The schedule's row once this firing is written; None where nothing of it is to come."""
    if firing.next_fire_at is None:
        return None
    return DueSchedule(
        job_key=firing.job_key,
        version=firing.version,
        cursor=firing.cursor,
        next_fire_at=firing.next_fire_at,
        anchor=due.anchor,
        catchup_from=firing.catchup_from,
        catchup_until=firing.catchup_until,
    )
