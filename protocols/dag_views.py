"""What users read of DAGs and their runs, as JSON has them; by the rules of `protocols.views`."""

from typing import Any

import msgspec

from protocols.dags import OnFailure, TaskRole, TaskTrigger


class DagView(msgspec.Struct, frozen=True, kw_only=True):
    """A DAG as lists show it; `last_state` and `last_run_id` are of its newest run."""

    tenant: str
    dag_id: str
    schedule: str | None
    timezone: str | None
    enabled: bool
    paused: bool
    paused_reason: str | None
    next_fire_at: str | None
    last_state: str | None
    last_run_id: str | None
    tasks: int
    """How many, handlers among them."""
    on_failure: OnFailure
    tags: tuple[str, ...]
    source: str
    version: int


class DagTaskView(msgspec.Struct, frozen=True, kw_only=True):
    """A task of a DAG's version; `kind` is `command python http signal until dag`."""

    task_id: str
    kind: str
    parents: tuple[str, ...]
    trigger: TaskTrigger
    role: TaskRole
    when: str | None
    map: str | None


class DagDetail(DagView, frozen=True, kw_only=True):
    """A DAG with the tasks of the version in force, in topological order."""

    task_list: tuple[DagTaskView, ...]
    inputs: dict[str, Any] | None
    in_force_at: str


class DagRunView(msgspec.Struct, frozen=True, kw_only=True):
    """A run of a DAG; `run_id` is the id of the DAG's execution.

    `state` is `running paused succeeded failed cancelled`; of one that has not begun, or never
    will, it is its execution's (`scheduled ready blocked skipped`).
    """

    run_id: str
    tenant: str
    dag_id: str
    version: int
    state: str
    reason: str | None
    scheduled_for: str
    started_at: str | None
    finished_at: str | None
    duration_s: float | None
    deadline: str | None
    total: int
    """Tasks, handlers among them; items of mapped tasks are not counted."""
    open: int
    """Tasks that are not final, handlers not counted."""
    failed: int
    parent_run_id: str | None
    """Of a run that is a task of another: that one's."""


class ItemView(msgspec.Struct, frozen=True, kw_only=True):
    """One item of a mapped task."""

    item: int
    state: str
    reason: str | None
    started_at: str | None
    finished_at: str | None
    duration_s: float | None
    attempts: int
    execution_id: str | None


class DagRunTaskView(msgspec.Struct, frozen=True, kw_only=True):
    """A task of a run, as far as it has come.

    `cause` names the task whose failure this follows from. `attempts` are those of its last
    execution; `executions` counts retries by hand as well.
    """

    task_id: str
    state: str
    reason: str | None
    cause: str | None
    started_at: str | None
    finished_at: str | None
    duration_s: float | None
    attempts: int
    executions: int
    execution_id: str | None
    parents: tuple[str, ...]
    role: TaskRole
    trigger: TaskTrigger
    kind: str
    wake_at: str | None
    """Of what waits: until when, or how long for its signal."""
    marked_by: str | None
    error: str | None
    items: tuple[ItemView, ...] | None
    """Of a mapped task, the first thousand; `item_states` counts all."""
    item_states: dict[str, int] | None
    critical: bool
    """Of a finished run: whether it is on the critical path."""
    slack_s: float | None
    """How much later it could have ended without delaying the run's end."""


class SignalView(msgspec.Struct, frozen=True, kw_only=True):
    """A signal that a run was sent."""

    name: str
    payload: Any
    who: str
    at: str


class DagRunDetail(DagRunView, frozen=True, kw_only=True):
    """A run with every task, in topological order."""

    input: Any
    error: str | None
    tasks: tuple[DagRunTaskView, ...]
    signals: tuple[SignalView, ...]
    critical_path: tuple[str, ...]
    """Of a finished run: the tasks that its length came of, first one first."""
    at: str
    """When it was looked at."""


class TaskChanged(msgspec.Struct, frozen=True, kw_only=True):
    """What has become of a task since it was told of last."""

    task_id: str
    state: str
    reason: str | None
    cause: str | None
    started_at: str | None
    finished_at: str | None
    attempts: int
    item_states: dict[str, int] | None


class RunChanged(msgspec.Struct, frozen=True, kw_only=True):
    """One server-sent event of a run: its state, and the tasks that changed; first of all, all."""

    run: DagRunView
    states: dict[str, int]
    """How many tasks are in each state."""
    tasks: tuple[TaskChanged, ...]


class RunControlled(msgspec.Struct, frozen=True, kw_only=True):
    """What a change of a run came to: the run's state after it, and the tasks that it touched."""

    run_id: str
    dag_id: str
    state: str
    tasks: tuple[str, ...]
