"""What a DAG is, once its file has been read: tasks, what each waits for, and what failure means.

A DAG is a job whose task is a `DagTask`: its schedule, overlap, misfire and triggers are a job's.
Each of its tasks is a hidden job named `dag_id/task_id`, which no job of a user's can be named, in
the DAG's own version; each run of a task is an execution of it.
"""

from typing import Any, Final, Literal

import msgspec

from protocols.tasks import CommandTask, HttpTask, PythonTask

OnFailure = Literal["fail_fast", "fail_downstream", "continue"]
TaskTrigger = Literal[
    "all_succeeded", "all_done", "one_succeeded", "one_failed", "none_failed", "always"
]
RunState = Literal["running", "paused", "succeeded", "failed", "cancelled"]
TaskState = Literal[
    "blocked", "waiting", "scheduled", "running", "succeeded", "failed", "skipped", "cancelled"
]
"""`waiting`: for a signal, an instant or a sub-DAG, without a worker's slot; `scheduled`: its
execution is in the queue."""
TaskRole = Literal["task", "on_success", "on_failure", "finally"]

FINAL_TASK: Final[frozenset[TaskState]] = frozenset({"succeeded", "failed", "skipped", "cancelled"})
FINAL_RUN: Final[frozenset[RunState]] = frozenset({"succeeded", "failed", "cancelled"})

POOL: Final = "@dags"
"""Where executions of DAGs are claimed, by DagActors; no pool of a user's can be named so."""
MAX_LOST: Final = 32_767
"""How often a DAG's execution may be lost with its node: a run outlives any number of nodes."""
TIMEOUT_S: Final = 366 * 86_400.0
"""Of a DAG that names none."""
SEPARATOR: Final = "/"
"""Between a DAG's id and a task's in the id of the task's hidden job."""


class Map(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`map:`: the task runs once for each item of a list; at most `limit` items."""

    over: str
    """What stands inside one `${{ ... }}`."""
    parallelism: int = 16
    limit: int = 1_000


class Wait(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`wait:`: for a signal or an instant; held in the database, without a worker's slot.

    Exactly one of `signal` and `until` is set. `until` is an instant in ISO-8601, or a text with
    `${{ ... }}`, braces and all, that yields one. A signal that has not come within `timeout_s`
    fails the task.
    """

    signal: str | None = None
    until: str | None = None
    timeout_s: float | None = None


class SubDag(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`dag:`: a run of another DAG of the tenant, whose input may hold `${{ ... }}`."""

    dag_id: str
    input: Any = None


class DagTaskSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One task of a DAG; exactly one of `task`, `wait` and `dag` is set.

    What of a task is also a job's (timeout, retries, pool ...) stands in its hidden job. In `task`
    each `${{ ... }}` of a command's text has become `"$RUNTIME_REF_n"`, and what stood inside it is
    `references[n]`; elsewhere (list commands, env, args, kwargs, http) the text stands as it was.
    """

    task_id: str
    task: CommandTask | PythonTask | HttpTask | None = None
    wait: Wait | None = None
    dag: SubDag | None = None
    dependencies: tuple[str, ...] = ()
    trigger: TaskTrigger = "all_succeeded"
    when: str | None = None
    """What stands inside one `${{ ... }}`; where it is false the task is `skipped: condition`."""
    map: Map | None = None
    references: tuple[str, ...] = ()
    role: TaskRole = "task"


class DagTask(msgspec.Struct, frozen=True, kw_only=True, tag="dag", omit_defaults=True):
    """The task of a job that is a DAG; tasks in topological order, handlers last."""

    tasks: tuple[DagTaskSpec, ...]
    on_failure: OnFailure = "fail_downstream"
    inputs: dict[str, Any] | None = None
    """A JSON schema of an object, by which the input of a run is checked; None takes any."""


class TaskInput(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a task's execution has as its input, as JSON; an attempt sees its parts.

    Everything that the task refers to was worked out when it was made ready, so that each attempt
    sees the same.
    """

    run_id: str
    task_id: str
    input: msgspec.Raw = msgspec.Raw(b"null")
    """The run's."""
    number: int | None = None
    """Of a mapped task: the place of this item in the list,"""
    item: msgspec.Raw = msgspec.Raw(b"null")
    """and the item."""
    refs: tuple[msgspec.Raw, ...] = ()
    """The values of `DagTaskSpec.references`, in their order."""
    values: dict[str, msgspec.Raw] = {}
    """The values of what else stands in the task, by the text of each `${{ ... }}`."""


def job_id_of(dag_id: str, task_id: str) -> str:
    """The id of a task's hidden job."""
    return f"{dag_id}{SEPARATOR}{task_id}"


def dag_of(job_id: str) -> str:
    """The id of the DAG that a hidden job is a task of; of any other job its own."""
    return job_id.partition(SEPARATOR)[0]


def is_hidden(job_id: str) -> bool:
    """Whether a job is a task of a DAG."""
    return SEPARATOR in job_id
