"""Whether the parents of what waits have finished well, and what becomes of it then.

A scheduled child has an edge to each parent. For each edge the parent's execution of the same
instant decides; where the parent may still come to that instant, the child waits; where it has
passed without one, its latest finished execution decides, and until there is one the child waits.

A child without a schedule has no instant. Its edges remember, in the order of the event log,
which parents have succeeded since its own last run; when all have, it runs once and they forget.
Under `overlap: skip` that run is not made before the one at hand has ended, so that any number of
successes meanwhile make one run and none is lost.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from runtime.postgres.moves import guard, into_history, logged
from runtime.postgres.placement import QUEUED_MAX
from runtime.postgres.pool import Pool
from runtime.postgres.reactions import reacting
from runtime.postgres.steps import AT_ONCE, Step, changed, step

_GENERATIONS: Final = 25
"""How far down one call follows what it decides; the rest is the next call's."""

# `later`: somebody asked for it for a time to come; until then it stays out of its job's turn.
# wait_edges_parent for the children of those given, executions_blocked for what waits of them.
_DECIDE = f"""
WITH children AS (
    SELECT w.child_id AS id FROM wait_edges w WHERE w.parent_key = ANY($2)
    UNION
    SELECT id FROM executions
    WHERE job_key = ANY($2) AND state = 'blocked' AND reason = 'dependency'
), waiting AS (
    SELECT c.id, c.job_key, c.scheduled_for,
        coalesce(v.spec ->> 'on_dependency_failure', 'skip') AS on_failure,
        (v.spec ->> 'dependency_timeout_s')::float8 AS timeout_s
    FROM children
    CROSS JOIN LATERAL (
        SELECT * FROM executions e
        WHERE e.id = children.id AND e.state = 'blocked' AND e.reason = 'dependency' LIMIT 1
    ) AS c
    LEFT JOIN LATERAL (
        SELECT spec FROM job_versions v
        WHERE v.job_key = c.job_key AND v.version = c.version LIMIT 1
    ) AS v ON true
), edges AS (
    SELECT c.*, CASE
        WHEN w.child_id IS NULL THEN 'met'
        WHEN under_way.yes OR same.state IS NULL AND to_come.yes THEN 'wait'
        WHEN coalesce(same.state, latest.state) = 'succeeded' THEN 'met'
        WHEN coalesce(same.state, latest.state) IS NULL THEN 'wait'
        ELSE 'failed'
    END AS verdict
    FROM waiting c
    LEFT JOIN LATERAL (
        SELECT * FROM wait_edges w WHERE w.child_id = c.id OFFSET 0
    ) AS w ON true
    CROSS JOIN LATERAL (
        SELECT EXISTS (
            SELECT FROM executions e
            WHERE e.job_key = w.parent_key AND e.scheduled_for = c.scheduled_for AND e.origin = 0
        ) AS yes
    ) AS under_way
    LEFT JOIN LATERAL (
        SELECT h.state FROM execution_history h
        WHERE h.job_key = w.parent_key AND h.scheduled_for = c.scheduled_for AND h.origin = 0
            AND NOT under_way.yes
        LIMIT 1
    ) AS same ON true
    CROSS JOIN LATERAL (
        SELECT EXISTS (
            SELECT FROM schedules s
            WHERE s.job_key = w.parent_key AND (
                s.cursor < c.scheduled_for AND s.next_fire_at <= c.scheduled_for
                OR s.catchup_from < c.scheduled_for AND s.catchup_until >= c.scheduled_for
            )
        ) AS yes
    ) AS to_come
    LEFT JOIN LATERAL (
        SELECT h.state FROM execution_history h
        WHERE h.job_key = w.parent_key
            AND NOT under_way.yes AND NOT to_come.yes AND same.state IS NULL
        ORDER BY h.scheduled_for DESC, h.origin DESC LIMIT 1
    ) AS latest ON true
), verdicts AS (
    SELECT id, CASE
        WHEN bool_or(verdict = 'failed') AND on_failure = 'skip' THEN 'skip'
        WHEN bool_and(verdict = 'met' OR verdict = 'failed' AND on_failure = 'run') THEN 'go'
        WHEN timeout_s IS NOT NULL THEN
            CASE WHEN scheduled_for + make_interval(secs => timeout_s) <= $1 THEN 'skip' END
        WHEN EXISTS (
            SELECT FROM executions n WHERE n.job_key = edges.job_key AND n.origin = 0
                AND n.scheduled_for > edges.scheduled_for AND n.scheduled_for <= $1
            UNION ALL
            SELECT FROM execution_history n WHERE n.job_key = edges.job_key AND n.origin = 0
                AND n.scheduled_for > edges.scheduled_for AND n.scheduled_for <= $1
        ) THEN 'skip'
    END AS verdict
    FROM edges
    GROUP BY id, job_key, scheduled_for, on_failure, timeout_s
), decided AS (
    SELECT id, verdict FROM verdicts WHERE verdict IS NOT NULL LIMIT {AT_ONCE}
), locked AS MATERIALIZED (
    SELECT d.verdict, e.*
    FROM (SELECT id, verdict FROM decided ORDER BY id) AS d
    CROSS JOIN LATERAL (
        SELECT * FROM executions e
        WHERE e.id = d.id AND e.state = 'blocked' AND e.reason = 'dependency'
        FOR UPDATE
    ) AS e
), ranked AS (
    SELECT l.*, l.origin <> 0 AND l.run_at > $1 AS later,
        row_number() OVER (PARTITION BY l.job_key, l.verdict ORDER BY l.scheduled_for, l.id)
            + (SELECT count(*) FROM executions q WHERE q.job_key = l.job_key
                AND q.state = 'blocked' AND q.reason = 'overlap')
            + (SELECT count(*) FROM executions t WHERE t.job_key = l.job_key AND t.holds_turn)
        AS place
    FROM locked l
), placed AS MATERIALIZED (
    SELECT r.*, CASE
        WHEN verdict = 'skip' THEN 'dependency'
        WHEN patient OR later THEN NULL
        WHEN overlap = 'skip' AND place > 1 THEN 'overlap'
        WHEN overlap = 'queue' AND place > 1 + {QUEUED_MAX} THEN 'overlap'
    END AS skipped,
    CASE overlap WHEN 'allow' THEN 'scheduled' ELSE 'blocked' END AS becomes
    FROM ranked r
), released AS (
    DELETE FROM wait_edges WHERE child_id = ANY(ARRAY(SELECT id FROM placed))
), let_go AS (
    UPDATE executions e SET
        state = CASE e.overlap WHEN 'allow' THEN 'scheduled' ELSE 'blocked' END,
        reason = CASE WHEN e.overlap = 'allow' THEN NULL
            WHEN e.origin <> 0 AND e.run_at > $1 THEN 'delayed' ELSE 'overlap' END
    WHERE e.id = ANY(ARRAY(SELECT id FROM placed WHERE skipped IS NULL))
        AND e.state IN {guard("scheduled")}
), gone AS (
    DELETE FROM executions e
    WHERE e.id = ANY(ARRAY(SELECT id FROM placed WHERE skipped IS NOT NULL))
        AND e.state IN {guard("skipped")}
), history AS (
    {
    into_history(
        "placed WHERE skipped IS NOT NULL",
        state="'skipped'",
        reason="skipped",
        finished_at="$1",
    )
}
), rivals AS MATERIALIZED (
    SELECT e.*
    FROM (
        SELECT r.id
        FROM (SELECT DISTINCT job_key FROM placed
            WHERE skipped IS NULL AND overlap = 'cancel_running' AND NOT patient
                AND NOT later) AS p
        CROSS JOIN LATERAL (
            SELECT id FROM executions t WHERE t.job_key = p.job_key AND t.holds_turn
            UNION ALL
            SELECT id FROM executions b
            WHERE b.job_key = p.job_key AND b.state = 'blocked' AND b.reason = 'overlap'
        ) AS r
        ORDER BY r.id
    ) AS r
    CROSS JOIN LATERAL (
        SELECT * FROM executions e
        WHERE e.id = r.id AND e.state IN {guard("cancelled")} AND NOT e.cancel_requested
        FOR UPDATE
    ) AS e
), stopping AS (
    UPDATE executions SET cancel_requested = true
    WHERE id = ANY(ARRAY(SELECT id FROM rivals WHERE state = 'running'))
), displaced AS (
    DELETE FROM executions
    WHERE id = ANY(ARRAY(SELECT id FROM rivals WHERE state <> 'running'))
), displaced_kept AS (
    {
    into_history(
        "rivals WHERE state <> 'running'",
        state="'cancelled'",
        reason="'overlap'",
        finished_at="$1",
    )
}
), outcomes AS (
    SELECT id, job_key, pool, CASE WHEN skipped IS NULL THEN becomes ELSE 'skipped' END AS state
    FROM placed
    UNION ALL
    SELECT id, job_key, pool, 'cancelled' FROM rivals WHERE state <> 'running'
), told AS (
    {logged("outcomes", kind="'settled'", at="$1", states="state")}
)
{changed("outcomes", pools="CASE state WHEN 'scheduled' THEN pool END")}
"""

