"""Forgets runs that were over long ago, a bounded number of rows at a time."""

from datetime import datetime
from typing import Final

from runtime.postgres.pool import Pool

ROWS_AT_ONCE: Final = 10_000
"""Rows of tasks that one statement deletes."""
RUNS_AT_ONCE: Final = 1_000

# dag_runs_finished, then dag_tasks_pkey. A run's tasks go first, so that a large one goes in parts;
# whoever retries it meanwhile holds its lock, and it is passed over.
_FORGET_TASKS: Final = f"""
WITH old AS MATERIALIZED (
    SELECT r.run FROM dag_runs r
    WHERE r.finished_at < $1 AND r.finished_at IS NOT NULL
    ORDER BY r.finished_at LIMIT {RUNS_AT_ONCE} FOR UPDATE SKIP LOCKED
), chosen AS MATERIALIZED (
    SELECT t.at FROM old
    CROSS JOIN LATERAL (
        SELECT k.ctid AS at FROM dag_tasks k WHERE k.run = old.run ORDER BY k.run, k.number, k.item
        LIMIT {ROWS_AT_ONCE}
    ) AS t
    LIMIT {ROWS_AT_ONCE}
), gone AS (
    DELETE FROM dag_tasks WHERE ctid = ANY(ARRAY(SELECT at FROM chosen)) RETURNING run
)
SELECT count(*) AS gone FROM gone
"""

_FORGET_RUNS: Final = f"""
WITH old AS MATERIALIZED (
    SELECT r.run FROM dag_runs r
    WHERE r.finished_at < $1 AND r.finished_at IS NOT NULL
        AND (SELECT true FROM dag_tasks k WHERE k.run = r.run LIMIT 1) IS NOT TRUE
    ORDER BY r.finished_at LIMIT {RUNS_AT_ONCE} FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM dag_runs WHERE run = ANY(ARRAY(SELECT run FROM old)) RETURNING run
)
SELECT count(*) AS gone FROM gone
"""


async def forget_runs(pool: Pool, *, before: datetime) -> None:
    """Forget runs that ended before then, with all their tasks and signals."""
    while (await pool.fetch(_FORGET_TASKS, before))[0]["gone"] >= ROWS_AT_ONCE:
        pass
    await pool.fetch(_FORGET_RUNS, before)
