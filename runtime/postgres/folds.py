"""Folds long runs of skipped instants, so that a job paused for a month costs a hundred rows.

Of consecutive instants of one version that were skipped for one reason the first 100 keep their
rows; those after are one row with the first, the last and how many. A folded row spans a week at
most, so that no instant is forgotten by more than that before its time. Folding again takes up
what was skipped since; two janitors at once fold each row once.
"""

from typing import Final

from runtime.postgres.pool import Pool

KEPT: Final = 100
"""Rows at the beginning of a run that stay as they are."""
SPAN_S: Final = 7 * 24 * 3600
"""The longest time between the first and the last instant of a folded row."""
JOBS_AT_ONCE: Final = 50
ROWS_AT_ONCE: Final = 10_000
"""How far back in a job's history one call looks; the rest of a longer run is the next call's."""

# execution_history_skipped, in the order of job keys, from where the last call ended.
_CANDIDATES: Final = f"""
SELECT job_key FROM execution_history
WHERE state = 'skipped' AND job_key > (SELECT number FROM event_readers WHERE name = 'folds')
GROUP BY job_key HAVING count(*) > {KEPT + 1}
ORDER BY job_key LIMIT {JOBS_AT_ONCE}
"""

# execution_history_instant. A run ends where the next instant became anything else, also where
# it is not final yet. From the first row that is past the run's first hundred, or folded already,
# on, each week of it folds into its own first row.
_FOLD: Final = f"""
WITH instants AS (
    (
        SELECT scheduled_for, version, state, reason, instants FROM execution_history
        WHERE job_key = $1 AND origin = 0
        ORDER BY scheduled_for DESC LIMIT {ROWS_AT_ONCE}
    )
    UNION ALL
    SELECT scheduled_for, version, state, NULL, 1 FROM executions WHERE job_key = $1 AND origin = 0
), marked AS (
    SELECT *, state = 'skipped' AND reason IS NOT DISTINCT FROM lag(reason) OVER instants_in_order
        AND lag(state) OVER instants_in_order = 'skipped'
        AND lag(version) OVER instants_in_order = version AS goes_on
    FROM instants
    WINDOW instants_in_order AS (ORDER BY scheduled_for)
), runs AS (
    SELECT *, count(*) FILTER (WHERE goes_on IS NOT TRUE) OVER (ORDER BY scheduled_for) AS run
    FROM marked
), numbered AS (
    SELECT *, row_number() OVER (PARTITION BY run ORDER BY scheduled_for) AS place
    FROM runs WHERE state = 'skipped'
), bounded AS (
    SELECT *, min(scheduled_for) FILTER (WHERE place > {KEPT} OR instants > 1)
        OVER (PARTITION BY run) AS beginning
    FROM numbered
), weeks AS (
    SELECT scheduled_for, min(scheduled_for) OVER (
        PARTITION BY run, floor(extract(epoch FROM scheduled_for - beginning) / {SPAN_S})
    ) AS first
    FROM bounded WHERE scheduled_for >= beginning
), firsts AS MATERIALIZED (
    SELECT h.scheduled_for
    FROM (SELECT DISTINCT first FROM weeks WHERE scheduled_for > first ORDER BY first) AS w
    CROSS JOIN LATERAL (
        SELECT scheduled_for FROM execution_history h
        WHERE h.job_key = $1 AND h.scheduled_for = w.first AND h.origin = 0 AND h.state = 'skipped'
        FOR UPDATE
    ) AS h
), members AS MATERIALIZED (
    SELECT w.first, h.*
    FROM (
        SELECT * FROM weeks
        WHERE scheduled_for > first AND first IN (SELECT scheduled_for FROM firsts)
        ORDER BY scheduled_for
    ) AS w
    CROSS JOIN LATERAL (
        SELECT scheduled_for, last_scheduled_for, instants FROM execution_history h
        WHERE h.job_key = $1 AND h.scheduled_for = w.scheduled_for AND h.origin = 0
            AND h.state = 'skipped'
        FOR UPDATE
    ) AS h
), gone AS (
    DELETE FROM execution_history
    WHERE job_key = $1 AND origin = 0
        AND scheduled_for BETWEEN (SELECT min(scheduled_for) FROM members)
            AND (SELECT max(scheduled_for) FROM members)
        AND (scheduled_for IN (SELECT scheduled_for FROM members)) IS TRUE
), grown AS (
    SELECT first, sum(instants) AS instants,
        max(coalesce(last_scheduled_for, scheduled_for)) AS last
    FROM members GROUP BY first
)
UPDATE execution_history h SET instants = h.instants + g.instants,
    last_scheduled_for = greatest(h.last_scheduled_for, g.last)
FROM grown g
WHERE h.job_key = $1 AND h.origin = 0 AND h.scheduled_for = g.first
"""

_NEXT: Final = "UPDATE event_readers SET number = $1 WHERE name = 'folds'"


async def fold(pool: Pool) -> None:
    """Fold the runs of the next jobs that have long ones, round and round over all jobs."""
    jobs = [row["job_key"] for row in await pool.fetch(_CANDIDATES)]
    for job in jobs:
        await pool.fetch(_FOLD, job)
    await pool.fetch(_NEXT, jobs[-1] if len(jobs) == JOBS_AT_ONCE else 0)
