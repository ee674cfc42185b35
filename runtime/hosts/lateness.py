"""How late first attempts began, in a histogram that costs a shift and an addition to count in.

Its edges are powers of two, in nanoseconds.
"""

from itertools import accumulate
from typing import Final

_SHIFT: Final = 20
"""The first edge is 2^20 ns, about a millisecond."""
_EDGES: Final = 18
"""The last one is about 137 s."""
_SLOTS: Final = 64
"""One for each length of a number of nanoseconds that 64 bits can hold."""


class Lateness:
    """From the instant of an execution to the first line of its first attempt."""

    __slots__ = ("_counts", "_sum_ns")

    def __init__(self) -> None:
        self._counts = [0] * _SLOTS
        self._sum_ns = 0

    def add(self, late_ns: int) -> None:
        """One began, so long after its instant."""
        if late_ns > 0:
            self._counts[(late_ns >> _SHIFT).bit_length()] += 1
            self._sum_ns += late_ns
        else:
            self._counts[0] += 1

    @property
    def sum_s(self) -> float:
        """All of it together, in seconds."""
        return self._sum_ns / 1e9

    def buckets(self) -> list[tuple[str, float]]:
        """The histogram: upper edge in seconds, and how many were no later."""
        totals = list(accumulate(self._counts))
        edges = [str((1 << _SHIFT + at) / 1e9) for at in range(_EDGES)]
        return [*zip(edges, totals, strict=False), ("+Inf", totals[-1])]
