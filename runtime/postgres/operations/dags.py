"""Lists and shows DAGs; a page costs a page, whatever number of runs they have had."""

from typing import Any, Final

import asyncpg
import msgspec

from actors.dag.shape import Shape, TaskShape
from protocols.dag_views import DagDetail, DagTaskView, DagView
from protocols.dags import DagTaskSpec
from protocols.errors import NotFoundError
from protocols.ids import execution_id
from protocols.instants import iso
from protocols.tasks import CommandTask, HttpTask
from protocols.views import Page
from runtime.postgres.dags.shapes import read_shape
from runtime.postgres.operations.cursors import cursor_of, number_of, page_size
from runtime.postgres.operations.names import unknown
from runtime.postgres.operations.rows import when
from runtime.postgres.operations.session import Connection

# Indexes: jobs_pkey, schedules_pkey, dag_versions_pkey, dag_runs_newest; of the run's own execution
# executions_pkey, and execution_history_instant in one partition.
_BESIDE: Final = """
JOIN jobs j ON j.job_key = page.job_key
JOIN job_versions s ON s.job_key = page.job_key AND s.version = page.version
JOIN dag_versions v ON v.job_key = page.job_key AND v.version = page.version
LEFT JOIN schedules n ON n.job_key = page.job_key
LEFT JOIN LATERAL (
    SELECT r.run, r.state, coalesce(
        (SELECT e.created_at FROM executions e WHERE e.id = r.run),
        (SELECT h.created_at FROM execution_history h
            WHERE h.tenant = r.tenant AND h.id = r.run AND h.scheduled_for = r.scheduled_for),
        r.started_at) AS born_at
    FROM dag_runs r WHERE r.tenant = $1 AND r.job_key = page.job_key
    ORDER BY r.run DESC LIMIT 1
) AS last ON true
"""
_SHOWN: Final = """
    page.job_key, page.tenant, page.dag_id, page.version, j.enabled, j.paused, j.paused_reason,
    j.tags, j.source, v.on_failure, v.tasks, v.in_force_at, n.next_fire_at,
    s.spec -> 'schedule' ->> 'text' AS schedule,
    CASE WHEN s.spec ? 'schedule' THEN coalesce(s.spec -> 'schedule' ->> 'timezone', 'UTC') END
        AS timezone,
    (s.spec -> 'task' -> 'inputs')::text AS inputs,
    last.run AS last_run, last.state AS last_state, last.born_at
"""

# Index: dags_newest.
_LIST: Final = f"""
SELECT {_SHOWN}
FROM (
    SELECT d.job_key, d.tenant, d.dag_id, d.version FROM dags d
    WHERE d.tenant = $1 AND d.job_key < $2
    ORDER BY d.job_key DESC LIMIT $3
) AS page
{_BESIDE}
ORDER BY page.job_key DESC
"""

# Index: dags_name.
_SHOW: Final = f"""
SELECT {_SHOWN}
FROM (
    SELECT d.job_key, d.tenant, d.dag_id, d.version FROM dags d
    WHERE d.tenant = $1 AND d.dag_id = $2
) AS page
{_BESIDE}
"""


async def list_dags(
    conn: Connection, *, tenant: str, limit: int = 50, cursor: str | None = None
) -> Page[DagView]:
    """A page of DAGs, the one made last first.

    Raises:
        InvalidError: the cursor is none of this list.
    """
    size = page_size(limit)
    rows = await conn.fetch(_LIST, tenant, number_of(cursor), size + 1)
    following = cursor_of(rows[size - 1]["job_key"]) if len(rows) > size else None
    return Page(tuple(DagView(**_fields(row)) for row in rows[:size]), following)


async def show_dag(conn: Connection, *, tenant: str, dag_id: str) -> DagDetail:
    """A DAG with the tasks of the version in force. Raises `NotFoundError`."""
    row = await conn.fetchrow(_SHOW, tenant, dag_id)
    if row is None:
        raise await no_dag(conn, tenant, dag_id)
    shape = await read_shape(conn, row["job_key"], row["version"])
    return DagDetail(
        **_fields(row),
        task_list=tuple(task_view(shape, task) for task in shape.tasks),
        inputs=None if row["inputs"] is None else msgspec.json.decode(row["inputs"]),
        in_force_at=iso(row["in_force_at"]),
    )


async def no_dag(conn: Connection, tenant: str, dag_id: str) -> NotFoundError:
    """The error to raise for a DAG that is not there, or is a job."""
    error = await unknown(conn, tenant, dag_id)
    found = await conn.fetchval(
        "SELECT true FROM jobs WHERE tenant = $1 AND job_id = $2 AND deleted_at IS NULL",
        tenant,
        dag_id,
    )
    if found:
        return NotFoundError(f"{dag_id} is a job, and no DAG: `runtime jobs show {dag_id}`")
    return error


def task_view(shape: Shape, task: TaskShape) -> DagTaskView:
    """A task of a version as people read it."""
    return DagTaskView(
        task_id=task.task_id,
        kind=kind_of(task.spec),
        parents=parents_of(shape, task),
        trigger=task.trigger,
        role=task.role,
        when=task.spec.when,
        map=None if task.spec.map is None else task.spec.map.over,
    )


def parents_of(shape: Shape, task: TaskShape) -> tuple[str, ...]:
    """The ids of a task's parents."""
    return tuple(shape.tasks[number].task_id for number in task.parents)


def kind_of(spec: DagTaskSpec) -> str:
    """What a task is: a kind of work, a kind of wait, or a run of another DAG."""
    if spec.dag is not None:
        return "dag"
    if spec.wait is not None:
        return "signal" if spec.wait.signal is not None else "until"
    match spec.task:
        case CommandTask():
            return "command"
        case HttpTask():
            return "http"
        case _:
            return "python"


def _fields(row: asyncpg.Record) -> dict[str, Any]:
    last = row["last_run"]
    return {
        "tenant": row["tenant"],
        "dag_id": row["dag_id"],
        "schedule": row["schedule"],
        "timezone": row["timezone"],
        "enabled": row["enabled"],
        "paused": row["paused"],
        "paused_reason": row["paused_reason"],
        "next_fire_at": when(row["next_fire_at"]),
        "last_state": row["last_state"],
        "last_run_id": None if last is None else execution_id(last, row["born_at"]),
        "tasks": row["tasks"],
        "on_failure": row["on_failure"],
        "tags": tuple(row["tags"]),
        "source": row["source"],
        "version": row["version"],
    }
