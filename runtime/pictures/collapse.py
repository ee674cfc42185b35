"""Draws many tasks as one, so that a graph of thousands can be read.

Ways of telling which tasks are alike, each coarser than the one before: all that wait for the same
and are waited for by the same; all whose neighbours are alike, in turn (Paige and Tarjan's coarsest
partition, by plain refinement); all of one layer whose names differ by a number; all of a layer.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import takewhile
from typing import Final

import msgspec

from runtime.pictures.graph import Graph, Node, counted, stem, worst
from runtime.pictures.layers import depths

LAYERS_MAX: Final = 60
"""With more layers than that, tasks in a row become one."""
_ROUNDS: Final = 50

Way = Callable[[Sequence[Node]], list[Hashable]]


def collapsed(graph: Graph, *, fits: Callable[[Graph], bool]) -> Graph:
    """The graph by the finest way in which it fits, or by the coarsest there is."""
    if graph.nodes and max(depths(graph.nodes)) >= LAYERS_MAX:
        graph = in_a_row(graph)
    if fits(graph):
        return graph
    found = graph
    for way in (_twins, _alike, _stems, _whole_layers):
        found = grouped(graph, way(graph.nodes))
        if fits(found):
            break
    return found


def grouped(graph: Graph, keys: Sequence[Hashable]) -> Graph:
    """The graph with tasks of one key drawn as one; a key's tasks are of one layer.

    Then no line leads within a group, and the order of first members is topological once sorted
    by layer.
    """
    depth = depths(graph.nodes)
    members: dict[Hashable, list[int]] = {}
    for n, key in enumerate(keys):
        members.setdefault((depth[n], key), []).append(n)
    groups = sorted(members.values(), key=lambda group: (depth[group[0]], group[0]))
    place = {n: number for number, group in enumerate(groups) for n in group}
    return Graph(
        title=graph.title,
        nodes=tuple(_together([graph.nodes[n] for n in group], place) for group in groups),
    )


def in_a_row(graph: Graph) -> Graph:
    """The graph with tasks that follow each other, one parent and one child each, drawn as one."""
    nodes = graph.nodes
    children = Counter(parent for node in nodes for parent in set(node.parents))
    inner = [
        len(set(node.parents)) == 1 and children[n] == 1 and node.count == 1
        for n, node in enumerate(nodes)
    ]
    head: list[int] = []
    for n, node in enumerate(nodes):
        parent = node.parents[0] if node.parents else None
        joins = inner[n] and parent is not None and inner[parent]
        head.append(head[parent] if joins and parent is not None else n)
    members: dict[int, list[int]] = {}
    for n, first in enumerate(head):
        members.setdefault(first, []).append(n)
    place = {n: number for number, group in enumerate(members.values()) for n in group}
    found = []
    for number, group in enumerate(members.values()):
        one = _together([nodes[n] for n in group], place)
        outside = tuple(p for p in one.parents if p != number)
        found.append(_with_parents(one, outside))
    return Graph(title=graph.title, nodes=tuple(found))


def _twins(nodes: Sequence[Node]) -> list[Hashable]:
    children = _children(nodes)
    return [
        ("apart", n) if node.apart else (frozenset(node.parents), frozenset(children[n]))
        for n, node in enumerate(nodes)
    ]


def _alike(nodes: Sequence[Node]) -> list[Hashable]:
    children = _children(nodes)
    kinds: list[int] = _numbered(
        (depth, node.apart) for depth, node in zip(depths(nodes), nodes, strict=True)
    )
    for _ in range(_ROUNDS):
        finer = _numbered(
            (
                kinds[n],
                frozenset(kinds[p] for p in node.parents),
                frozenset(kinds[c] for c in children[n]),
            )
            for n, node in enumerate(nodes)
        )
        if max(finer) == max(kinds):
            break
        kinds = finer
    return list(kinds)


def _stems(nodes: Sequence[Node]) -> list[Hashable]:
    return [(node.apart, stem(node.label)) for node in nodes]


def _whole_layers(nodes: Sequence[Node]) -> list[Hashable]:
    return [node.apart for node in nodes]


def _numbered(keys: Iterable[Hashable]) -> list[int]:
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(key, len(numbers)) for key in keys]


def _children(nodes: Sequence[Node]) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in nodes]
    for n, node in enumerate(nodes):
        for parent in node.parents:
            found[parent].append(n)
    return found


def _together(nodes: Sequence[Node], place: dict[int, int]) -> Node:
    parents = tuple(sorted({place[p] for node in nodes for p in node.parents}))
    if len(nodes) == 1:
        return _with_parents(nodes[0], parents)
    states = Counter(node.state for node in nodes if node.state is not None)
    held = {str(state): count for state, count in states.items()}
    count = sum(node.count for node in nodes)
    return Node(
        label=_name([node.label for node in nodes]),
        parents=parents,
        state=worst(held),
        note="" if len(held) <= 1 else counted(held),
        title="\n".join([f"{count:,} tasks", counted(held), *_some([n.label for n in nodes])]),
        critical=any(node.critical for node in nodes),
        apart=nodes[0].apart,
        count=count,
        states=held,
    )


def _with_parents(node: Node, parents: tuple[int, ...]) -> Node:
    return msgspec.structs.replace(node, parents=parents)


def _name(labels: Sequence[str]) -> str:
    """What all have in common, or the first of them and a sign that there are others."""
    stems = {stem(label) for label in labels}
    if len(stems) == 1:
        return f"{stems.pop()}*"
    first, last = min(labels), max(labels)
    same = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    prefix = "".join(character for character, _ in same)
    return f"{prefix}*" if prefix else f"{labels[0]}, ..."


def _some(labels: Sequence[str]) -> list[str]:
    few = list(labels[:10])
    return [*few, "..."] if len(labels) > len(few) else few
