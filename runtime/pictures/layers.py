"""Layers of a graph: every line leads from one layer to the next, and few lines cross.

Tasks stand one layer below the lowest of their parents. A line over several layers is a chain of
bends, one in each, that all lines of the same task share. Within a layer, each stands near the mean
place of its neighbours (the barycentre heuristic of Sugiyama, Tagawa and Toda, 1981).
"""

from bisect import bisect_right, insort
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import msgspec

from runtime.pictures.graph import Node

_SWEEPS: Final = 12
_LINES_SWEPT: Final = 100_000
"""Over all sweeps: a graph of more lines than that stays in the order it has."""


class Layers(msgspec.Struct, frozen=True, kw_only=True):
    """Vertices by layer, in their order; those from `tasks` on are bends.

    `up` and `down` lead to vertices of the layer before and after.
    """

    tasks: int
    rows: tuple[tuple[int, ...], ...]
    up: tuple[tuple[int, ...], ...]
    down: tuple[tuple[int, ...], ...]

    def is_bend(self, vertex: int) -> bool:
        """Whether there is no task here, and a line merely passes."""
        return vertex >= self.tasks


def depths(nodes: Sequence[Node]) -> list[int]:
    """The layer of each task; those that stand apart come after all others."""
    found = [0] * len(nodes)
    for n, node in enumerate(nodes):
        found[n] = 1 + max((found[p] for p in node.parents), default=-1)
    below = 1 + max((d for d, node in zip(found, nodes, strict=True) if not node.apart), default=-1)
    for n, node in enumerate(nodes):
        if node.apart:
            found[n] = below
    return found


def layered(nodes: Sequence[Node]) -> Layers:
    """The layers of a graph, ordered so that few lines cross."""
    depth = depths(nodes)
    rows: list[list[int]] = [[] for _ in range(1 + max(depth, default=-1))]
    up: list[list[int]] = [[] for _ in nodes]
    down: list[list[int]] = [[] for _ in nodes]
    for n, layer in enumerate(depth):
        rows[layer].append(n)
    last_bend: dict[int, int] = {}  # of each task: the lowest bend of its chain
    reach = list(depth)
    edges = sorted(
        ((parent, child) for child, node in enumerate(nodes) for parent in set(node.parents)),
        key=lambda edge: (edge[0], depth[edge[1]], edge[1]),
    )
    for parent, child in edges:
        end = last_bend.get(parent, parent)
        while reach[parent] < depth[child] - 1:
            reach[parent] += 1
            bend = len(up)
            up.append([end])
            down.append([])
            down[end].append(bend)
            rows[reach[parent]].append(bend)
            last_bend[parent] = end = bend
        # Nearer children came first, so the chain has gone to just above this one.
        up[child].append(end)
        down[end].append(child)
    ordered = _ordered(rows, up, down)
    return Layers(
        tasks=len(nodes),
        rows=tuple(map(tuple, ordered)),
        up=tuple(map(tuple, up)),
        down=tuple(map(tuple, down)),
    )


def crossings(rows: Sequence[Sequence[int]], down: Sequence[Sequence[int]]) -> int:
    """How many pairs of lines cross between layers, drawn straight."""
    total = 0
    for row, below in pairwise(rows):
        place = {vertex: n for n, vertex in enumerate(below)}
        seen: list[int] = []
        for vertex in row:
            ends = sorted(place[child] for child in down[vertex])
            total += sum(len(seen) - bisect_right(seen, end) for end in ends)
            for end in ends:
                insort(seen, end)
    return total


def _ordered(
    rows: Sequence[Sequence[int]], up: Sequence[Sequence[int]], down: Sequence[Sequence[int]]
) -> list[list[int]]:
    """The best of a few sweeps, down by parents and up by children."""
    current = [list(row) for row in rows]
    sweeps = min(_SWEEPS, _LINES_SWEPT // max(1, sum(map(len, down))))
    if not sweeps:
        return current
    best, fewest = current, crossings(current, down)
    for sweep in range(sweeps):
        if not fewest:
            break
        neighbours = up if sweep % 2 == 0 else down
        current = _swept(current, neighbours, upwards=bool(sweep % 2))
        count = crossings(current, down)
        if count < fewest:
            best, fewest = current, count
    return best


def _swept(
    rows: Sequence[Sequence[int]], neighbours: Sequence[Sequence[int]], *, upwards: bool
) -> list[list[int]]:
    found = [list(row) for row in rows]
    order = range(len(rows) - 2, -1, -1) if upwards else range(1, len(rows))
    for layer in order:
        fixed = found[layer + 1 if upwards else layer - 1]
        place = {vertex: n for n, vertex in enumerate(fixed)}
        weight = {}
        for n, vertex in enumerate(found[layer]):
            known = [place[other] for other in neighbours[vertex]]
            # Who has no neighbours there keeps his share of the way along the layer.
            here = n * len(fixed) / len(found[layer])
            weight[vertex] = sum(known) / len(known) if known else here
        found[layer].sort(key=weight.__getitem__)
    return found
