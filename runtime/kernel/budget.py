"""The rules of restarting, as pure as a rule can be: who, how often, after what wait."""

import random
from collections import deque
from collections.abc import Sequence
from typing import TypeVar

from protocols.actor import Backoff, Budget, Restart, Strategy

T = TypeVar("T")


class RestartBudget:
    """Counts restarts in a sliding window (Erlang/OTP: MaxR restarts in MaxT seconds)."""

    __slots__ = ("_budget", "_recent")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._recent: deque[float] = deque()

    def spend(self, now_s: float) -> int | None:
        """Take one restart: its number within the window from 1, or None if it is one too many."""
        recent = self._recent
        while recent and now_s - recent[0] >= self._budget.within_s:
            recent.popleft()
        if len(recent) >= self._budget.restarts:
            return None
        recent.append(now_s)
        return len(recent)


def delay_s(backoff: Backoff, number: int, source: random.Random) -> float:
    """How long to wait before the `number`-th restart (from 1) in the window."""
    if backoff.base_s <= 0:
        return 0.0
    exponent = min(number - 1, 60)  # past this the cap holds anyway, and floats would overflow
    delay = min(backoff.max_s, backoff.base_s * 2.0**exponent)
    return delay + source.uniform(0.0, backoff.jitter * delay)


def restarts(restart: Restart, *, failed: bool) -> bool:
    """Whether a child that ended by itself comes back."""
    return restart == "permanent" or (restart == "transient" and failed)


def affected(strategy: Strategy, children: Sequence[T], failed: T) -> list[T]:
    """Which of `children` (in start order) restart when `failed` does, itself included."""
    if strategy == "one_for_one":
        return [failed]
    if strategy == "one_for_all":
        return list(children)
    return list(children[children.index(failed) :])
