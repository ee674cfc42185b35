"""WaitingActor: lets go what waited for a turn, a parent, a finish or an event.

Level-triggered: each look asks the books what may go now, so a hint that was lost costs the time
to the next poll and nothing else. A poll looks at a bounded number of jobs, and goes on from there
at the next one; a hint that may mean any job has all looked at, one look after another.
"""

from typing import Any, Final

import msgspec

from protocols.actor import Actor, Context
from protocols.errors import UnavailableError
from protocols.messages import EventsAppended, JobsFinished, Ready, SchedulesChanged
from protocols.ports.hints import Hints
from protocols.ports.store import Settled, WaitingStore

POLL_S: Final = 1.0
_TRIGGER_BATCH: Final = 500
_JOBS_MOST: Final = 1000
"""More jobs than this in hand, and the next look is at all of them."""


class _Poll(msgspec.Struct, frozen=True):
    """Look at everything."""


class _SettledJobs(msgspec.Struct, frozen=True):
    """`some`: of jobs that were named; `round_`: of the look at all."""

    some: Settled
    round_: Settled | None


class _Triggered(msgspec.Struct, frozen=True):
    settled: Settled


class _Failed(msgspec.Struct, frozen=True):
    what: str
    error: Exception


class WaitingActor(Actor):
    """Settles waiting work and runs `on:` triggers; one a node, any number may work at once."""

    def __init__(self, *, store: WaitingStore, hints: Hints) -> None:
        self._store = store
        self._hints = hints
        self._jobs: set[int] = set()
        self._all = False
        """Whether to look at some more of all."""
        self._anew = True
        """Whether to look at all, from the beginning."""
        self._place = 0
        """How far the look at all has come."""
        self._hurried = False
        """Whether it goes on at once, rather than at the next poll."""
        self._events = True
        self._settling = False
        self._triggering = False

    async def on_start(self, ctx: Context) -> None:
        """Be found by hints, and look."""
        ctx.register("waiting")
        ctx.every(POLL_S, _Poll())
        self._step(ctx)

    async def receive(self, message: Any, ctx: Context) -> None:
        """Hints, the poll, and how the looks went."""
        match message:
            case JobsFinished(job_keys=job_keys):
                self._jobs.update(job_keys)
                self._anew = self._anew or not job_keys or len(self._jobs) > _JOBS_MOST
                self._events = True
            case EventsAppended():
                self._events = True
            case _Poll():
                self._all = self._events = True
            case _SettledJobs(some=some, round_=round_):
                self._settling = False
                self._anew = self._anew or some.more
                self._tell(some)
                if round_ is not None:
                    self._went_on(round_)
            case _Triggered(settled=settled):
                self._triggering = False
                self._events = self._events or settled.more
                self._tell(settled)
            case _Failed(what=what, error=error):
                if not isinstance(error, UnavailableError):
                    raise error
                if what == "settle":
                    self._settling, self._anew = False, True
                else:
                    self._triggering = False
                return  # the next poll tries again
        self._step(ctx)

    def _step(self, ctx: Context) -> None:
        if not self._settling and (self._anew or self._all or self._jobs):
            if self._anew:
                self._anew, self._all, self._hurried, self._place = False, True, True, 0
                self._jobs.clear()
            jobs, after = tuple(self._jobs), self._place if self._all else None
            self._settling, self._all = True, False
            self._jobs.clear()
            ctx.pipe(
                lambda: self._settle(jobs, after, ctx),
                on_error=lambda error: _Failed("settle", error),
            )
        if not self._triggering and self._events:
            self._triggering, self._events = True, False
            ctx.pipe(lambda: self._run(ctx), on_error=lambda error: _Failed("trigger", error))

    def _went_on(self, round_: Settled) -> None:
        """What the look at all has come to: where it let go as much as it may, it is repeated."""
        self._tell(round_)
        if round_.more:
            self._all = True
            return
        self._place = round_.place
        self._hurried = self._hurried and self._place > 0
        self._all = self._all or self._hurried

    async def _settle(self, jobs: tuple[int, ...], after: int | None, ctx: Context) -> _SettledJobs:
        now = ctx.clock.now()
        some = await self._store.settle(jobs, now=now) if jobs else Settled()
        if after is None:
            return _SettledJobs(some, None)
        return _SettledJobs(some, await self._store.settle(None, now=now, after=after))

    async def _run(self, ctx: Context) -> _Triggered:
        now = ctx.clock.now()
        return _Triggered(await self._store.run_triggers(now=now, limit=_TRIGGER_BATCH))

    def _tell(self, settled: Settled) -> None:
        for pool in settled.pools:
            self._hints.send(Ready(pool))
        if settled.schedules_changed:
            self._hints.send(SchedulesChanged())
