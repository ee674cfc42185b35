"""What is counted of a node's locks: how long taking them took, how many were lost."""

from bisect import bisect_left
from itertools import accumulate
from typing import Final

WAITS_S: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 600.0)
"""The upper edges of the histogram, in seconds."""


class LockFigures:
    """Counters of one node's life."""

    __slots__ = ("_waits", "held", "lost", "waited_s", "waiting")

    def __init__(self) -> None:
        self.held = 0
        self.waiting = 0
        self.lost = 0
        self.waited_s = 0.0
        self._waits = [0] * (len(WAITS_S) + 1)

    def waited(self, seconds: float) -> None:
        """A lock was taken, so long after it was asked for."""
        self._waits[bisect_left(WAITS_S, seconds)] += 1
        self.waited_s += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """The histogram: upper edge, and how many took no longer."""
        edges = [*map(str, WAITS_S), "+Inf"]
        return list(zip(edges, accumulate(self._waits), strict=True))
