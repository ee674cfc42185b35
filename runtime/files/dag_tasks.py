"""Reads one task of a DAG: a job's fields, less its schedule, and what it waits for."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from protocols.dags import DagTaskSpec, SubDag, TaskTrigger, Wait, job_id_of
from protocols.errors import Problem
from protocols.jobs import JobSpec
from protocols.tasks import NoTask, PlainTask
from runtime.files.fields import Fields, choice, distinct, job_name, list_of
from runtime.files.jobs import close, read_running, read_shared
from runtime.files.places import Path
from runtime.files.tasks import read_task

TASKS_MAX: Final = 20_000
TRIGGERS: Final = (
    "all_succeeded",
    "all_done",
    "one_succeeded",
    "one_failed",
    "none_failed",
    "always",
)
task_name = job_name


class ReadTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task as it stands, before the DAG as a whole was looked at."""

    task_id: str
    path: Path
    raw: Mapping[str, Any]
    dependencies: tuple[str, ...]
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
    """The task that `raw` describes; problems are added."""
    before = len(problems)
    merged = {**defaults, **raw} if isinstance(raw, Mapping) else raw
    fields = Fields(merged, path, problems, what="a task: a mapping of fields")
    task_id = fields.take("task_id", task_name, "")
    if not task_id and "task_id" not in fields and isinstance(raw, Mapping):
        fields.refuse((), "a task needs its task_id")
    dependencies = fields.take("dependencies", _dependencies, ())
    trigger: TaskTrigger = fields.take("trigger", choice(*TRIGGERS), "all_succeeded")
    wait: Wait | None = None
    dag: SubDag | None = None
    task: PlainTask | None = read_task(fields)
    values = read_shared(fields) | read_running(fields)
    close(fields)
    spec = job = None
    if len(problems) == before:
        spec = DagTaskSpec(
            task_id=task_id,
            task=task,
            wait=wait,
            dag=dag,
            dependencies=dependencies,
            trigger=trigger,
        )
        job = JobSpec(
            tenant=tenant,
            job_id=job_id_of(dag_id, task_id),
            task=task or NoTask(),
            overlap="allow",
            **values,
        )
    return ReadTask(
        task_id=task_id,
        path=path,
        raw=raw if isinstance(raw, Mapping) else {},
        dependencies=dependencies,
        spec=spec,
        job=job,
    )


def _dependencies(value: object) -> tuple[str, ...]:
    return distinct(list_of(task_name, most=TASKS_MAX)(value))
