"""Holds every `${{ ... }}` of a task to the language, and to what the task can know."""

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from protocols.dags import Map, SubDag, Wait
from protocols.durations import shown
from protocols.errors import Problem
from protocols.expressions import ExpressionError, PathNode, parse, paths, spelled
from protocols.shell_references import for_shell
from protocols.tasks import CommandTask, HttpTask, PlainTask, PythonTask
from protocols.templates import OPEN, expressions_in
from runtime.files.graphs import Names
from runtime.files.places import Path

_READ_AGAIN: Final = re.compile(r"-[A-Za-z]*c|--command")
_OF_RUN: Final = ("id", "scheduled_for")
_OF_TASK: Final = ("result", "state")
_TASK_KEYS: Final = 3
"""`tasks`, its id, and `result` or `state`."""


_KEY: Final = "a reference cannot be a key: only the values of a mapping are filled in"


class Reference(msgspec.Struct, frozen=True):
    """An expression, and where in its task it stands; `when` and `map` come before any item."""

    path: Path
    expression: str
    before_items: bool = False


def shell_references(
    task: PlainTask | None, problems: list[Problem], path: Path
) -> tuple[PlainTask | None, tuple[str, ...]]:
    """The task, what a shell reads freed of references, and what stood inside each."""
    if not isinstance(task, CommandTask) or task.shell is None:
        return task, ()
    try:
        text, expressions = for_shell(task.shell)
    except ExpressionError as error:
        problems.append(Problem((*path, "command"), str(error)))
        return task, ()
    return (msgspec.structs.replace(task, shell=text) if expressions else task), expressions


def references_of(
    task: PlainTask | None,
    *,
    shell: Sequence[str],
    when: str | None,
    mapped: Map | None,
    wait: Wait | None,
    dag: SubDag | None,
    problems: list[Problem],
    path: Path,
) -> list[Reference]:
    """Every reference of a task; one that has no end, or stands where none can, is a problem."""
    found = [Reference(("command",), text) for text in shell]
    if when is not None:
        found.append(Reference(("when",), when, before_items=True))
    if mapped is not None:
        found.append(Reference(("map",), mapped.over, before_items=True))
    for at, value in _values(task, wait, dag):
        problems += [Problem((*path, *at, *inner), _KEY) for inner in _keys(value)]
        try:
            found += [Reference(at, text) for text in expressions_in(value)]
        except ExpressionError as error:
            problems.append(Problem((*path, *at), str(error)))
    problems += [Problem((*path, *at), text) for at, text in _misplaced(task)]
    return found


def _values(
    task: PlainTask | None, wait: Wait | None, dag: SubDag | None
) -> Iterator[tuple[Path, Any]]:
    """What of a task may hold references, and where."""
    match task:
        case CommandTask():
            yield from ((("command", i), word) for i, word in enumerate(task.argv or ()))
            yield from ((("env", name), value) for name, value in task.env.items())
        case PythonTask():
            yield from ((("args", i), value) for i, value in enumerate(task.args))
            yield from ((("kwargs", name), value) for name, value in task.kwargs.items())
        case HttpTask():
            yield ("http", "url"), task.url
            yield from ((("http", "headers", key), value) for key, value in task.headers.items())
            yield ("http", "body"), task.body
    if wait is not None and wait.until is not None:
        yield ("wait", "until"), wait.until
    if dag is not None:
        yield ("dag", "input"), dag.input


def _keys(value: Any, path: Path = ()) -> Iterator[Path]:
    """The places of keys that hold a reference: keys stay as they are written."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if OPEN in str(key):
                yield (*path, str(key))
            yield from _keys(item, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _keys(item, (*path, i))


def _misplaced(task: PlainTask | None) -> Iterator[tuple[Path, str]]:
    if isinstance(task, HttpTask) and OPEN in (task.expect.body_contains or ""):
        yield ("http", "expect", "body_contains"), "a reference cannot stand here: use a `when`"
    if not isinstance(task, CommandTask):
        return
    if task.cwd is not None and OPEN in task.cwd:
        yield ("cwd",), "a reference cannot stand here: hand it over as an argument or in `env`"
    words = task.argv or ()
    if words and OPEN in words[0]:
        yield ("command", 0), "a reference cannot name the program that is run"
    for i, word in enumerate(words[1:], start=1):
        if OPEN in word and _READ_AGAIN.fullmatch(words[i - 1]):
            text = (
                "a reference cannot stand here: the text is read as a program, code in the value "
                "too; hand the value over as an argument after it, or in `env`"
            )
            yield ("command", i), text


def reference_problems(
    reference: Reference,
    *,
    task_id: str,
    mapped: bool,
    known: Names,
    ancestors: Container[str],
) -> list[str]:
    """What is wrong with a reference, a sentence each.

    Args:
        reference: of the task `task_id`; `mapped` where that has items.
        task_id: whose it is.
        mapped: whether the task has items.
        known: every task of the DAG.
        ancestors: those that have ended whenever this task begins.
    """
    told = f"${{{{ {reference.expression} }}}}"
    told = told if len(told) <= 80 else f"{told[:77]}..."  # noqa: PLR2004 - a line's width
    try:
        found = list(paths(parse(reference.expression)))
    except ExpressionError as error:
        return [f"{told}: {error}"]
    said = []
    for path in found:
        wrong = _wrong_path(path)
        if wrong is None and path.keys[0] == "item":
            wrong = _wrong_item(reference, mapped=mapped)
        elif wrong is None and path.keys[0] == "tasks":
            parent = str(path.keys[1])
            if parent not in ancestors:
                wrong = _no_ancestor(parent, task_id, known)
        if wrong is not None:
            said.append(f"{told}: {wrong}")
    return said


def _wrong_item(reference: Reference, *, mapped: bool) -> str | None:
    if not mapped:
        return "only a task with `map` has an item"
    if reference.before_items:
        return "here is no item yet: this is worked out once, for all of them"
    return None


def _no_ancestor(parent: str, task_id: str, known: Names) -> str:
    if parent == task_id:
        return "a task cannot refer to itself"
    if parent not in known:
        return known.missing(parent)
    return (
        f"{shown(parent)} need not have ended before {shown(task_id)} begins: name it in "
        "`dependencies`, or a task that depends on it"
    )


def _wrong_path(path: PathNode) -> str | None:
    root, *rest = path.keys
    if root == "run" and (len(rest) != 1 or rest[0] not in _OF_RUN):
        return f"of a run there are {' and '.join(f'run.{name}' for name in _OF_RUN)}"
    if root != "tasks":
        return None
    if len(path.keys) < _TASK_KEYS or rest[1] not in _OF_TASK or not isinstance(rest[0], str):
        example = spelled(("tasks", str(rest[0]) if rest else "ID"))
        hint = "; an id with a dot is written tasks['a.b']" if len(rest) > 1 else ""
        return f"of a task there are {example}.result and {example}.state{hint}"
    if rest[1] == "state" and len(path.keys) > _TASK_KEYS:
        return "a task's state is a word, and has nothing inside"
    return None
