"""Lists and shows runs of DAGs, those that have not begun too: each is named by its execution."""

from datetime import datetime
from typing import Any, Final

import asyncpg

from protocols.dag_views import DagRunDetail, DagRunView, SignalView
from protocols.dags import POOL
from protocols.durations import shown
from protocols.errors import NotFoundError
from protocols.ids import execution_id
from protocols.instants import iso
from protocols.views import Page
from runtime.postgres.dags.shapes import read_shape
from runtime.postgres.operations.cursors import cursor_of, number_of, page_size
from runtime.postgres.operations.dag_run_tasks import read_tasks, unbegun_tasks, with_path
from runtime.postgres.operations.executions import find_execution, is_ready
from runtime.postgres.operations.names import keys_ever
from runtime.postgres.operations.rows import seconds, value, when
from runtime.postgres.operations.session import Connection

# When an execution was born, which its public id tells. Indexes: executions_pkey;
# execution_history_id in the one partition of its instant.
_BORN: Final = """coalesce(
        (SELECT e.created_at FROM executions e WHERE e.id = {run}.run),
        (SELECT h.created_at FROM execution_history h
            WHERE h.tenant = {run}.tenant AND h.id = {run}.run
                AND h.scheduled_for = {run}.scheduled_for),
        {run}.started_at)"""

_COLUMNS: Final = f"""
    page.run, page.tenant, page.job_key, page.version, page.dag_id, page.scheduled_for, page.state,
    page.reason, page.open, page.failed, page.started_at, page.finished_at, page.deadline,
    page.input, v.tasks AS total, {_BORN.format(run="page")} AS born_at,
    up.run AS parent_run, up.born_at AS parent_born_at
"""
# Indexes: dag_versions_pkey, dag_runs_pkey.
_BESIDE: Final = f"""
JOIN dag_versions v ON v.job_key = page.job_key AND v.version = page.version
LEFT JOIN LATERAL (
    SELECT p.run, {_BORN.format(run="p")} AS born_at FROM dag_runs p
    WHERE p.run = page.parent_run
) AS up ON true
"""

# Index: dag_runs_all.
_LIST: Final = f"""
SELECT {_COLUMNS}
FROM (
    SELECT r.* FROM dag_runs r WHERE r.tenant = $1 AND r.run < $2 ORDER BY r.run DESC LIMIT $3
) AS page
{_BESIDE}
ORDER BY page.run DESC
"""
# Index: dag_runs_newest, for each job that had the name.
_LIST_DAG: Final = f"""
SELECT {_COLUMNS}
FROM (
    SELECT found.* FROM unnest($4::bigint[]) AS k (job_key)
    CROSS JOIN LATERAL (
        SELECT r.* FROM dag_runs r
        WHERE r.tenant = $1 AND r.job_key = k.job_key AND r.run < $2
        ORDER BY r.run DESC LIMIT $3
    ) AS found
    ORDER BY found.run DESC LIMIT $3
) AS page
{_BESIDE}
ORDER BY page.run DESC
"""
# Index: dag_runs_pkey.
_SHOW: Final = f"""
SELECT {_COLUMNS}
FROM (SELECT r.* FROM dag_runs r WHERE r.tenant = $1 AND r.run = $2) AS page
{_BESIDE}
"""
# Index: dag_runs_pkey.
_STATE: Final = "SELECT state FROM dag_runs WHERE tenant = $1 AND run = $2"
# Index: dag_versions_pkey.
_TOTAL: Final = """
SELECT v.tasks FROM dag_versions v WHERE v.tenant = $1 AND v.job_key = $2 AND v.version = $3
"""
# Index: dag_signals_pkey.
_SIGNALS: Final = """
SELECT name, payload, who, at FROM dag_signals WHERE tenant = $1 AND run = $2 ORDER BY at, name
"""

_STATES: Final = {"dead": "failed"}
"""How the state of a DAG's own execution reads where there is no run."""