# job_dependencies_met: children of which some parent has succeeded. Whoever locks all edges of a
# child and finds all of them met makes its run; a second one at the same moment finds them unmet.
_GATHER = f"""
WITH candidates AS (
    SELECT child_key FROM job_dependencies WHERE met_at IS NOT NULL AND $2::bigint[] IS NULL
    UNION
    SELECT child_key FROM job_dependencies WHERE met_at IS NOT NULL AND child_key = ANY($2)
), complete AS (
    SELECT c.child_key FROM candidates c
    CROSS JOIN LATERAL (
        SELECT version FROM jobs j
        WHERE j.job_key = c.child_key AND j.enabled AND j.deleted_at IS NULL LIMIT 1
    ) AS j
    CROSS JOIN LATERAL (
        SELECT overlap FROM job_versions v
        WHERE v.job_key = c.child_key AND v.version = j.version LIMIT 1
    ) AS v
    WHERE NOT EXISTS (SELECT FROM schedules s WHERE s.job_key = c.child_key)
        AND NOT EXISTS (
            SELECT FROM job_dependencies d WHERE d.child_key = c.child_key AND d.met_at IS NULL
        )
        AND (v.overlap <> 'skip' OR NOT EXISTS (
            SELECT FROM executions e WHERE e.job_key = c.child_key AND e.holds_turn
            UNION ALL
            SELECT FROM executions e WHERE e.job_key = c.child_key AND e.state = 'blocked'
        ))
    LIMIT {AT_ONCE}
), locked AS MATERIALIZED (
    SELECT d.child_key
    FROM (SELECT child_key FROM complete ORDER BY child_key) AS c
    CROSS JOIN LATERAL (
        SELECT child_key FROM job_dependencies d
        WHERE d.child_key = c.child_key AND d.met_at IS NOT NULL
        ORDER BY d.parent_key
        FOR UPDATE
    ) AS d
), wanted AS MATERIALIZED (
    SELECT l.child_key AS nth, l.child_key AS job_key, NULL::jsonb AS input FROM locked l
    GROUP BY l.child_key
    HAVING count(*) = (SELECT count(*) FROM job_dependencies d WHERE d.child_key = l.child_key)
), begun_anew AS (
    UPDATE job_dependencies SET met_at = NULL
    WHERE child_key = ANY(ARRAY(SELECT job_key FROM wanted))
),
{reacting("wanted")}
"""


async def decide(pool: Pool, job_keys: Sequence[int], *, now: datetime) -> list[Step]:
    """Decide what of these jobs waits, or for these, and what waits for that in turn.

    What may run is left `blocked: overlap`, for the step that gives turns; only under
    `overlap: allow` it is `scheduled` here.
    """
    steps: list[Step] = []
    look = job_keys
    for _ in range(_GENERATIONS):
        steps.append(await step(pool, _DECIDE, now, look))
        look = steps[-1].job_keys
        if not look:
            break
    return steps


async def gather(pool: Pool, job_keys: Sequence[int] | None, *, now: datetime) -> Step:
    """Make the runs of those among these jobs, or of all, whose parents have all succeeded."""
    return await step(pool, _GATHER, now, job_keys)
