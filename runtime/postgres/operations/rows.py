"""Turns rows of `executions` and `execution_history` into what users read."""

from typing import Any, Final

import asyncpg
import msgspec

from protocols.dags import POOL, TaskInput, is_hidden
from protocols.ids import execution_id
from protocols.instants import iso
from protocols.jobs import PRIORITIES
from protocols.views import AttemptView, ExecutionView

# Both tables by the same columns. `ready` and `delayed` are how people read two stored states:
# a scheduled row whose time has come, and one kept out of its job's turn until its time comes.
HOT: Final = """
    e.id, e.created_at, e.tenant, e.job_id, e.job_key, e.version, e.origin, e.scheduled_for, e.run,
    e.pool, e.priority,
    CASE WHEN e.state = 'blocked' AND e.reason = 'delayed' THEN 'scheduled' ELSE e.state END
        AS state,
    nullif(e.reason, 'delayed') AS reason,
    e.run_at, e.attempt, e.fencing_token, e.incarnation, e.started_at, e.cancel_requested,
    NULL::timestamptz AS finished_at, NULL::integer AS exit_code, NULL::text AS error,
    NULL::bytea AS result, e.input, NULL::timestamptz AS last_scheduled_for, 1 AS instants
"""
FILED: Final = """
    h.id, h.created_at, h.tenant, h.job_id, h.job_key, h.version, h.origin, h.scheduled_for, h.run,
    h.pool, h.priority, h.state, h.reason,
    NULL::timestamptz AS run_at, h.attempt, h.fencing_token, h.incarnation, h.started_at,
    false AS cancel_requested,
    h.finished_at, h.exit_code, h.error, h.result, h.input, h.last_scheduled_for, h.instants
"""


class _Task(msgspec.Struct, frozen=True):
    """What of a `TaskInput` names the task; the rest is passed over."""

    run_id: str
    task_id: str


def execution_fields(row: asyncpg.Record, *, ready: bool) -> dict[str, Any]:
    """The fields of an `ExecutionView` of a row with the columns above and the `node`'s name."""
    started, finished = row["started_at"], row["finished_at"]
    public_id = execution_id(row["id"], row["created_at"])
    dag_run_id, task_id = _of_dag(row, public_id)
    return {
        "execution_id": public_id,
        "tenant": row["tenant"],
        "job_id": row["job_id"],
        "dag_run_id": dag_run_id,
        "task_id": task_id,
        "scheduled_for": iso(row["scheduled_for"]),
        "state": "ready" if ready else row["state"],
        "reason": row["reason"],
        "run": row["run"],
        "attempt": row["attempt"],
        "fencing_token": row["fencing_token"],
        "priority": PRIORITIES[row["priority"]],
        "pool": row["pool"],
        "node": row["node"],
        "created_at": iso(row["created_at"]),
        "run_at": when(row["run_at"]),
        "started_at": when(started),
        "finished_at": when(finished),
        "duration_s": seconds(started, finished),
        "exit_code": row["exit_code"],
        "error": row["error"],
        "result": value(row["result"]),
        "version": row["version"],
        "cancel_requested": row["cancel_requested"],
        "last_scheduled_for": when(row["last_scheduled_for"]),
        "instants": row["instants"],
    }


def _of_dag(row: asyncpg.Record, public_id: str) -> tuple[str | None, str | None]:
    """The run of a DAG that an execution is, or is a task of; and which task."""
    if row["pool"] == POOL:
        return public_id, None
    if not is_hidden(row["job_id"]) or row["input"] is None:
        return None, None
    given = msgspec.json.decode(row["input"], type=_Task)
    return given.run_id, given.task_id


def given_to(row: asyncpg.Record) -> Any:
    """What an execution was given as its input; a task of a DAG has its run's."""
    if is_hidden(row["job_id"]) and row["input"] is not None:
        return msgspec.json.decode(msgspec.json.decode(row["input"], type=TaskInput).input)
    return value(row["input"])


def execution_view(row: asyncpg.Record, *, ready: bool) -> ExecutionView:
    """A row as lists show it."""
    return ExecutionView(**execution_fields(row, ready=ready))


def attempt_view(row: asyncpg.Record) -> AttemptView:
    """A row of `attempts`, with the `node`'s name."""
    return AttemptView(
        attempt=row["attempt"],
        run=row["run"],
        state=row["state"],
        reason=row["reason"],
        fencing_token=row["fencing_token"],
        node=row["node"],
        started_at=when(row["started_at"]),
        finished_at=when(row["finished_at"]),
        duration_s=seconds(row["started_at"], row["finished_at"]),
        exit_code=row["exit_code"],
        error=row["error"],
    )


def when(instant: Any) -> str | None:
    """An instant as text, where there is one."""
    return None if instant is None else iso(instant)


def seconds(started: Any, finished: Any) -> float | None:
    """How long it took, where both are known."""
    if started is None or finished is None:
        return None
    return max(0.0, float((finished - started).total_seconds()))


def value(stored: bytes | None) -> Any:
    """A stored JSON value; None where there is none."""
    return None if stored is None else msgspec.json.decode(stored)
