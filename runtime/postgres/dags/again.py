"""Puts tasks of a run back to `blocked`, so that they are decided anew, and the run goes on."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, Literal

from actors.dag import rules
from actors.dag.shape import Shape
from runtime.postgres.dags.rows import RunRow, TaskRow, write_runs, write_tasks
from runtime.postgres.pool import Session

# dag_tasks_pkey. Items that did not succeed begin again; how many there are of either.
_ITEMS_AGAIN: Final = """
WITH again AS (
    UPDATE dag_tasks SET state = 'blocked', reason = NULL, cause = NULL, execution = NULL,
        wake_at = NULL, started_at = NULL, finished_at = NULL, result = NULL
    WHERE run = $1 AND number = $2 AND item >= 0 AND state IN ('failed', 'skipped', 'cancelled')
    RETURNING item
)
SELECT (SELECT count(*) FROM again) AS again, (
    SELECT count(*) FROM dag_tasks
    WHERE run = $1 AND number = $2 AND item >= 0 AND state = 'succeeded'
) AS done
"""
_FORGET_SIGNALS: Final = "DELETE FROM dag_signals WHERE run = $1 AND name = ANY($2::text[])"

# job_versions_pkey.
_DEADLINE: Final = """
SELECT $3::timestamptz + make_interval(secs => coalesce(
    (v.spec ->> 'timeout_s')::double precision, 31622400))
FROM job_versions v WHERE v.job_key = $1 AND v.version = $2
"""


async def put_back(
    session: Session,
    run: RunRow,
    shape: Shape,
    rows: Sequence[TaskRow],
    targets: Iterable[int] | Literal["failed"],
    *,
    downstream: bool,
    now: datetime,
) -> list[TaskRow]:
    """Retry these tasks, as `rules.to_reset` says; those put back. The run is locked.

    Of a mapped task that is retried by itself only the items that did not succeed begin again.
    """
    tasks = own_rows(rows)
    chosen = rules.to_reset(shape, tasks, targets, downstream=downstream)
    partly = [] if downstream else [n for n in chosen if _has_items(shape, tasks, chosen, n)]
    await decide_anew(session, run, shape, tasks, chosen)
    for number in sorted(partly):
        task = tasks[number]
        counts = await session.fetchrow(_ITEMS_AGAIN, run.run, number)
        assert counts is not None, "an aggregate has a row"
        if counts["again"]:
            task.state, task.started_at, task.pending = "running", now, counts["again"]
            task.succeeded, task.failed, task.skipped = counts["done"], 0, 0
    await go_on(session, run, shape, tasks, now=now)
    return [tasks[n] for n in sorted(chosen)]


def _has_items(shape: Shape, tasks: Sequence[TaskRow], chosen: set[int], number: int) -> bool:
    """Whether a mapped task ended by its items, and nothing before it begins again."""
    task = tasks[number]
    stopped = task.state in ("failed", "cancelled") and task.reason in (None, *rules.STOPS)
    return (
        shape.tasks[number].spec.map is not None
        and (task.reason == rules.ITEMS or stopped)
        and not chosen.intersection(shape.tasks[number].parents)
    )


async def decide_anew(
    session: Session, run: RunRow, shape: Shape, tasks: Sequence[TaskRow], chosen: Iterable[int]
) -> None:
    """Put these tasks back in hand, and forget the signals that those had which have begun."""
    numbers = sorted(chosen)
    rules.reset(shape, tasks, numbers)
    names = []
    for number in numbers:
        task, wait = tasks[number], shape.tasks[number].spec.wait
        if wait is not None and wait.signal is not None and task.started_at is not None:
            names.append(wait.signal)
        task.execution = task.result = task.marked_by = None
        task.wake_at = task.started_at = task.finished_at = None
        task.dirty = True
    if names:
        await session.execute(_FORGET_SIGNALS, run.run, names)


async def go_on(
    session: Session, run: RunRow, shape: Shape, tasks: Sequence[TaskRow], *, now: datetime
) -> None:
    """Write a run that goes on with these tasks, with a time of its own if it was over."""
    paused, reason = run.state == "paused", run.reason
    rules.recount(run, shape, tasks)
    if paused:
        run.state, run.reason = "paused", reason
    if run.finished_at is not None:
        run.deadline = await session.fetchval(_DEADLINE, run.job_key, run.version, now)
    run.finished_at = None
    run.root_run = run.root_now or run.root_run
    await write_tasks(session, [t for t in tasks if t.dirty], now=now)
    await write_runs(session, [run])


def own_rows(rows: Sequence[TaskRow]) -> list[TaskRow]:
    """The rows of tasks themselves, by their numbers; none of their items."""
    return sorted((r for r in rows if r.item < 0), key=lambda r: r.number)
