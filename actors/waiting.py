"""WaitingActor: lets go what waited for a turn, a parent, a finish or an event.

Level-triggered: each look asks the books what may go now, so a hint that was lost costs the time
to the next poll and nothing else.
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
    settled: Settled


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
        self._all = True
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
                self._all = self._all or not job_keys or len(self._jobs) > _JOBS_MOST
                self._events = True
            case EventsAppended():
                self._events = True
            case _Poll():
                self._all = self._events = True
            case _SettledJobs(settled=settled):
                self._settling = False
                self._all = self._all or settled.more
                self._tell(settled)
            case _Triggered(settled=settled):
                self._triggering = False
                self._events = self._events or settled.more
                self._tell(settled)
            case _Failed(what=what, error=error):
                if not isinstance(error, UnavailableError):
                    raise error
                if what == "settle":
                    self._settling = False
                else:
                    self._triggering = False
                return  # the next poll tries again
        self._step(ctx)

    def _step(self, ctx: Context) -> None:
        if not self._settling and (self._all or self._jobs):
            jobs = None if self._all else tuple(self._jobs)
            self._settling, self._all = True, False
            self._jobs.clear()
            ctx.pipe(
                lambda: self._settle(jobs, ctx), on_error=lambda error: _Failed("settle", error)
            )
        if not self._triggering and self._events:
            self._triggering, self._events = True, False
            ctx.pipe(lambda: self._run(ctx), on_error=lambda error: _Failed("trigger", error))

    async def _settle(self, jobs: tuple[int, ...] | None, ctx: Context) -> _SettledJobs:
        return _SettledJobs(await self._store.settle(jobs, now=ctx.clock.now()))

    async def _run(self, ctx: Context) -> _Triggered:
        now = ctx.clock.now()
        return _Triggered(await self._store.run_triggers(now=now, limit=_TRIGGER_BATCH))

    def _tell(self, settled: Settled) -> None:
        for pool in settled.pools:
            self._hints.send(Ready(pool))
        if settled.schedules_changed:
            self._hints.send(SchedulesChanged())
