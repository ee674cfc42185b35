"""Time for the kernel: one-shot timers, and a cheap table of the deadlines of asks."""

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Protocol

from protocols.actor import AskTimeout
from runtime.kernel.items import Ask

BUCKET_S = 0.01
"""Deadlines of asks are rounded up to this, so that one loop timer serves a thousand asks."""


class Handle(Protocol):
    """A timer that can be taken back."""

    def cancel(self) -> None:
        """Do not call, if it has not been called."""
        ...


class Timers(Protocol):
    """Where the kernel's timers wait: the loop's, or a virtual clock's."""

    def time(self) -> float:
        """Seconds on this time's own scale."""
        ...

    def call_later(self, delay_s: float, call: Callable[..., None], *args: Any) -> Handle:
        """Call once, `delay_s` from now; at once, but not from within, for 0 and below."""
        ...


class LoopTimers:
    """The running loop's timers."""

    __slots__ = ("call_later", "time")

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.time = loop.time
        self.call_later: Callable[..., asyncio.TimerHandle] = loop.call_later


class Deadlines:
    """Ends asks whose time is up, at a cost of a dict entry each.

    An ask nearly always ends before its deadline, and a loop timer costs more than the whole
    rest of it; so they lie in buckets, and only the first bucket has a timer. An answered ask
    leaves its bucket at once; one whose asker was cancelled stays until its deadline.
    """

    __slots__ = ("_armed", "_buckets", "_heap", "_timers", "timed_out")

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._buckets: dict[int, dict[Ask, None]] = {}
        self._heap: list[int] = []
        self._armed: tuple[int, Handle] | None = None
        self.timed_out = 0

    def add(self, ask: Ask, deadline_s: float) -> None:
        """End `ask` with AskTimeout, `deadline_s` from now or up to BUCKET_S later."""
        number = int((self._timers.time() + deadline_s) / BUCKET_S) + 1
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._buckets[number] = {}
            heappush(self._heap, number)
            if self._armed is None or number < self._armed[0]:
                self._arm(number)
        bucket[ask] = None
        ask.bucket = bucket

    @staticmethod
    def drop(ask: Ask) -> None:
        """Forget an ask that was answered."""
        ask.bucket.pop(ask, None)

    def _arm(self, number: int) -> None:
        if self._armed is not None:
            self._armed[1].cancel()
        delay_s = number * BUCKET_S - self._timers.time()
        self._armed = (number, self._timers.call_later(delay_s, self._due))

    def _due(self) -> None:
        self._armed = None
        now = self._timers.time()
        while self._heap:
            number = self._heap[0]
            bucket = self._buckets[number]
            if bucket and number * BUCKET_S > now:
                self._arm(number)
                return
            heappop(self._heap)
            del self._buckets[number]
            for ask in bucket:
                if not ask.future.done():
                    self.timed_out += 1
                    ask.future.set_exception(AskTimeout("no answer before the deadline"))
