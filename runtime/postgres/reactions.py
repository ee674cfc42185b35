"""The end of a statement that makes executions out of what happened: of events, and of parents."""

from runtime.postgres.placement import VERSION_COLUMNS, placing
from runtime.postgres.steps import changed


def reacting(wanted: str) -> str:
    """Return the CTEs and the answer that make one execution for each row of `wanted`.

    `wanted` is a relation (nth, job_key, input) of a WITH begun before; $1 is the instant they
    are asked for. A disabled or deleted job makes nothing, a paused one is `skipped: paused`; a
    delete under way is waited for. Under `overlap: skip` what is made here waits its turn and is
    never dropped.
    """
    return f"""
known AS (
    SELECT w.nth AS ord, w.job_key, w.input, j.version, j.paused
    FROM {wanted} w
    CROSS JOIN LATERAL (
        SELECT * FROM jobs j
        WHERE j.job_key = w.job_key AND j.enabled AND j.deleted_at IS NULL LIMIT 1
        FOR KEY SHARE
    ) AS j
    ORDER BY w.nth
), numbered AS MATERIALIZED (
    SELECT nextval('execution_ids') AS id, known.* FROM known
), asked AS MATERIALIZED (
    SELECT n.ord, n.id, n.id AS origin, n.job_key, n.version, $1::timestamptz AS scheduled_for,
        $1::timestamptz AS run_at, convert_to(n.input::text, 'UTF8') AS input,
        CASE WHEN n.paused THEN 'paused' END AS skip,
        NULL::timestamptz AS last, 1 AS instants, v.overlap = 'skip' AS patient,
        false AS delayed, false AS gated, {VERSION_COLUMNS}
    FROM numbered n
    CROSS JOIN LATERAL (
        SELECT * FROM job_versions v
        WHERE v.job_key = n.job_key AND v.version = n.version LIMIT 1
    ) AS v
), {placing("triggered")}
{changed("placed", pools="CASE placed.state WHEN 'scheduled' THEN pool END")}
"""
