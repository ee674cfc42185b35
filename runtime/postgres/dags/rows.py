"""The rows of runs and of their tasks: as they are read, changed in hand, and written at once.

Nobody writes a task's row without its run's lock, so what was read under it stays true.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

import asyncpg

from actors.dag.rules import Run, Task
from runtime.postgres.pool import Session

Key = tuple[int, int, int]
"""(run, number, item); item -1 is the task itself."""


class TaskRow(Task, kw_only=True):
    """A row of `dag_tasks`; `result` only where it was set in hand."""

    run: int
    item: int = -1
    execution: int | None = None
    executions: int = 0
    wake_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    result: bytes | None = None
    marked_by: str | None = None
    dirty: bool = False

    @property
    def key(self) -> Key:
        """Its place."""
        return (self.run, self.number, self.item)


class RunRow(Run, kw_only=True):
    """A row of `dag_runs`; `born_at` is None where its root is final, or gone."""

    run: int
    tenant: str
    job_key: int
    version: int
    dag_id: str
    scheduled_for: datetime
    input: bytes | None = None
    started_at: datetime
    deadline: datetime | None = None
    finished_at: datetime | None = None
    born_at: datetime | None = None
    root_run: int = 1
    root_now: int | None = None
    """The `run` of its root, where that is not final."""


_RUN_COLUMNS: Final = (
    "r.run, r.tenant, r.job_key, r.version, r.dag_id, r.scheduled_for, r.state, r.reason, r.open, "
    "r.failed, r.handlers, r.cancelling, r.input, r.started_at, r.deadline, r.finished_at, "
    "r.root_run"
)

# dag_runs_pkey, in the order given.
_LOCK: Final = f"""
SELECT r.*, e.created_at AS born_at, e.run AS root_now
FROM unnest($1::bigint[]) AS u(run)
CROSS JOIN LATERAL (
    SELECT {_RUN_COLUMNS} FROM dag_runs r WHERE r.run = u.run LIMIT 1 FOR NO KEY UPDATE
) AS r
LEFT JOIN LATERAL (
    SELECT x.created_at, x.run FROM executions x WHERE x.id = u.run LIMIT 1
) AS e ON true
"""

# executions_pkey.
_ROOTS: Final = """
SELECT e.id, e.created_at, e.run
FROM unnest($1::bigint[]) AS u(run)
CROSS JOIN LATERAL (
    SELECT x.id, x.created_at, x.run FROM executions x WHERE x.id = u.run LIMIT 1
) AS e
"""

_TASK_COLUMNS: Final = (
    "k.run, k.number, k.item, k.state, k.reason, k.cause, k.pending, k.succeeded, k.failed, "
    "k.skipped, k.execution, k.executions, k.wake_at, k.started_at, k.finished_at, k.marked_by"
)

# dag_tasks_pkey.
_READ: Final = f"""
SELECT k.*
FROM unnest($1::bigint[], $2::integer[], $3::integer[]) AS u(run, number, item)
CROSS JOIN LATERAL (
    SELECT {_TASK_COLUMNS} FROM dag_tasks k
    WHERE k.run = u.run AND k.number = u.number AND k.item = u.item LIMIT 1
) AS k
"""

# dag_tasks_pkey: all tasks of a run, and of mapped ones the items that are not over.
_READ_RUN: Final = f"""
SELECT {_TASK_COLUMNS} FROM dag_tasks k
WHERE k.run = $1
    AND (k.item = -1 OR k.state NOT IN ('succeeded', 'failed', 'skipped', 'cancelled'))
ORDER BY k.run, k.number, k.item
"""

# dag_tasks_pkey.
_READ_ITEMS: Final = f"""
SELECT {_TASK_COLUMNS} FROM dag_tasks k
WHERE k.run = $1 AND k.number = $2 AND k.item >= $4 AND k.state = 'blocked'
ORDER BY k.run, k.number, k.item
LIMIT $3
"""

# By ctid, since a probe is driven by the arrays then whatever the table's statistics say.
_WRITE: Final = """
UPDATE dag_tasks t SET state = u.state, reason = u.reason, cause = u.cause, pending = u.pending,
    succeeded = u.succeeded, failed = u.failed, skipped = u.skipped, execution = u.execution,
    executions = u.executions, wake_at = u.wake_at, started_at = u.started_at,
    finished_at = u.finished_at, result = CASE WHEN u.keeps THEN t.result ELSE u.result END,
    marked_by = u.marked_by
FROM (
    SELECT n.*, k.at
    FROM unnest($1::bigint[], $2::integer[], $3::integer[], $4::text[], $5::text[], $6::text[],
        $7::integer[], $8::integer[], $9::integer[], $10::integer[], $11::bigint[],
        $12::integer[], $13::timestamptz[], $14::timestamptz[], $15::timestamptz[], $16::bytea[],
        $17::text[], $18::boolean[])
        AS n(run, number, item, state, reason, cause, pending, succeeded, failed, skipped,
            execution, executions, wake_at, started_at, finished_at, result, marked_by, keeps)
    CROSS JOIN LATERAL (
        SELECT x.ctid AS at FROM dag_tasks x
        WHERE x.run = n.run AND x.number = n.number AND x.item = n.item LIMIT 1
    ) AS k
) AS u
WHERE t.ctid = u.at
"""

_WRITE_RUNS: Final = """
UPDATE dag_runs t SET state = u.state, reason = u.reason, open = u.open, failed = u.failed,
    handlers = u.handlers, cancelling = u.cancelling, finished_at = u.finished_at,
    root_run = u.root_run, deadline = u.deadline
