"""A clock that stands still while anything can run, and jumps to the next timer when nothing can.

After trio's MockClock and its autojump. What is idle is asked of the loop itself: its queue of
callbacks is empty, twice in a row, so that one look at the selector lies between.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from heapq import heappop, heappush
from typing import Any
from weakref import WeakKeyDictionary

from runtime.kernel.clock import EPOCH, instant

QUIET_LOOKS = 2

_RUNNING: "WeakKeyDictionary[asyncio.AbstractEventLoop, VirtualClock]" = WeakKeyDictionary()
"""The clock of each loop: two would take each other's looking for work, and never jump."""


class VirtualTimer:
    """A callback at a virtual instant; ordered by instant, then by who came first."""

    __slots__ = ("_args", "_call", "at_ns", "cancelled", "number")

    def __init__(
        self, at_ns: int, number: int, call: Callable[..., None], args: tuple[Any, ...]
    ) -> None:
        self.at_ns = at_ns
        self.number = number
        self._call = call
        self._args = args
        self.cancelled = False

    def __lt__(self, other: "VirtualTimer") -> bool:
        return (self.at_ns, self.number) < (other.at_ns, other.number)

    def cancel(self) -> None:
        """Do not call."""
        self.cancelled = True

    def run(self) -> None:
        """Call, unless cancelled in the meantime."""
        if not self.cancelled:
            self._call(*self._args)


