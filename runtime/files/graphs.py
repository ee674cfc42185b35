"""The graph of a DAG's tasks: its order, its cycles spelled out, and what names nothing."""

from collections.abc import Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Final

from protocols.durations import shown
from protocols.nearest import Nearest

CYCLE_SHOWN: Final = 20
"""Of a longer circle the first tasks and the last are told."""


def in_order(parents: Mapping[str, Sequence[str]]) -> list[str]:
    """The tasks, each after all that it depends on; otherwise as they stand in the file.

    Raises:
        CycleError: There is no such order.
    """
    sorter = TopologicalSorter(parents)
    sorter.prepare()
    places = {task: number for number, task in enumerate(parents)}
    found: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=places.__getitem__)
        found += ready
        sorter.done(*ready)
    return found


def cycle_in(parents: Mapping[str, Sequence[str]]) -> tuple[str, ...] | None:
    """A circle, each task before one that it waits for, with the first one repeated."""
    try:
        TopologicalSorter(parents).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return tuple(reversed(found))
    return None


def spelled(cycle: Sequence[str]) -> str:
    """`a -> b -> a`; the middle of a long one is counted."""
    if len(cycle) <= CYCLE_SHOWN:
        return " -> ".join(cycle)
    half = CYCLE_SHOWN // 2
    left_out = len(cycle) - 2 * half
    return " -> ".join([*cycle[:half], f"({left_out:,} more)", *cycle[-half:]])


class Ancestry:
    """Which tasks come before which, of a graph without a circle: one bit for each pair."""

    def __init__(self, parents: Mapping[str, Sequence[str]]) -> None:
        order = in_order({task: [p for p in of if p in parents] for task, of in parents.items()})
        self._bits = {task: 1 << number for number, task in enumerate(order)}
        self._before: dict[str, int] = {}
        for task in order:
            before = 0
            for parent in parents[task]:
                if parent in self._bits:
                    before |= self._before[parent] | self._bits[parent]
            self._before[task] = before

    def of(self, task: str) -> "Ancestors":
        """The tasks that come before this one."""
        return Ancestors(self._bits, self._before[task])


class Ancestors:
    """Some tasks of an `Ancestry`."""

    def __init__(self, bits: Mapping[str, int], before: int) -> None:
        self._bits, self._before = bits, before

    def __contains__(self, task: object) -> bool:
        return isinstance(task, str) and bool(self._bits.get(task, 0) & self._before)


class Names:
    """The tasks of a DAG by their ids, and what to say of one that is not there."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = dict.fromkeys(names)
        self._nearest = Nearest(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def missing(self, name: str) -> str:
        """One sentence for a task that is not there, with the nearest that is."""
        near = self._nearest.to(name)
        hint = f"; did you mean {shown(near)}?" if near else ""
        return f"there is no task {shown(name)} in this DAG{hint}"
