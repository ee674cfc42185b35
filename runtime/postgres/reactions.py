"""The SQL that makes executions out of what happened, for events and for parents alike.

What is made waits its turn as `blocked: overlap`, and the step that gives turns lets it go: one
place decides who runs, whoever asked. Under `overlap: skip` nothing made here is dropped, under
`queue` at most 100 wait; a paused job's is recorded `skipped: paused`.
"""

from typing import Final

from runtime.postgres.moves import logged
from runtime.postgres.steps import changed

QUEUE_MOST: Final = 100
"""Executions of one job that wait their turn under `overlap: queue`."""


def reacting(asked: str) -> str:
    """Return the end of a step that makes one execution for each row of `asked`.

    `asked` is a relation (nth, job_key, input) inside a WITH; $1 is the instant they are asked for.
    Rows of jobs that are disabled or deleted make nothing.
    """
    return f"""
known AS MATERIALIZED (
    SELECT nextval('execution_ids') AS id, ordered.*
    FROM (
        SELECT a.job_key, a.input, j.tenant, j.job_id, j.version, j.paused, v.needs, v.overlap,
            v.pool, v.priority, v.limit_key, v.expires_s, v.at_most_once, v.max_lost
        FROM {asked} a
        JOIN jobs j ON j.job_key = a.job_key AND j.enabled AND j.deleted_at IS NULL
        JOIN job_versions v ON v.job_key = j.job_key AND v.version = j.version
        ORDER BY a.nth
    ) AS ordered
), ranked AS (
    SELECT k.*, row_number() OVER (PARTITION BY k.job_key ORDER BY k.id) + CASE
        WHEN k.overlap <> 'queue' THEN 0
        ELSE (SELECT count(*) FROM executions e
            WHERE e.job_key = k.job_key AND e.state = 'blocked' AND e.reason = 'overlap')
    END AS place
    FROM known k
), placed AS MATERIALIZED (
    SELECT r.*, CASE
        WHEN r.paused THEN 'paused'
        WHEN r.overlap = 'queue' AND r.place > {QUEUE_MOST} THEN 'overlap'
    END AS skipped
    FROM ranked r
), made AS (
    INSERT INTO executions (id, created_at, tenant, job_id, job_key, version, needs, origin,
        scheduled_for, pool, priority, state, reason, overlap, limit_key, run_at, expires_at,
        at_most_once, max_lost, input)
    SELECT id, $1, tenant, job_id, job_key, version, needs, id, $1, pool, priority,
        CASE overlap WHEN 'allow' THEN 'scheduled' ELSE 'blocked' END,
        CASE overlap WHEN 'allow' THEN NULL ELSE 'overlap' END,
        overlap,
        limit_key,
        $1,
        $1 + make_interval(secs => expires_s),
        at_most_once,
        max_lost,
        convert_to(input::text, 'UTF8')
    FROM placed WHERE skipped IS NULL
    RETURNING id, job_key, state, pool
), history AS (
    INSERT INTO execution_history (id, created_at, tenant, job_id, job_key, version, needs,
        origin, scheduled_for, pool, priority, state, reason, finished_at, input)
    SELECT id, $1, tenant, job_id, job_key, version, needs, id, $1, pool, priority, 'skipped',
        skipped, $1, convert_to(input::text, 'UTF8')
    FROM placed WHERE skipped IS NOT NULL
), told AS (
    {logged("made", kind="'triggered'", at="$1", states="state")}
), told_skipped AS (
    {
        logged(
            "(SELECT id, job_key FROM placed WHERE skipped IS NOT NULL) AS passed",
            kind="'skipped'",
            at="$1",
            states="'skipped'",
        )
    }
)
{changed("made", pools="pool")}
"""  # noqa: S608
