"""What a picture is of: tasks in topological order, their parents, and how each is to be shown."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from protocols.durations import format_duration

_STEM: Final = re.compile(r"[\W_]*\d[\d\W_]*$")
_MINUTE_S: Final = 60
_REASON_CHARS_MAX: Final = 24


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A task, or several drawn as one; `parents` are places in the graph."""

    label: str
    parents: tuple[int, ...] = ()
    state: str | None = None
    """None in the picture of a definition."""
    note: str = ""
    """A few words beside the label: how long it took, why it was skipped."""
    title: str = ""
    """All there is to say, for a tooltip."""
    critical: bool = False
    apart: bool = False
    """A handler: it has no parents, and comes when all else is over."""
    count: int = 1
    """How many tasks it stands for,"""
    states: Mapping[str, int] = {}
    """and how many of them, or of its items, are in each state."""


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """A picture's subject."""

    title: str
    nodes: tuple[Node, ...]


def graph_of_dag(dag: Mapping[str, Any]) -> Graph:
    """The picture of a definition, from `DagDetail` as JSON has it."""
    tasks: Sequence[Mapping[str, Any]] = dag["task_list"]
    places = {task["task_id"]: n for n, task in enumerate(tasks)}
    nodes = tuple(
        Node(
            label=task["task_id"],
            parents=tuple(places[p] for p in task["parents"] if p in places),
            note=_kind(task),
            title=_title(
                task["task_id"],
                kind=task["kind"],
                trigger=task["trigger"],
                when=task["when"],
                map=task["map"],
                role=task["role"],
            ),
            apart=task["role"] != "task",
        )
        for task in tasks
    )
    return Graph(title=dag["dag_id"], nodes=nodes)


def graph_of_run(run: Mapping[str, Any]) -> Graph:
    """The picture of a run, from `DagRunDetail` as JSON has it."""
    tasks: Sequence[Mapping[str, Any]] = run["tasks"]
    places = {task["task_id"]: n for n, task in enumerate(tasks)}
    nodes = tuple(
        Node(
            label=task["task_id"],
            parents=tuple(places[p] for p in task["parents"] if p in places),
            state=task["state"],
            note=_progress(task),
            title=_title(
                task["task_id"],
                state=task["state"],
                reason=task["reason"],
                cause=task["cause"],
                took=_took(task["duration_s"]),
                attempts=task["attempts"] or None,
                slack=_took(task["slack_s"]),
                error=task["error"],
            ),
            critical=task["critical"],
            apart=task["role"] != "task",
            states=task["item_states"] or {},
        )
        for task in tasks
    )
    return Graph(title=f"{run['dag_id']} {run['state']}", nodes=nodes)


def stem(label: str) -> str:
    """A label without the number at its end, by which tasks of one kind are told."""
    return _STEM.sub("", label) or label


def counted(states: Mapping[str, int]) -> str:
    """Counts of states in words, most first."""
    ordered = sorted(states.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{count:,} {state}" for state, count in ordered)


def worst(states: Mapping[str, int]) -> str | None:
    """The state that a group is shown in: what went wrong before what goes on before what went."""
    order = (
        *("failed", "running", "waiting", "ready", "scheduled", "blocked"),
        *("cancelled", "skipped", "succeeded"),
    )
    return next((state for state in order if states.get(state)), None)


def _kind(task: Mapping[str, Any]) -> str:
    parts = [] if task["kind"] in ("command", "python", "http") else [task["kind"]]
    if task["map"]:
        parts.append("map")
    if task["when"]:
        parts.append("when")
    if task["trigger"] != "all_succeeded":
        parts.append(task["trigger"])
    if task["role"] != "task":
        parts.append(task["role"])
    return " ".join(parts)


def _progress(task: Mapping[str, Any]) -> str:
    if task["state"] in ("skipped", "cancelled", "waiting") and task["reason"]:
        reason: str = task["reason"]
        return reason[:_REASON_CHARS_MAX]
    parts = [_took(task["duration_s"]) or ""]
    if task["attempts"] > 1:
        parts.append(f"try {task['attempts']}")
    return " ".join(filter(None, parts))


def _title(name: str, **facts: Any) -> str:
    told = [f"{key}: {value}" for key, value in facts.items() if value not in (None, "")]
    return "\n".join([name, *told])


def _took(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    digits = 1 if seconds < _MINUTE_S else 0
    length = round(seconds, digits) if seconds >= 0.1 else round(seconds, 3)  # noqa: PLR2004
    return format_duration(length) if length else "0s"
