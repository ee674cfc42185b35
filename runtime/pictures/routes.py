"""Which lines between two layers run together, and in which track each runs across.

Lines of tasks with the very same children share a bus: whoever reads it sees that each of those
leads to each of these, and to nothing else.
"""

from collections.abc import Mapping, Sequence

import msgspec


class Bus(msgspec.Struct, frozen=True):
    """Lines that run together, from each of the sources to each of the targets."""

    sources: tuple[int, ...]
    targets: tuple[int, ...]


def buses_between(
    above: Sequence[int],
    down: Sequence[Sequence[int]],
    ports: list[int],
    room: Mapping[int, range],
) -> list[Bus]:
    """The buses from one layer to the next; targets' ports are moved out of strangers' ways.

    Args:
        above: vertices of the upper layer.
        down: the vertices that each leads to.
        ports: the column where lines leave and reach each vertex; changed where one comes down
            into a column that a line of somebody else's leaves by.
        room: columns by which a line may come down into each vertex of the lower layer.
    """
    together: dict[tuple[int, ...], list[int]] = {}
    for vertex in above:
        if down[vertex]:
            together.setdefault(tuple(sorted(down[vertex])), []).append(vertex)
    buses = [Bus(tuple(sources), targets) for targets, sources in together.items()]
    into: dict[int, list[Bus]] = {}
    for bus in buses:
        for target in bus.targets:
            into.setdefault(target, []).append(bus)
    leaving = {ports[vertex]: vertex for vertex in above if down[vertex]}
    for target, found in into.items():
        # Where all that comes in is one bus, its own sources are no strangers.
        friends = found[0].sources if len(found) == 1 else ()
        taken = {port for port, vertex in leaving.items() if vertex not in friends}
        free = [port for port in room[target] if port not in taken]
        if free:
            wanted = ports[target]
            ports[target] = min(free, key=lambda port: (abs(port - wanted), port))
    return buses


def tracks(buses: Sequence[Bus], ports: Sequence[int]) -> list[int]:
    """The track of each bus, counted from above: two that meet in one track would seem joined."""
    spans = []
    for bus in buses:
        places = [ports[vertex] for vertex in (*bus.sources, *bus.targets)]
        spans.append((min(places), max(places)))
    found = [0] * len(buses)
    ends: list[int] = []  # the last column that each track is used up to
    for n in sorted(range(len(buses)), key=lambda n: spans[n]):
        first, last = spans[n]
        track = next((t for t, end in enumerate(ends) if end + 1 < first), len(ends))
        if track == len(ends):
            ends.append(last)
        else:
            ends[track] = last
        found[n] = track
    return found
