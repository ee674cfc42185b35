"""The graph of a DAG's tasks: its order, its cycles spelled out, and what names nothing."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter
from typing import Final

from protocols.durations import shown

CYCLE_SHOWN: Final = 20
"""Of a longer circle the first tasks and the last are told."""
_NEAR_MAX: Final = 2000
"""Among how many names the nearest is looked for; each look costs a comparison with all."""


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


def no_task(name: str, known: Sequence[str]) -> str:
    """One sentence for a task that is not there, with the nearest that is."""
    near = get_close_matches(name, known[:_NEAR_MAX], n=1)
    hint = f"; did you mean {shown(near[0])}?" if near else ""
    return f"there is no task {shown(name)} in this DAG{hint}"
