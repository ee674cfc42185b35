"""Deadlines for very many attempts whose timeouts are few: no timer for each, no sorting."""

import asyncio
from collections.abc import Callable

from runtime.hosts.work import Work


class Deadlines:
    """Attempts in the order they were added, by timeout, so that the first ends first.

    A job's attempts share a timeout, and are added as time goes on: of each timeout only the oldest
    can be the next to end. One timer stands at the least of these.
    """

    def __init__(self, on_due: Callable[[Work, float], None]) -> None:
        self._on_due = on_due
        self._lanes: dict[float, dict[Work, float]] = {}
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")

    def add(self, work: Work, timeout_s: float, now: float) -> None:
        """`on_due(work, now)` follows `timeout_s` after `now` (loop time), unless discarded."""
        lane = self._lanes.get(timeout_s)
        if lane is None:
            lane = self._lanes[timeout_s] = {}
        lane[work] = at = now + timeout_s
        if at < self._timer_at:
            self._arm(at)

    def discard(self, work: Work) -> None:
        """It has ended."""
        lane = self._lanes.get(work.assignment.timeout_s)
        if lane is not None:
            lane.pop(work, None)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
        self._lanes.clear()

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        now = self._loop.time()
        self._timer, self._timer_at = None, float("inf")
        due: list[Work] = []
        following = float("inf")
        for timeout_s, lane in list(self._lanes.items()):
            for work, at in lane.items():
                if at > now:
                    following = min(following, at)
                    break
                due.append(work)
            for work in due:
                lane.pop(work, None)
            if not lane:
                del self._lanes[timeout_s]
        if following < self._timer_at:
            self._arm(following)
        for work in due:
            self._on_due(work, now)
