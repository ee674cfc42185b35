"""Where in its layer each vertex stands: near its neighbours, in its order, without touching.

One layer at a time, the squared distances from where its neighbours would have it are the least
that order and gaps allow: an isotonic regression, solved by pooling adjacent violators.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from runtime.pictures.layers import Layers

_SWEEPS: Final = 8


def columns(layers: Layers, widths: Sequence[int], *, gap: int) -> list[int]:
    """The middle of each vertex; the leftmost begins at 0.

    Args:
        layers: with the order of each.
        widths: of each vertex, bends too.
        gap: between two vertices of a layer.
    """
    middle = [0.0] * len(widths)
    for row in layers.rows:
        left = 0
        for vertex in row:
            middle[vertex] = left + widths[vertex] / 2
            left += widths[vertex] + gap
    for sweep in range(_SWEEPS):
        downwards = sweep % 2 == 0
        neighbours = layers.up if downwards else layers.down
        for row in layers.rows if downwards else reversed(layers.rows):
            _settle(row, neighbours, middle, widths, gap)
    found = [0] * len(widths)
    for row in layers.rows:
        _settle(row, layers.up, middle, widths, gap)
        for vertex, place in zip(row, _whole(row, middle, widths, gap), strict=True):
            middle[vertex] = found[vertex] = place
    lefts = [found[v] - widths[v] // 2 for row in layers.rows for v in row]
    start = min(lefts, default=0)
    return [place - start for place in found]


def spread(wanted: Sequence[float], apart: Sequence[float]) -> list[float]:
    """The places nearest to those wanted, in order, each at least so far from the one before.

    `apart[n]` is the distance from n - 1 to n; the first one says nothing.
    """
    offset, offsets = 0.0, []
    for n, distance in enumerate(apart):
        offset += distance if n else 0.0
        offsets.append(offset)
    pools: list[tuple[float, int]] = []  # mean, how many
    for want, shift in zip(wanted, offsets, strict=True):
        mean, size = want - shift, 1
        while pools and pools[-1][0] > mean:
            before, count = pools.pop()
            mean = (mean * size + before * count) / (size + count)
            size += count
        pools.append((mean, size))
    flat = [mean for mean, size in pools for _ in range(size)]
    return [place + shift for place, shift in zip(flat, offsets, strict=True)]


def _settle(
    row: Sequence[int],
    neighbours: Sequence[Sequence[int]],
    middle: list[float],
    widths: Sequence[int],
    gap: int,
) -> None:
    wanted = []
    for vertex in row:
        others = neighbours[vertex]
        mean = sum(middle[o] for o in others) / len(others) if others else middle[vertex]
        wanted.append(mean)
    for vertex, place in zip(row, spread(wanted, _apart(row, widths, gap)), strict=True):
        middle[vertex] = place


def _apart(row: Sequence[int], widths: Sequence[int], gap: int) -> list[float]:
    """From middle to middle, rounded up: a box of even width has its middle on the right."""
    found = [0.0]
    for before, vertex in pairwise(row):
        found.append(float((widths[before] + 1) // 2 + gap + widths[vertex] // 2))
    return found[: len(row)]


def _whole(
    row: Sequence[int], middle: Sequence[float], widths: Sequence[int], gap: int
) -> list[int]:
    """Whole numbers near these, as far apart."""
    found: list[int] = []
    for n, (vertex, apart) in enumerate(zip(row, _apart(row, widths, gap), strict=True)):
        place = round(middle[vertex])
        found.append(max(place, found[-1] + int(apart)) if n else place)
    return found