class VirtualClock:
    """Virtual time for one loop, shared by all systems on it.

    Args:
        start: The first instant, aware.
        autojump: Jump on whenever all is idle; else time moves only by `advance`.

    Raises:
        RuntimeError: The loop is not asyncio's own (uvloop hides its queue), or has one already.
    """

    def __init__(
        self, *, start: datetime = datetime(2026, 1, 1, tzinfo=UTC), autojump: bool = True
    ) -> None:
        self._loop = asyncio.get_running_loop()
        if not hasattr(self._loop, "_ready"):
            raise RuntimeError("virtual time needs asyncio's own event loop")
        if self._loop in _RUNNING:
            raise RuntimeError("this loop has a virtual clock already: close that one first")
        _RUNNING[self._loop] = self
        self.epoch_ns = (start - EPOCH) // (instant(1000) - EPOCH) * 1000
        self._now_ns = 0
        self._limit_ns: int | None = None if autojump else 0
        self._timers: list[VirtualTimer] = []
        self._number = 0
        self._holds = 0
        self._looking = False
        self._closed = False
        self._quiet = 0
        self._settling: list[asyncio.Future[None]] = []
        self._conditions: dict[asyncio.Future[None], Callable[[], bool]] = {}
        self.jumps = 0

    def close(self) -> None:
        """Stop looking and jumping; the loop may have another clock."""
        self._closed = True
        _RUNNING.pop(self._loop, None)

    # The Clock port.

    def now(self) -> datetime:
        """This virtual moment, aware, in UTC."""
        return instant(self.now_ns())

    def now_ns(self) -> int:
        """This virtual moment in epoch nanoseconds."""
        return self.epoch_ns + self._now_ns

    def monotonic(self) -> float:
        """Virtual seconds since the start."""
        return self._now_ns / 1e9

    def monotonic_ns(self) -> int:
        """The same in nanoseconds."""
        return self._now_ns

    # The kernel's timers.

    def time(self) -> float:
        """Virtual seconds since the start."""
        return self._now_ns / 1e9

    def call_later(self, delay_s: float, call: Callable[..., None], *args: Any) -> VirtualTimer:
        """Call at that virtual instant."""
        self._number += 1
        at_ns = self._now_ns + max(0, round(delay_s * 1e9))
        timer = VirtualTimer(at_ns, self._number, call, args)
        heappush(self._timers, timer)
        self._start_looking()
        return timer

    @property
    def timers(self) -> int:
        """How many timers wait."""
        return sum(not timer.cancelled for timer in self._timers)

    # For tests.

    async def sleep(self, delay_s: float) -> None:
        """Wait in virtual time."""
        future: asyncio.Future[None] = self._loop.create_future()
        timer = self.call_later(delay_s, resolve, future)
        try:
            await future
        finally:
            timer.cancel()

    async def advance(self, delay_s: float) -> None:
        """Let that much time pass, stopping at every timer on the way; settles at the end."""
        if self._limit_ns is not None:
            self._limit_ns = max(self._limit_ns, self._now_ns + round(delay_s * 1e9))
        await self.sleep(delay_s)
        await self.settle()

    async def settle(self) -> None:
        """Return when nothing can run before time moves."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._settling.append(future)
        self._start_looking()
        await future

    async def wait_until(
        self, condition: Callable[[], bool], *, within_s: float = 60.0, what: str = "condition"
    ) -> None:
        """Return once `condition()`; it is looked at after every turn of the loop.

        Raises:
            AssertionError: It stayed false for `within_s` virtual seconds, or nothing is left
                that could make it true.
        """
        if condition():
            return
        future: asyncio.Future[None] = self._loop.create_future()
        self._conditions[future] = condition
        late = AssertionError(f"{what}: not within {within_s:g} s of virtual time")
        timer = self.call_later(within_s, fail, future, late)
        try:
            await future
        finally:
            timer.cancel()
            self._conditions.pop(future, None)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep time still while real I/O is under way, which the clock cannot see."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            self._start_looking()

    # Looking whether all is idle.

    def _start_looking(self) -> None:
        self._quiet = 0
        if not self._looking:
            self._looking = True
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        if self._closed:
            return
        for future, condition in list(self._conditions.items()):
            if not future.done() and condition():
                future.set_result(None)
        self._quiet = 0 if self._loop._ready else self._quiet + 1  # type: ignore[attr-defined]  # noqa: SLF001
        if self._quiet < QUIET_LOOKS or self._let_on():
            self._loop.call_soon(self._look)
            return
        self._looking = False

    def _let_on(self) -> bool:
        """All is idle: settle, or jump; false if there is nothing to do."""
        self._quiet = 0
        if self._settling:
            settling, self._settling = self._settling, []
            for future in settling:
                resolve(future)
            return True
        if self._holds:
            return False
        while self._timers and self._timers[0].cancelled:
            heappop(self._timers)
        if not self._timers or (
            self._limit_ns is not None and self._timers[0].at_ns > self._limit_ns
        ):
            stuck = AssertionError("all actors are idle, and time may not move: nothing will come")
            for future in self._conditions:
                fail(future, stuck)
            return False
        self._now_ns = self._timers[0].at_ns
        self.jumps += 1
        while self._timers and self._timers[0].at_ns <= self._now_ns:
            self._loop.call_soon(heappop(self._timers).run)
        return True


class NodeTime:
    """One node's view of a shared virtual clock: its own offset, and it can be paused."""

    def __init__(self, clock: VirtualClock, *, offset_s: float = 0.0) -> None:
        self._clock = clock
        self._offset_ns = round(offset_s * 1e9)
        self.paused = False
        self._dead = False
        self._held: list[Callable[[], object]] = []
        self.time = clock.time
        self.monotonic = clock.monotonic
        self.monotonic_ns = clock.monotonic_ns

    def now(self) -> datetime:
        """What this node believes the moment is."""
        return instant(self.now_ns())

    def now_ns(self) -> int:
        """The same in epoch nanoseconds."""
        return self._clock.now_ns() + self._offset_ns

    def shift(self, offset_s: float) -> None:
        """Make this node's clock wrong by so much; timers are not touched."""
        self._offset_ns = round(offset_s * 1e9)

    def call_later(self, delay_s: float, call: Callable[..., None], *args: Any) -> VirtualTimer:
        """Call then, or when the node is resumed if that is later, or never if it is killed."""
        held = VirtualTimer(0, 0, call, args)
        return _Both(self._clock.call_later(delay_s, self.run, held.run), held)

    def run(self, call: Callable[[], object]) -> None:
        """Do it now, at the end of the pause, or never, as the node's state has it."""
        if self._dead:
            return
        if self.paused:
            self._held.append(call)
        else:
            call()

    def pause(self) -> None:
        """Hold timers and messages from here on, as SIGSTOP would."""
        self.paused = True

    def resume(self) -> None:
        """Let all that was held happen now, in its order."""
        self.paused = False
        held, self._held = self._held, []
        for call in held:
            call()

    def end(self) -> None:
        """The node is dead: nothing of it happens any more."""
        self._dead = True
        self._held.clear()


class _Both(VirtualTimer):
    """A node's timer: cancels what waits on the clock, and what a pause may hold after that."""

    __slots__ = ("_held", "_timer")

    def __init__(self, timer: VirtualTimer, held: VirtualTimer) -> None:
        super().__init__(timer.at_ns, timer.number, held.run, ())
        self._timer = timer
        self._held = held

    def cancel(self) -> None:
        """Do not call."""
        self._timer.cancel()
        self._held.cancel()


def resolve(future: "asyncio.Future[None]") -> None:
    """Wake who waits, if it still does."""
    if not future.done():
        future.set_result(None)


def fail(future: "asyncio.Future[Any]", error: Exception) -> None:
    """Raise at who waits, if it still does."""
    if not future.done():
        future.set_exception(error)
