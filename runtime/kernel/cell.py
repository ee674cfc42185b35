"""One actor at work: a task that starts an instance, hands it messages, and ends it in order.

A cell outlives its instances. Its mailbox, ref and watchers stay over a restart; the instance,
its context, timers, pipes and watches do not.
"""

import asyncio
from collections.abc import Generator
from time import perf_counter_ns
from typing import Any

from protocols.actor import Actor, ActorDead, ActorFailed
from runtime.kernel.context import CellContext
from runtime.kernel.dead_letters import describe_error
from runtime.kernel.items import Ask, Death, Item, Outcome, Slot, Tick, bare, stashable
from runtime.kernel.vitals import Vitals

TURN_MESSAGES = 128
"""After so many messages without a pause an actor lets the others run, ..."""
SLICE_NS = 5_000_000
"""... and after so much time, under a real clock."""
SLOWEST_KEPT = 5


class _Yield:
    """One turn of the loop for everybody else."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, None]:
        yield


_YIELD = _Yield()


class Cell(Vitals):
    """The task of one actor."""

    __slots__ = ()

    async def run(self) -> None:
        """Live one instance from start to end; its supervisor hears how it went."""
        failure: Exception | None = None
        try:
            if not self.signal:
                await self._begin()
                await self._serve()
            failure = self.failing
        except asyncio.CancelledError:
            failure = self._cancelled()
        except Exception as error:  # noqa: BLE001 - its supervisor reads it
            failure = error
            self._spoil(error)
        try:
            await self._end(failure)
        except asyncio.CancelledError:
            self.abort()
            raise
        self.release(failure)
        self.system.ended(self, failure)

    async def _begin(self) -> None:
        props = self.props
        self.actor = props.factory() if props.factory is not None else Supervisor()
        self.ctx = CellContext(self)
        if type(self.actor).on_start is not Actor.on_start:
            await self.actor.on_start(self.ctx)
        self.began = True
        if props.children:
            await self.get_family().start_all(props.children)
        self.set_state("running")

    async def _serve(self) -> None:
        assert self.actor is not None
        assert self.ctx is not None
        receive, ctx, loop = self.actor.receive, self.ctx, self.system.loop
        left, mark = TURN_MESSAGES, perf_counter_ns()
        slice_end = mark + self.system.slice_ns
        while not self.signal:
            if self.system_lane:
                item = self.system_lane.popleft()
            elif self.urgent:
                item = self.urgent.popleft()
            elif self.normal:
                item = self.current = self.normal.popleft()
                if self.putters is not None:
                    self.admit()
            else:
                item = self.current = None
                waiter = self.waiter = loop.create_future()
                await waiter
                left, mark = TURN_MESSAGES, perf_counter_ns()
                slice_end = mark + self.system.slice_ns
                continue
            self.current = item
            if not isinstance(item, Item):
                await receive(item, ctx)
            elif self._opens(item):
                result = await receive(item.message, ctx)
                if type(item) is Ask and not self.kept:
                    self._answer(item, result)
            else:
                continue
            self.kept = False
            self.handled += 1
            now = perf_counter_ns()
            if now - mark > self.slow_ns:
                self._note_slow(now - mark, item)
            mark = now
            left -= 1
            if left <= 0 or now > slice_end:
                self.current = None
                await _YIELD
                left, mark = TURN_MESSAGES, perf_counter_ns()
                slice_end = mark + self.system.slice_ns
        self.current = None

    def _opens(self, item: Item) -> bool:
        """Whether what lies in the lane is still to be handled; settles what it stands for."""
        if isinstance(item, Ask):
            if item.future.done():
                self.bury(item, "expired")
                return False
        elif isinstance(item, Tick):
            item.queued = False
            if item.cancelled:
                return False
            if item.period_s is None and self.ticks is not None:
                self.ticks.pop(item, None)
        elif isinstance(item, Slot):
            self.forget_slot(item)
        elif isinstance(item, Death):
            if self.watching is None or item.cell not in self.watching:
                return False
            del self.watching[item.cell]
        elif isinstance(item, Outcome):
            if item.pipe.cancelled:
                return False
            if item.error is not None:
                raise item.error
        return True

    def _answer(self, ask: Ask, result: Any) -> None:
        if ask.future.done():
            self.system.dead_letters.bury(result, self.path, "late_answer")
            return
        ask.future.set_result(result)
        self.system.deadlines.drop(ask)

    def _note_slow(self, took_ns: int, item: Any) -> None:
        slowest = self.slowest or []
        slowest.append((took_ns, type(bare(item)).__name__))
        slowest.sort(reverse=True)
        del slowest[SLOWEST_KEPT:]
        self.slowest = slowest
        if len(slowest) == SLOWEST_KEPT:
            self.slow_ns = slowest[-1][0]

    def _spoil(self, error: Exception) -> None:
        """Bury the message in hand: it ended its actor."""
        item, self.current = self.current, None
        if item is None or (isinstance(item, Outcome) and item.error is not None):
            return
        self._unstash(item)
        if isinstance(item, Ask):
            failed = ActorFailed(f"{self.path} failed on it: {describe_error(error)}")
            failed.__cause__ = error
            self.bury(item, "crashed", failed)
        else:
            self.bury(item, "crashed", error)
        if not isinstance(item, Tick | Death | Outcome):
            self.remember_crash(bare(item), self.now_s())

    def _unstash(self, item: Any) -> None:
        """Take the message in hand out of the stash again, if it put itself there."""
        if self.kept and self.stashed and self.stashed[-1] is stashable(item):
            self.stashed.pop()

    def _cancelled(self) -> Exception | None:
        """Tell whose cancel it was: the nursery's, ours after the grace, or a bug's."""
        assert self.task is not None
        if self.system.nursery.closing:
            self.abort()
            raise asyncio.CancelledError
        ours = self.forced > 0
        self._forgive()
        if not ours:
            error = RuntimeError("it awaited something that was cancelled")
            self._spoil(error)
            return error
        item, self.current = self.current, None
        if item is not None:
            self._unstash(item)
            dead = ActorDead(f"{self.path} was cancelled at the end of its grace")
            self.bury(item, "cancelled", dead)
        return self.failing

    def _forgive(self) -> None:
        """Take back our cancels, so that what is awaited next is not ended by them."""
        assert self.task is not None
        while self.task.cancelling():
            self.task.uncancel()
        self.forced = 0

    async def _end(self, failure: Exception | None) -> None:
        """Stop children, then the instance, then its pipes."""
        self.end_grace()
        self._forgive()
        self.ending = True
        self.waiter = None
        if failure is not None:
            self.last_error = describe_error(failure)
            self.system.report_failure(self, failure)
        self.set_state("stopping")
        if self.family is not None:
            await self.family.stop_all()
        actor, ctx = self.actor, self.ctx
        if self.began and actor is not None and type(actor).on_stop is not Actor.on_stop:
            assert ctx is not None
            self.begin_grace()
            try:
                await actor.on_stop(ctx)
            except asyncio.CancelledError as error:
                if self.system.nursery.closing:
                    raise
                late = f"its end was not over within its grace of {self.props.stop_grace_s:g} s"
                self.system.report_failure(self, TimeoutError(late) if self.forced else error)
            except Exception as error:  # noqa: BLE001 - reported; the end goes on
                self.system.report_failure(self, error)
            self.end_grace()
            self._forgive()
        if self.pipes is not None:
            await self.pipes.close()


class Supervisor(Actor):
    """An actor that only has children; what is sent to it becomes a dead letter."""

    __slots__ = ()

    async def receive(self, message: Any, ctx: Any) -> None:
        """Bury it; there is nobody to handle it."""
        ctx.defer_reply().fail(ActorDead(f"{ctx.path} is a supervisor and handles no message"))
        ctx.bury(message)
