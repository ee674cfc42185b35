"""What differs between two versions of a job, field by field, for people to read."""

from collections.abc import Sequence
from typing import Any

import msgspec

from protocols.dags import DagTask
from protocols.jobs import JobSpec
from protocols.views import FieldChange


def differences(
    old: JobSpec, new: JobSpec, *, tasks: Sequence[tuple[JobSpec, JobSpec]] = ()
) -> tuple[FieldChange, ...]:
    """Fields whose values differ, by dotted path, in the order of the paths.

    A field at its default counts as absent. Lists are compared as wholes, since a place in a
    list means little to a reader; the tasks of a DAG go by their ids. `tasks` are the two versions
    of each of them that stood before.
    """
    found: list[FieldChange] = []
    _compare("", _fields(old), _fields(new), found)
    for before, after in tasks:
        task_id = after.job_id.partition("/")[2]
        inner: list[FieldChange] = []
        _compare("", _own(before), _own(after), inner)
        found += [FieldChange(f"tasks.{task_id}.{c.path}", c.old, c.new) for c in inner]
    return tuple(found)


def _fields(spec: JobSpec) -> Any:
    fields = msgspec.to_builtins(spec)
    if isinstance(spec.task, DagTask):
        inner = fields.pop("task")
        fields["tasks"] = {task.pop("task_id"): task for task in inner.pop("tasks")}
        fields |= {name: value for name, value in inner.items() if name != "type"}
    return fields


def _own(spec: JobSpec) -> Any:
    """What stands in a hidden job alone."""
    fields = msgspec.to_builtins(spec)
    return {name: value for name, value in fields.items() if name not in {"job_id", "task"}}


def _compare(path: str, old: Any, new: Any, found: list[FieldChange]) -> None:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}, key=str):
            below = f"{path}.{key}" if path else str(key)
            _compare(below, old.get(key), new.get(key), found)
    elif old != new:
        found.append(FieldChange(path, old, new))
