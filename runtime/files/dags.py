"""Reads one DAG, from a file or from Python: a job whose task is a graph of tasks."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from protocols.dags import MAX_LOST, POOL, TIMEOUT_S, DagTask, OnFailure, TaskRole
from protocols.durations import shown
from protocols.errors import InvalidError, Problem
from protocols.input_schema import check_input, schema_problems
from protocols.jobs import JobSpec, Retry
from protocols.schedules import Calendar
from runtime.files.dag_tasks import (
    EDGES_MAX,
    TASKS_MAX,
    ReadTask,
    read_dag_task,
    read_defaults,
    task_name,
)
from runtime.files.fields import Fields, Refused, choice, job_name, plain, seconds
from runtime.files.graphs import Ancestry, Names, cycle_in, in_order, spelled
from runtime.files.jobs import close, named_calendars, read_due, read_shared
from runtime.files.places import Path
from runtime.files.references import reference_problems

_HANDLERS: Final[Mapping[str, TaskRole]] = {
    "on_success_task": "on_success",
    "on_failure_task": "on_failure",
    "finally_task": "finally",
}
_OF_TASKS: Final = (
    "max_retries",
    "max_lost",
    "retry",
    "pool",
    "guarantee",
    "heartbeat",
    "checkpoint",
    "command",
    "cwd",
    "env",
    "success_exit_codes",
    "python",
    "args",
    "kwargs",
    "isolation",
    "http",
)


def read_dag(
    raw: object,
    path: Path,
    problems: list[Problem],
    *,
    tenant: str,
    calendars: Mapping[str, Calendar],
) -> list[tuple[JobSpec, Path]]:
    """The DAG that `raw` describes, then its tasks' hidden jobs, each with its place.

    Empty, and problems, where anything of it is wrong.
    """
    before = len(problems)
    fields = Fields(raw, path, problems, what="a DAG: a mapping of fields")
    dag_id = fields.take("dag_id", _dag_name, "")
    if not dag_id and "dag_id" not in fields and isinstance(raw, Mapping):
        fields.refuse((), "a DAG needs its dag_id")
    schedule, due = read_due(fields)
    shared = read_shared(fields)
    timeout_s = fields.take("timeout", seconds, TIMEOUT_S)
    on_failure: OnFailure = fields.take(
        "on_failure", choice("fail_fast", "fail_downstream", "continue"), "fail_downstream"
    )
    for field in _OF_TASKS:
        if field in fields:
            fields.refuse((field,), f"`{field}` is of a task: put it there, or in `defaults`")
        fields.raw(field)
    inputs = _inputs(fields, asked=schedule is None and not due["dependencies"])
    tasks = _tasks(fields, tenant=tenant, dag_id=dag_id)
    roles = _roles(fields, tasks)
    close(fields)
    _check_graph(tasks, roles, problems)
    if len(problems) > before:
        return []
    by_id = {task.task_id: task for task in tasks}
    order = in_order({task.task_id: task.dependencies for task in tasks})
    order.sort(key=lambda task_id: task_id in roles)
    specs = []
    jobs: list[tuple[JobSpec, Path]] = []
    for task_id in order:
        task = by_id[task_id]
        assert task.spec is not None
        assert task.job is not None
        specs.append(msgspec.structs.replace(task.spec, role=roles.get(task_id, "task")))
        jobs.append((task.job, task.path))
    root = JobSpec(
        tenant=tenant,
        job_id=dag_id,
        task=DagTask(tasks=tuple(specs), on_failure=on_failure, inputs=inputs),
        schedule=schedule,
        calendars=named_calendars(schedule, calendars),
        timeout_s=timeout_s,
        pool=POOL,
        retry=Retry(max_lost=MAX_LOST),
        **due,
        **shared,
    )
    return [(root, path), *jobs]


def _dag_name(value: object) -> str:
    """A job's id, and none that is a word of `/dags/...` and `runtime dags` itself."""
    if value == "runs":
        raise Refused('"runs" means the runs of all DAGs wherever a DAG is named: take another id')
    return job_name(value)


