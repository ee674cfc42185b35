"""Makes the runs of roots that a DagActor has claimed: each once, whoever claims it how often."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

import asyncpg

from runtime.postgres.dags.inputs import hold_to_inputs
from runtime.postgres.pool import Session

TASKS_AT_ONCE: Final = 20_000
"""Rows that one statement makes, unless one run has more."""

# What the root's row says, and its version: executions_pkey, job_versions_pkey. A run that there
# is already is left as it is.
_MAKE: Final = """
WITH wanted AS MATERIALIZED (
    SELECT e.*
    FROM unnest($2::bigint[], $3::bigint[]) AS u(id, token)
    CROSS JOIN LATERAL (
        SELECT x.id, x.run, x.tenant, x.job_key, x.version, x.job_id, x.scheduled_for, x.input
        FROM executions x
        WHERE x.id = u.id AND x.fencing_token = u.token AND x.incarnation = $1
            AND x.state = 'running'
        LIMIT 1
    ) AS e
), made AS (
    INSERT INTO dag_runs AS r (run, root_run, tenant, job_key, version, dag_id, scheduled_for,
        state, open, input, parent_run, parent_task, parent_item, started_at, deadline)
    SELECT w.id, w.run, w.tenant, w.job_key, w.version, w.job_id, w.scheduled_for,
        'running', t.open, w.input, p.run, p.number, p.item, $4::timestamptz,
        $4::timestamptz + make_interval(secs => t.timeout_s)
    FROM wanted w
    CROSS JOIN LATERAL (
        SELECT (
            SELECT count(*) FROM dag_version_tasks d
            WHERE d.job_key = w.job_key AND d.version = w.version AND d.role = 'task'
        ) AS open, (
            SELECT coalesce((v.spec ->> 'timeout_s')::double precision, 31622400)
            FROM job_versions v
            WHERE v.job_key = w.job_key AND v.version = w.version LIMIT 1
        ) AS timeout_s
    ) AS t
    LEFT JOIN LATERAL (
        SELECT k.run, k.number, k.item FROM dag_tasks k WHERE k.execution = w.id LIMIT 1
    ) AS p ON true
    ON CONFLICT (run) DO NOTHING
    RETURNING r.run, r.tenant, r.job_key, r.version, r.input, r.open
)
SELECT m.*, (
    SELECT (v.spec -> 'task' -> 'inputs')::text FROM job_versions v
    WHERE v.job_key = m.job_key AND v.version = m.version LIMIT 1
) AS takes
FROM made m ORDER BY m.run
"""
# dag_version_tasks_pkey.
_TASKS: Final = """
INSERT INTO dag_tasks (run, number, tenant, task_id, state, pending)
SELECT m.run, d.number, m.tenant, d.task_id, 'blocked', d.parents
FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::integer[])
    AS m(run, tenant, job_key, version)
CROSS JOIN LATERAL (
    SELECT t.number, t.task_id, t.parents FROM dag_version_tasks t
    WHERE t.job_key = m.job_key AND t.version = m.version
    ORDER BY t.number
) AS d
"""


async def make_runs(
    session: Session, incarnation: int, roots: Sequence[tuple[int, int]], *, now: datetime
) -> list[int]:
    """Make the runs of these roots (id, fencing token) that have none, with all tasks `blocked`.

    Returns them. A root whose token is not in force makes nothing; a run whose input its DAG does
    not take has ended already.
    """
    ordered = sorted(roots)
    made = await session.fetch(
        _MAKE, incarnation, [id_ for id_, _ in ordered], [token for _, token in ordered], now
    )
    if made:
        for part in _parts(made):
            await session.execute(
                _TASKS,
                [row["run"] for row in part],
                [row["tenant"] for row in part],
                [row["job_key"] for row in part],
                [row["version"] for row in part],
            )
        await hold_to_inputs(session, made, now=now)
    return [row["run"] for row in made]


def _parts(made: Sequence[asyncpg.Record]) -> Iterator[list[asyncpg.Record]]:
    """These runs, so that a statement makes no more tasks than it has the time for."""
    part: list[asyncpg.Record] = []
    size = 0
    for row in made:
        if part and size + row["open"] > TASKS_AT_ONCE:
            yield part
            part, size = [], 0
        part.append(row)
        size += row["open"]
    yield part