async def list_runs(
    conn: Connection,
    *,
    tenant: str,
    dag_id: str | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> Page[DagRunView]:
    """A page of the runs that have begun, newest first; with `dag_id` also of deleted ones.

    Raises:
        NotFoundError: there never was such a DAG.
        InvalidError: the cursor is none of this list.
    """
    size = page_size(limit)
    before = number_of(cursor)
    if dag_id is None:
        rows = await conn.fetch(_LIST, tenant, before, size + 1)
    else:
        keys = await keys_ever(conn, tenant, dag_id)
        rows = await conn.fetch(_LIST_DAG, tenant, before, size + 1, keys)
    following = cursor_of(rows[size - 1]["run"]) if len(rows) > size else None
    return Page(tuple(DagRunView(**_fields(row)) for row in rows[:size]), following)


async def show_run(conn: Connection, *, tenant: str, run: str, now: datetime) -> DagRunDetail:
    """A run by its public id, with every task. Raises `NotFoundError`.

    Args:
        conn: within a transaction of the tenant.
        tenant: whose.
        run: the id of the DAG's execution.
        now: when it is looked at; by it what waits for its time is told from what is ready.
    """
    root = await find_run(conn, tenant, run)
    row = await conn.fetchrow(_SHOW, tenant, root["id"])
    shape = await read_shape(conn, root["job_key"], root["version"])
    signals: tuple[SignalView, ...] = ()
    if row is None:
        total = await conn.fetchval(_TOTAL, tenant, root["job_key"], root["version"])
        fields = _unbegun(root, ready=is_ready(root, now), total=total or 0)
        tasks, given = unbegun_tasks(shape), root["input"]
    else:
        fields = _fields(row)
        tasks = await read_tasks(
            conn, shape, tenant=tenant, run=root["id"], scheduled_for=row["scheduled_for"]
        )
        given = row["input"]
        signals = tuple(
            SignalView(
                name=found["name"],
                payload=value(found["payload"]),
                who=found["who"],
                at=iso(found["at"]),
            )
            for found in await conn.fetch(_SIGNALS, tenant, root["id"])
        )
    path: tuple[str, ...] = ()
    if fields["finished_at"] is not None:
        tasks, path = with_path(tasks)
    return DagRunDetail(
        **fields,
        input=value(given),
        error=root["error"],
        tasks=tasks,
        signals=signals,
        critical_path=path,
        at=iso(now),
    )


async def run_state(conn: Connection, *, tenant: str, run: str, now: datetime) -> str:
    """The state of a run, without its tasks. Raises `NotFoundError`."""
    root = await find_run(conn, tenant, run)
    state: str | None = await conn.fetchval(_STATE, tenant, root["id"])
    return _unbegun_state(root, ready=is_ready(root, now)) if state is None else state


async def find_run(conn: Connection, tenant: str, run: str) -> asyncpg.Record:
    """The row of a DAG's execution, in whichever table it is. Raises `NotFoundError`."""
    missing = f"there is no run {shown(run)}: `runtime dags runs` lists those there are"
    try:
        row = await find_execution(conn, tenant, run)
    except NotFoundError:
        raise NotFoundError(missing) from None
    if row["pool"] != POOL:
        hint = f"`runtime executions show {run}` shows the execution of that id"
        raise NotFoundError(f"{missing}; {hint}")
    return row


def _fields(row: asyncpg.Record) -> dict[str, Any]:
    up = row["parent_run"]
    return {
        "run_id": execution_id(row["run"], row["born_at"]),
        "tenant": row["tenant"],
        "dag_id": row["dag_id"],
        "version": row["version"],
        "state": row["state"],
        "reason": row["reason"],
        "scheduled_for": iso(row["scheduled_for"]),
        "started_at": iso(row["started_at"]),
        "finished_at": when(row["finished_at"]),
        "duration_s": seconds(row["started_at"], row["finished_at"]),
        "deadline": when(row["deadline"]),
        "total": row["total"],
        "open": row["open"],
        "failed": row["failed"],
        "parent_run_id": None if up is None else execution_id(up, row["parent_born_at"]),
    }


def _unbegun_state(root: asyncpg.Record, *, ready: bool) -> str:
    state: str = "ready" if ready else root["state"]
    return _STATES.get(state, state)


def _unbegun(root: asyncpg.Record, *, ready: bool, total: int) -> dict[str, Any]:
    """Of an execution that has no run: it waits, or it never came to one."""
    return {
        "run_id": execution_id(root["id"], root["created_at"]),
        "tenant": root["tenant"],
        "dag_id": root["job_id"],
        "version": root["version"],
        "state": _unbegun_state(root, ready=ready),
        "reason": root["reason"],
        "scheduled_for": iso(root["scheduled_for"]),
        "started_at": None,
        "finished_at": when(root["finished_at"]),
        "duration_s": None,
        "deadline": None,
        "total": total,
        "open": total,
        "failed": 0,
        "parent_run_id": None,
    }
