"""Reads one DAG, from a file or from Python: a job whose task is a graph of tasks."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from protocols.dags import MAX_LOST, POOL, TIMEOUT_S, DagTask, OnFailure, TaskRole
from protocols.errors import Problem
from protocols.jobs import JobSpec, Retry
from protocols.schedules import Calendar
from runtime.files.dag_tasks import TASKS_MAX, ReadTask, read_dag_task, task_name
from runtime.files.fields import Fields, choice, job_name, seconds
from runtime.files.graphs import cycle_in, in_order, no_task, spelled
from runtime.files.jobs import close, named_calendars, read_due, read_shared
from runtime.files.places import Path

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
    dag_id = fields.take("dag_id", job_name, "")
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
    tasks = _tasks(fields, tenant=tenant, dag_id=dag_id)
    roles = _roles(fields, tasks)
    close(fields)
    if len(problems) == before:
        _check_graph(tasks, problems)
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
        task=DagTask(tasks=tuple(specs), on_failure=on_failure),
        schedule=schedule,
        calendars=named_calendars(schedule, calendars),
        timeout_s=timeout_s,
        pool=POOL,
        retry=Retry(max_lost=MAX_LOST),
        **due,
        **shared,
    )
    return [(root, path), *jobs]


def _tasks(fields: Fields, *, tenant: str, dag_id: str) -> list[ReadTask]:
    raw = fields.raw("tasks")
    defaults = fields.raw("defaults")
    if defaults is not None and not isinstance(defaults, Mapping):
        fields.refuse(("defaults",), "this is not a mapping")
        defaults = None
    if not isinstance(raw, list | tuple) or not raw:
        fields.refuse(("tasks",) if "tasks" in fields else (), "a DAG needs a list of tasks")
        return []
    if len(raw) > TASKS_MAX:
        fields.refuse(("tasks",), f"a DAG has at most {TASKS_MAX:,} tasks; here are {len(raw):,}")
        return []
    return [
        read_dag_task(
            one,
            (*fields.path, "tasks", i),
            fields.problems,
            tenant=tenant,
            dag_id=dag_id,
            defaults=defaults or {},
        )
        for i, one in enumerate(raw)
    ]


def _roles(fields: Fields, tasks: Sequence[ReadTask]) -> dict[str, TaskRole]:
    known = [task.task_id for task in tasks]
    roles: dict[str, TaskRole] = {}
    for field, role in _HANDLERS.items():
        task_id: Any = fields.take(field, task_name, None)
        if task_id is None:
            continue
        if task_id not in known:
            fields.refuse((field,), no_task(task_id, known))
        roles[task_id] = role
    return roles


def _check_graph(tasks: Sequence[ReadTask], problems: list[Problem]) -> None:
    known = {task.task_id: task for task in tasks}
    names = list(known)
    for task in tasks:
        if known[task.task_id] is not task:
            problems.append(Problem((*task.path, "task_id"), f'"{task.task_id}" stands here twice'))
        problems += [
            Problem((*task.path, "dependencies", i), no_task(parent, names))
            for i, parent in enumerate(task.dependencies)
            if parent not in known
        ]
    parents = {task.task_id: task.dependencies for task in tasks}
    cycle = cycle_in(parents)
    if cycle is not None:
        text = f"the tasks wait for each other in a circle: {spelled(cycle)}"
        problems.append(Problem((*known[cycle[0]].path, "dependencies"), text))
