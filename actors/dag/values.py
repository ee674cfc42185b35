"""What a task refers to, worked out when it is made ready: conditions, lists, inputs."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from protocols.dags import DagTaskSpec

TOO_LARGE: Final = "results_too_large"
"""The reason of a mapped task that succeeded and whose results were not kept."""


class ValuesError(Exception):
    """Something of a task cannot be worked out; the text begins with which part."""


def refers(spec: DagTaskSpec) -> bool:
    """Whether the task has anything to be worked out."""
    return bool(spec.references or spec.when or spec.map)


def names(spec: DagTaskSpec) -> frozenset[str]:
    """The tasks that this one refers to."""
    return frozenset()


def holds(spec: DagTaskSpec, scope: Mapping[str, Any]) -> bool:
    """Whether the task's condition holds."""
    return True


def items(spec: DagTaskSpec, scope: Mapping[str, Any]) -> list[Any]:
    """The list that a mapped task runs over."""
    raise ValuesError("map: not yet")


def instant(spec: DagTaskSpec, scope: Mapping[str, Any]) -> datetime:
    """The instant that a task waits for."""
    assert spec.wait is not None and spec.wait.until is not None
    return datetime.fromisoformat(spec.wait.until)


def dag_input(spec: DagTaskSpec, scope: Mapping[str, Any]) -> bytes | None:
    """The input of the run that a task asks for, as JSON."""
    assert spec.dag is not None
    return None if spec.dag.input is None else msgspec.json.encode(spec.dag.input)


def worked_out(spec: DagTaskSpec, scope: Mapping[str, Any], *, item: int) -> dict[str, Any]:
    """The fields of `TaskInput` that hang on other tasks or on the item."""
    return {}
