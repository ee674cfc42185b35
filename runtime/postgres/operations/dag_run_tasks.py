"""The tasks of one run as people read them: their rows, and what their executions say beside."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import asyncpg
import msgspec

from actors.dag.critical_path import Span, critical
from actors.dag.shape import Shape, TaskShape
from protocols.dag_views import DagRunTaskView, ItemView
from protocols.ids import execution_id
from protocols.instants import epoch_us
from runtime.postgres.operations.dags import kind_of, parents_of
from runtime.postgres.operations.rows import seconds, when
from runtime.postgres.operations.session import Connection

ITEMS_MAX: Final = 1000
"""How many items of one mapped task are told; their states are counted to the last."""
_ERROR_CHARS_MAX: Final = 500
_US_S: Final = 1_000_000

# All rows of a run, each with its last execution: under way by executions_pkey, over by
# execution_history_id in the one partition of the run's instant, which is its tasks' as well. A
# task that is a run of another DAG has an execution of another instant: it is looked for apart.
# Index: dag_tasks_pkey.
_READ: Final = f"""
SELECT t.number, t.item, t.state, t.reason, t.cause, t.execution, t.executions, t.wake_at,
    coalesce(t.started_at, e.started_at, h.started_at) AS started_at, t.finished_at, t.marked_by,
    e.state AS live, coalesce(e.attempt, h.attempt) AS attempt,
    coalesce(e.created_at, h.created_at) AS born_at, h.error
FROM dag_tasks t
LEFT JOIN LATERAL (
    SELECT x.state, x.attempt, x.created_at,
        CASE WHEN x.state = 'running' THEN x.started_at END AS started_at
    FROM executions x WHERE x.tenant = $1 AND x.id = t.execution LIMIT 1
) AS e ON t.state NOT IN ('succeeded', 'failed', 'skipped', 'cancelled')
LEFT JOIN LATERAL (
    SELECT x.attempt, x.created_at, x.started_at, left(x.error, {_ERROR_CHARS_MAX}) AS error
    FROM execution_history x
    WHERE x.tenant = $1 AND x.id = t.execution AND x.scheduled_for = $3 LIMIT 1
) AS h ON true
WHERE t.tenant = $1 AND t.run = $2 AND t.item >= -1
ORDER BY t.run, t.number, t.item
"""
# Index: execution_history_id.
_ELSEWHERE: Final = f"""
SELECT x.id, x.attempt, x.created_at, left(x.error, {_ERROR_CHARS_MAX}) AS error
FROM execution_history x WHERE x.tenant = $1 AND x.id = ANY($2::bigint[])
"""


async def read_tasks(
    conn: Connection, shape: Shape, *, tenant: str, run: int, scheduled_for: datetime
) -> tuple[DagRunTaskView, ...]:
    """Every task of a run that has begun, in topological order."""
    rows = await conn.fetch(_READ, tenant, run, scheduled_for)
    lost = [r["execution"] for r in rows if r["execution"] is not None and r["born_at"] is None]
    beside = {}
    if lost:
        beside = {row["id"]: row for row in await conn.fetch(_ELSEWHERE, tenant, lost)}
    items: dict[int, list[asyncpg.Record]] = {}
    for row in rows:
        if row["item"] >= 0:
            items.setdefault(row["number"], []).append(row)
    return tuple(
        _task(shape, shape.tasks[row["number"]], row, items.get(row["number"]), beside)
        for row in rows
        if row["item"] < 0 and row["number"] < len(shape.tasks)
    )


def unbegun_tasks(shape: Shape) -> tuple[DagRunTaskView, ...]:
    """The tasks of a run that has not begun: all are blocked."""
    return tuple(
        DagRunTaskView(
            **_of_version(shape, task),
            state="blocked",
            reason=None,
            cause=None,
            started_at=None,
            finished_at=None,
            duration_s=None,
            attempts=0,
            executions=0,
            execution_id=None,
            wake_at=None,
            marked_by=None,
            error=None,
            items=None,
            item_states=None,
            critical=False,
            slack_s=None,
        )
        for task in shape.tasks
    )


def with_path(
    tasks: Sequence[DagRunTaskView],
) -> tuple[tuple[DagRunTaskView, ...], tuple[str, ...]]:
    """The tasks of a finished run with their slack, and the ids on its critical path.

    Handlers wait for all that is no handler, and `finally` for the others as well.
    """
    numbers = {task.task_id: n for n, task in enumerate(tasks)}
    plain = tuple(n for n, task in enumerate(tasks) if task.role == "task")
    spans = []
    for task in tasks:
        if task.role == "task":
            parents = tuple(numbers[p] for p in task.parents)
        elif task.role == "finally":
            parents = tuple(n for n, other in enumerate(tasks) if other.role != "finally")
        else:
            parents = plain
        spans.append(
            Span(
                parents=parents,
                started_us=_us(task.started_at),
                finished_us=_us(task.finished_at),
            )
        )
    found = critical(spans)
    on_path = set(found.path)
    marked = tuple(
        msgspec.structs.replace(
            task, critical=n in on_path, slack_s=None if slack is None else slack / _US_S
        )
        for n, (task, slack) in enumerate(zip(tasks, found.slack_us, strict=True))
    )
    return marked, tuple(tasks[n].task_id for n in found.path)


def _us(text: str | None) -> int | None:
    return None if text is None else epoch_us(datetime.fromisoformat(text))


def _of_version(shape: Shape, task: TaskShape) -> dict[str, Any]:
    return {
        "task_id": task.task_id,
        "parents": parents_of(shape, task),
        "role": task.role,
        "trigger": task.trigger,
        "kind": kind_of(task.spec),
    }


def _task(
    shape: Shape,
    task: TaskShape,
    row: asyncpg.Record,
    items: Sequence[asyncpg.Record] | None,
    beside: dict[int, asyncpg.Record],
) -> DagRunTaskView:
    states = None
    if items is not None:
        states = dict(sorted(Counter(_state(item) for item in items).items()))
    far = beside.get(row["execution"])
    return DagRunTaskView(
        **_of_version(shape, task),
        **_progress(row, far),
        cause=row["cause"],
        executions=row["executions"],
        wake_at=when(row["wake_at"]),
        marked_by=row["marked_by"],
        error=row["error"] if far is None else far["error"],
        items=None
        if items is None
        else tuple(
            ItemView(item=item["item"], **_progress(item, beside.get(item["execution"])))
            for item in items[:ITEMS_MAX]
        ),
        item_states=states,
        critical=False,
        slack_s=None,
    )


def _progress(row: asyncpg.Record, far: asyncpg.Record | None) -> dict[str, Any]:
    """What tasks and items have in common."""
    told = row if far is None else {**dict(row), "attempt": far["attempt"]}
    born = row["born_at"] if far is None else far["created_at"]
    known = row["execution"] is not None and born is not None
    return {
        "state": _state(row),
        "reason": row["reason"],
        "started_at": when(row["started_at"]),
        "finished_at": when(row["finished_at"]),
        "duration_s": seconds(row["started_at"], row["finished_at"]),
        "attempts": told["attempt"] or 0,
        "execution_id": execution_id(row["execution"], born) if known else None,
    }


def _state(row: asyncpg.Record) -> str:
    """A task's row says `scheduled` from the insert of its execution to its end."""
    state: str = row["state"]
    return "running" if state == "scheduled" and row["live"] == "running" else state