FROM (
    SELECT n.*, k.at
    FROM unnest($1::bigint[], $2::text[], $3::text[], $4::integer[], $5::integer[], $6::text[],
        $7::boolean[], $8::timestamptz[], $9::integer[], $10::timestamptz[])
        AS n(run, state, reason, open, failed, handlers, cancelling, finished_at, root_run,
            deadline)
    CROSS JOIN LATERAL (
        SELECT x.ctid AS at FROM dag_runs x WHERE x.run = n.run LIMIT 1
    ) AS k
) AS u
WHERE t.ctid = u.at
"""

# dag_ended_pkey: what is written of runs, and taken account of, by one statement.
_WRITE_RUNS_AND_FORGET: Final = f"""
WITH accounted AS (
    DELETE FROM dag_ended WHERE execution = ANY($11::bigint[])
)
{_WRITE_RUNS.lstrip()}"""

# dag_ended_pkey. Those below 0 name runs.
_LOOK: Final = """
INSERT INTO dag_ended (execution, tenant, state, finished_at)
SELECT -r.run, r.tenant, 'look', $2 FROM unnest($1::bigint[], $3::text[]) AS r(run, tenant)
ON CONFLICT (execution) DO NOTHING
"""


async def lock_runs(
    session: Session, runs: Iterable[int], *, roots_anew: bool = False
) -> dict[int, RunRow]:
    """Lock these runs, in order, and read them; those that are gone are not among the answer.

    What is said of a root may be of before the lock, for which another was waited. `roots_anew`:
    the caller decides by it. An open run without one is asked for again in any case.
    """
    rows = await session.fetch(_LOCK, sorted(set(runs)))
    found = {row["run"]: RunRow(**dict(row)) for row in rows}
    doubtful = [
        run.run
        for run in found.values()
        if roots_anew or (run.born_at is None and run.finished_at is None)
    ]
    if doubtful:
        roots = {row["id"]: row for row in await session.fetch(_ROOTS, doubtful)}
        for key in doubtful:
            root = roots.get(key)
            found[key].born_at = None if root is None else root["created_at"]
            found[key].root_now = None if root is None else root["run"]
    return found


async def read_tasks(session: Session, keys: Iterable[Key]) -> list[TaskRow]:
    """These rows, as far as there are any."""
    ordered = sorted(keys)
    rows = await session.fetch(
        _READ, [k[0] for k in ordered], [k[1] for k in ordered], [k[2] for k in ordered]
    )
    return [_task(row) for row in rows]


async def read_run(session: Session, run: int) -> list[TaskRow]:
    """All tasks of a run, and the open items of those that are mapped."""
    return [_task(row) for row in await session.fetch(_READ_RUN, run)]


async def read_items(
    session: Session, run: int, number: int, count: int, *, first: int
) -> list[TaskRow]:
    """Up to `count` items of a mapped task that have not begun, in their order, from `first` on."""
    rows = await session.fetch(_READ_ITEMS, run, number, count, first)
    return [_task(row) for row in rows]


async def write_tasks(session: Session, tasks: Sequence[TaskRow], *, now: datetime) -> None:
    """Write these rows as they are in hand."""
    if not tasks:
        return
    ordered = sorted(tasks, key=lambda t: t.key)
    for task in ordered:
        if not task.final:
            task.finished_at = None
        elif task.finished_at is None:
            task.finished_at = now
    await session.execute(
        _WRITE,
        [t.run for t in ordered],
        [t.number for t in ordered],
        [t.item for t in ordered],
        [t.state for t in ordered],
        [t.reason for t in ordered],
        [t.cause for t in ordered],
        [t.pending for t in ordered],
        [t.succeeded for t in ordered],
        [t.failed for t in ordered],
        [t.skipped for t in ordered],
        [t.execution for t in ordered],
        [t.executions for t in ordered],
        [t.wake_at for t in ordered],
        [t.started_at for t in ordered],
        [t.finished_at for t in ordered],
        [t.result for t in ordered],
        [t.marked_by for t in ordered],
        [t.result is None and t.state == "succeeded" for t in ordered],
    )
    for task in ordered:
        task.dirty = False


async def write_runs(
    session: Session, runs: Iterable[RunRow], *, accounted: Sequence[int] = ()
) -> None:
    """Write these runs as they are in hand; and forget the ends that were taken account of."""
    ordered = sorted(runs, key=lambda r: r.run)
    if ordered or accounted:
        await session.execute(
            _WRITE_RUNS_AND_FORGET if accounted else _WRITE_RUNS,
            [r.run for r in ordered],
            [r.state for r in ordered],
            [r.reason for r in ordered],
            [r.open for r in ordered],
            [r.failed for r in ordered],
            [r.handlers for r in ordered],
            [r.cancelling for r in ordered],
            [r.finished_at for r in ordered],
            [r.root_run for r in ordered],
            [r.deadline for r in ordered],
            *([list(accounted)] if accounted else []),
        )


async def leave_looks(session: Session, runs: Sequence[tuple[int, str]], *, now: datetime) -> None:
    """Have a DagActor look at these runs (run, tenant), which the caller has locked.

    A look that somebody has taken and not finished waits for that lock, so one is enough.
    """
    if runs:
        await session.execute(_LOOK, [run for run, _ in runs], now, [tenant for _, tenant in runs])


def _task(row: asyncpg.Record) -> TaskRow:
    return TaskRow(**dict(row))