def _inputs(fields: Fields, *, asked: bool) -> dict[str, Any] | None:
    """The schema of a run's input; who begins by a schedule has none, and so needs defaults."""
    schema: Any = fields.take("inputs", plain, None)
    if schema is None:
        return None
    problems = schema_problems(schema)
    for problem in problems:
        fields.refuse(("inputs", *problem.path), problem.message, of_key=problem.of_key)
    if problems:
        return None
    if not asked:
        try:
            check_input(schema, None)
        except InvalidError as error:
            for problem in error.problems:
                text = f"{problem.message}, and a run by schedule or dependency has no input"
                fields.refuse(("inputs",), f"{text}: give it a default")
    return dict(schema)


def _tasks(fields: Fields, *, tenant: str, dag_id: str) -> list[ReadTask]:
    raw = fields.raw("tasks")
    defaults = read_defaults(fields)
    if not isinstance(raw, list | tuple) or not raw:
        fields.refuse(("tasks",) if "tasks" in fields else (), "a DAG needs a list of tasks")
        return []
    if len(raw) > TASKS_MAX:
        fields.refuse(("tasks",), f"a DAG has at most {TASKS_MAX:,} tasks; here are {len(raw):,}")
        return []
    tasks = [
        read_dag_task(
            one,
            (*fields.path, "tasks", i),
            fields.problems,
            tenant=tenant,
            dag_id=dag_id,
            defaults=defaults,
        )
        for i, one in enumerate(raw)
    ]
    edges = sum(len(task.dependencies) for task in tasks)
    if edges > EDGES_MAX:
        text = f"the tasks of a DAG have at most {EDGES_MAX:,} dependencies; here are {edges:,}"
        fields.refuse(("tasks",), f"{text}: let a task stand between layers that all wait")
    return tasks


def _roles(fields: Fields, tasks: Sequence[ReadTask]) -> dict[str, TaskRole]:
    known = Names(task.task_id for task in tasks)
    roles: dict[str, TaskRole] = {}
    for field, role in _HANDLERS.items():
        task_id: Any = fields.take(field, task_name, None)
        if task_id is None:
            continue
        if task_id not in known:
            fields.refuse((field,), known.missing(task_id))
        elif task_id in roles:
            fields.refuse((field,), f"{shown(task_id)} handles another end already")
        roles.setdefault(task_id, role)
    return roles


def _check_graph(
    tasks: Sequence[ReadTask], roles: Mapping[str, TaskRole], problems: list[Problem]
) -> None:
    known: dict[str, ReadTask] = {}
    for task in tasks:
        if task.task_id and known.setdefault(task.task_id, task) is not task:
            text = f"{shown(task.task_id)} is a task of this DAG already"
            problems.append(Problem((*task.path, "task_id"), text))
    names = Names(known)
    for task in tasks:
        for i, parent in enumerate(task.dependencies):
            path = (*task.path, "dependencies", i)
            if parent not in known:
                problems.append(Problem(path, names.missing(parent)))
            elif parent in roles:
                text = f"{shown(parent)} handles the end of a run: nothing can wait for it"
                problems.append(Problem(path, text))
        if task.task_id in roles:
            problems += [
                Problem((*task.path, field), f"a task that handles the end of a run has no {field}")
                for field in ("dependencies", "trigger", "map")
                if field in task.given
            ]
    parents = {task.task_id: task.dependencies for task in known.values()}
    cycle = cycle_in(parents)
    if cycle is not None:
        text = f"the tasks wait for each other in a circle: {spelled(cycle)}"
        first = next(task for task_id, task in known.items() if task_id in set(cycle))
        problems.append(Problem((*first.path, "dependencies"), text))
        return
    _check_references(known, names, roles, parents, problems)


def _check_references(
    known: Mapping[str, ReadTask],
    names: Names,
    roles: Mapping[str, TaskRole],
    parents: Mapping[str, Sequence[str]],
    problems: list[Problem],
) -> None:
    """Whether each reference can be worked out; for what is no direct parent, all are looked at."""
    every: Ancestry | None = None
    body = frozenset(known.keys() - roles.keys())
    for task_id, task in known.items():
        if not task.references:
            continue
        ancestors = body if task_id in roles else frozenset(parents[task_id])
        for reference in task.references:
            said = reference_problems(
                reference, task_id=task_id, mapped=task.mapped, known=names, ancestors=ancestors
            )
            if any(said) and task_id not in roles:
                every = every or Ancestry(parents)
                said = reference_problems(
                    reference,
                    task_id=task_id,
                    mapped=task.mapped,
                    known=names,
                    ancestors=every.of(task_id),
                )
            problems += [Problem((*task.path, *reference.path), text) for text in said]
