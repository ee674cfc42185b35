"""Reads one task of a DAG: a job's fields, less its schedule, and what it waits for."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from protocols.dags import DagTaskSpec, Map, SubDag, TaskTrigger, Wait, job_id_of
from protocols.durations import shown
from protocols.errors import Problem
from protocols.expressions import ExpressionError
from protocols.jobs import JobSpec
from protocols.tasks import NoTask
from protocols.templates import OPEN, only_expression
from runtime.files.fields import (
    Fields,
    Refused,
    choice,
    distinct,
    filled,
    job_name,
    list_of,
    name,
    plain,
    seconds,
    text,
    whole,
)
from runtime.files.jobs import close, read_running, read_shared
from runtime.files.places import Path
from runtime.files.references import Reference, references_of, shell_references
from runtime.files.tasks import KINDS, read_plain

TASKS_MAX: Final = 20_000
EDGES_MAX: Final = 200_000
"""Dependencies of all tasks of a DAG."""
ITEMS_MAX: Final = 10_000
PARALLELISM_MAX: Final = 1_000
TRIGGERS: Final = (
    "all_succeeded",
    "all_done",
    "one_succeeded",
    "one_failed",
    "none_failed",
    "always",
)
task_name = job_name
_HELD: Final = ("wait", "dag")
"""What is held in the database, and no worker runs."""
_OF_KIND: Final[Mapping[str, tuple[str, ...]]] = {
    "command": ("cwd", "env", "success_exit_codes"),
    "python": ("args", "kwargs", "isolation"),
}
_OF_WORKERS: Final = (
    *("timeout", "max_retries", "retry", "max_lost", "pool", "priority", "expires"),
    *("concurrency", "guarantee", "heartbeat", "checkpoint"),
)
_OWN: Final = ("task_id", "dependencies", "when", "map", *KINDS, *_HELD)
"""What each task says for itself."""
_OF_DAG: Final[Mapping[str, str]] = {
    **dict.fromkeys(("schedule", "timezone", "on"), "a task begins with its DAG: put this there"),
    "overlap": "whether runs may overlap is the DAG's: put this there",
    "on_dependency_failure": "what a task does when others fail is its `trigger`",
    "dependency_timeout": "a DAG has a `timeout`, and so has a wait",
    "enabled": "a task cannot be disabled: give it a `when`",
}


class ReadTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task as it stands, before the DAG as a whole was looked at."""

    task_id: str
    path: Path
    given: frozenset[str]
    """The fields that stand in the task itself."""
    dependencies: tuple[str, ...]
    references: tuple[Reference, ...]
    mapped: bool
    spec: DagTaskSpec | None
    """None where anything in it is wrong."""
    job: JobSpec | None


def read_dag_task(
    raw: object,
    path: Path,
    problems: list[Problem],
    *,
    tenant: str,
    dag_id: str,
    defaults: Mapping[str, Any],
) -> ReadTask:
    """The task that `raw` describes; problems are added, those of a default at its own place."""
    found: list[Problem] = []
    given = raw if isinstance(raw, Mapping) else {}
    merged = {**_applying(defaults, given), **given} if isinstance(raw, Mapping) else raw
    fields = Fields(merged, path, found, what="a task: a mapping of fields")
    task_id = fields.take("task_id", task_name, "")
    if not task_id and "task_id" not in fields and isinstance(raw, Mapping):
        fields.refuse((), "a task needs its task_id")
    dependencies = fields.take("dependencies", _dependencies, ())
    trigger: TaskTrigger = fields.take("trigger", choice(*TRIGGERS), "all_succeeded")
    when = fields.take("when", _condition, None)
    mapped, wait, dag = _map(fields), _wait(fields), _sub_dag(fields)
    kinds = [kind for kind in (*KINDS, *_HELD) if kind in fields]
    if len(kinds) != 1 and isinstance(raw, Mapping):
        here = " and ".join(kinds) if kinds else "none"
        fields.refuse((), f"a task does one of command, python, http, wait and dag; here is {here}")
    _refuse_others(fields, given, kinds)
    task, shell = shell_references(read_plain(fields, references=True), found, path)
    references = references_of(
        task, shell=shell, when=when, mapped=mapped, wait=wait, dag=dag, problems=found, path=path
    )
    values = read_shared(fields) | read_running(fields)
    close(fields)
    spec = job = None
    if not found:
        spec = DagTaskSpec(
            task_id=task_id,
            task=task,
            wait=wait,
            dag=dag,
            dependencies=dependencies,
            trigger=trigger,
            when=when,
            map=mapped,
            references=shell,
        )
        job = JobSpec(
            tenant=tenant,
            job_id=job_id_of(dag_id, task_id),
            task=task or NoTask(),
            overlap="allow",
            **values,
        )
    home = (*path[:-2], "defaults")
    problems += [_at_home(problem, len(path), given, defaults, home) for problem in found]
    return ReadTask(
        task_id=task_id,
        path=path,
        given=frozenset(map(str, given)),
        dependencies=dependencies,
        references=tuple(references),
        mapped=mapped is not None,
        spec=spec,
        job=job,
    )


