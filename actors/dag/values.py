"""What a task refers to, worked out when it is made ready: conditions, lists, inputs."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from protocols.dags import DagTaskSpec
from protocols.executions import INPUT_BYTES_MAX
from protocols.expression_values import TASK_STEPS_MAX, Work, truth
from protocols.expressions import ExpressionError, evaluate, parse, paths
from protocols.templates import as_text, expressions_in, render, task_ids

TOO_LARGE: Final = "results_too_large"
"""The reason of a mapped task that succeeded and whose results were not kept."""


class ValuesError(Exception):
    """Something of a task cannot be worked out; the text begins with which part."""


class Needs(msgspec.Struct, frozen=True):
    """What a task refers to."""

    texts: tuple[str, ...] = ()
    """What stands inside each reference of the task itself, but for those of its shell text."""
    tasks: frozenset[str] = frozenset()
    """The tasks that any of its expressions names."""
    item: bool = False
    """Whether it refers to its item."""
    any: bool = False
    """Whether there is any expression."""


def needs_of(spec: DagTaskSpec) -> Needs:
    """What this task refers to, in whatever part of it."""
    try:
        texts = expressions_in(msgspec.to_builtins(spec.task)) if spec.task is not None else ()
        every = [*texts, *spec.references]
        if spec.when is not None:
            every.append(spec.when)
        if spec.map is not None:
            every.append(spec.map.over)
        if spec.wait is not None and spec.wait.until is not None:
            every += expressions_in(spec.wait.until)
        if spec.dag is not None:
            every += expressions_in(spec.dag.input)
        names = frozenset[str]().union(*(task_ids(text) for text in every))
        item = any(path.keys[0] == "item" for text in every for path in paths(parse(text)))
    except ExpressionError as error:
        raise ValuesError(f"expression: {error}") from error
    return Needs(texts, names, item, bool(every))


def holds(spec: DagTaskSpec, scope: Mapping[str, Any]) -> bool:
    """Whether the task's condition holds; one that has none does."""
    return spec.when is None or truth(_value(spec.when, scope, "when"))


def items(spec: DagTaskSpec, scope: Mapping[str, Any]) -> list[Any]:
    """The list that a mapped task runs over."""
    assert spec.map is not None, "only a mapped task has items"
    found = _value(spec.map.over, scope, "map")
    if not isinstance(found, list):
        raise ValuesError("map: this is not a list")
    if len(found) > spec.map.limit:
        raise ValuesError(f"map: {len(found)} items, and its limit is {spec.map.limit}")
    return found


def instant(spec: DagTaskSpec, scope: Mapping[str, Any]) -> datetime:
    """The instant that a task waits for."""
    assert spec.wait is not None, "only a wait has an instant"
    assert spec.wait.until is not None, "only a wait for an instant is asked"
    text = _rendered(spec.wait.until, scope, "until")
    try:
        found = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise ValuesError("until: this is not an ISO-8601 instant") from None
    if found.tzinfo is None:
        raise ValuesError("until: the instant has no offset from UTC")
    return found


def dag_input(spec: DagTaskSpec, scope: Mapping[str, Any]) -> bytes | None:
    """The input of the run that a task asks for, as JSON."""
    assert spec.dag is not None, "only a run within a run has an input"
    if spec.dag.input is None:
        return None
    text = msgspec.json.encode(_rendered(spec.dag.input, scope, "input"))
    if len(text) > INPUT_BYTES_MAX:
        raise ValuesError(f"input: more than {INPUT_BYTES_MAX} bytes as JSON")
    return text


def worked_out(
    spec: DagTaskSpec, needs: Needs, scope: Mapping[str, Any], *, item: int
) -> dict[str, Any]:
    """The fields of `TaskInput` that hang on other tasks or on the item."""
    found: dict[str, Any] = {}
    work = Work(TASK_STEPS_MAX)
    if item >= 0:
        found["number"] = item
        found["item"] = _raw(scope["item"])
    if spec.references:
        found["refs"] = tuple(_raw(_value(text, scope, within=work)) for text in spec.references)
    if needs.texts:
        found["values"] = {text: _raw(_value(text, scope, within=work)) for text in needs.texts}
    return found


def variable(value: bytes) -> str:
    """A JSON value as a command's variable: text as it is, anything else as JSON."""
    return as_text(msgspec.json.decode(value))


def _value(
    text: str, scope: Mapping[str, Any], part: str = "expression", *, within: Work | None = None
) -> Any:
    try:
        return evaluate(text, scope, within=within)
    except ExpressionError as error:
        raise ValuesError(f"{part}: {error}") from error


def _rendered(value: Any, scope: Mapping[str, Any], part: str) -> Any:
    try:
        work = Work(TASK_STEPS_MAX)
        texts = expressions_in(value)
        return render(value, {text: evaluate(text, scope, within=work) for text in texts})
    except ExpressionError as error:
        raise ValuesError(f"{part}: {error}") from error


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