def read_defaults(fields: Fields) -> dict[str, Any]:
    """What holds for the tasks of a DAG that do not say otherwise."""
    raw = fields.raw("defaults")
    if raw is None:
        return {}
    if not isinstance(raw, Mapping):
        fields.refuse(("defaults",), "this is not a mapping")
        return {}
    for key in raw:
        if key in _OWN:
            fields.refuse(("defaults", key), "each task says this for itself", of_key=True)
    return {str(key): value for key, value in raw.items() if key not in _OWN}


def _applying(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults that mean something to a task of this kind."""
    others = {name for kind, names in _OF_KIND.items() if given.get(kind) is None for name in names}
    if any(given.get(kind) is not None for kind in _HELD):
        others.update(_OF_WORKERS)
    return {name: value for name, value in defaults.items() if name not in others}


def _at_home(
    problem: Problem,
    depth: int,
    given: Mapping[str, Any],
    defaults: Mapping[str, Any],
    home: Path,
) -> Problem:
    """What is wrong with a default is told where it stands, and so only once for all tasks."""
    field = problem.path[depth] if len(problem.path) > depth else None
    if field in defaults and field not in given:
        return msgspec.structs.replace(problem, path=(*home, *problem.path[depth:]))
    return problem


def _refuse_others(fields: Fields, given: Mapping[str, Any], kinds: list[str]) -> None:
    for field, why in _OF_DAG.items():
        if field in fields:
            fields.refuse((field,), why)
        fields.raw(field)
    if len(kinds) != 1 or kinds[0] not in _HELD:
        return
    for field in _OF_WORKERS:
        if given.get(field) is not None:
            text = "no worker runs a wait" if kinds == ["wait"] else "this is of the DAG that runs"
            fields.refuse((field,), f"{text}: leave it out")
    if kinds == ["wait"] and "map" in fields:
        fields.refuse(("map",), "a wait cannot be mapped")


def _dependencies(value: object) -> tuple[str, ...]:
    return distinct(list_of(task_name, most=TASKS_MAX)(value))


def _condition(value: object) -> str:
    try:
        found = only_expression(filled(value))
    except ExpressionError as error:
        raise Refused(str(error)) from None
    if found is None:
        raise Refused(f"{shown(value)} is not one ${{{{ ... }}}} and nothing else")
    return found


def _map(fields: Fields) -> Map | None:
    raw = fields.raw("map")
    if raw is None:
        return None
    if not isinstance(raw, Mapping):
        over = fields.take("map", _condition, None)
        return None if over is None else Map(over=over)
    inner = _inner(fields, "map", "a ${{ ... }}, or {over, parallelism, limit}")
    over = inner.take("over", _condition, None)
    parallelism = inner.take("parallelism", whole(1, PARALLELISM_MAX), 16)
    limit = inner.take("limit", whole(1, ITEMS_MAX), 1_000)
    inner.close()
    if "over" not in inner:
        inner.refuse((), "a map needs what it goes `over`")
    return None if over is None else Map(over=over, parallelism=parallelism, limit=limit)


def _wait(fields: Fields) -> Wait | None:
    if fields.raw("wait") is None:
        return None
    inner = _inner(fields, "wait", "{signal: NAME, timeout: DURATION} or {until: INSTANT}")
    signal = inner.take("signal", name, None)
    until = inner.take("until", _until, None)
    timeout_s = inner.take("timeout", seconds, None)
    inner.close()
    if ("signal" in inner) == ("until" in inner):
        inner.refuse((), "a wait is for a signal, or until an instant: one of them")
    elif "until" in inner and "timeout" in inner:
        inner.refuse(("timeout",), "only a wait for a signal has a timeout")
    return Wait(signal=signal, until=until, timeout_s=timeout_s)


def _until(value: object) -> str:
    given = filled(value)
    if OPEN in given:
        if _taken(only_expression, given) is None:
            raise Refused("this is an instant, or one ${{ ... }} and nothing else")
        return given.strip()
    try:
        instant = datetime.fromisoformat(given)
    except ValueError:
        raise Refused(f"{shown(value)} is not an instant such as 2026-12-01T09:00:00Z") from None
    if instant.tzinfo is None:
        raise Refused(f"{shown(value)} needs its offset from UTC, such as Z or +01:00")
    return given


def _taken(rule: Callable[[str], str | None], given: str) -> str | None:
    try:
        return rule(given)
    except ExpressionError as error:
        raise Refused(str(error)) from None


def _sub_dag(fields: Fields) -> SubDag | None:
    raw = fields.raw("dag")
    if raw is None:
        return None
    if isinstance(raw, str):
        dag_id = fields.take("dag", job_name, None)
        return None if dag_id is None else SubDag(dag_id=dag_id)
    inner = _inner(fields, "dag", "a DAG's id, or {dag_id, input}")
    dag_id = inner.take("dag_id", job_name, None)
    given = inner.take("input", plain, None)
    inner.close()
    if "dag_id" not in inner and isinstance(raw, Mapping):
        inner.refuse((), "a sub-DAG needs its dag_id")
    return None if dag_id is None else SubDag(dag_id=dag_id, input=given)


def _inner(fields: Fields, field: str, what: str) -> Fields:
    return Fields(fields.raw(field), (*fields.path, field), fields.problems, what=text(what))
