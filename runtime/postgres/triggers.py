"""Reads the event log and makes what follows: `on:` executions, and edges that are met.

The place read to moves in the statement that makes the executions, and its row is locked by it:
each event counts once, whoever reads and whenever a node or the database dies. A job that
triggers itself is legal; it makes one execution for each that ends, no more.
"""

from datetime import datetime
from typing import Final

from protocols.executions import FINAL
from protocols.ports.store import Settled
from runtime.postgres.dependencies import gather
from runtime.postgres.pool import Pool
from runtime.postgres.reactions import reacting
from runtime.postgres.restored import begin_anew
from runtime.postgres.steps import AT_ONCE, step
from runtime.postgres.waiting import take_turns

_ENDS: Final = ", ".join(f"'{state}'" for state in sorted(FINAL))
_UNREAD: Final = """
    (e.xid, e.number) > (r.xid, r.number) AND e.xid < pg_snapshot_xmin(pg_current_snapshot())
"""

# Asked first, so that a poll of a quiet house writes nothing.
_PENDING = f"""
SELECT r.xid > pg_snapshot_xmax(pg_current_snapshot()) AS restored, (
    SELECT count(*) FROM (
        SELECT FROM events e WHERE {_UNREAD} ORDER BY e.xid, e.number LIMIT $1
    ) AS events
) AS unread
FROM event_readers r WHERE r.name = 'triggers'
"""

HOLDS: Final = """
NOT EXISTS (
    SELECT FROM jsonb_each(t.filter) AS f
    WHERE f.value IS DISTINCT FROM (p.payload #> string_to_array(f.key, '.'))
)"""
"""A filter (t) holds where the payload (p) has at each dotted path a value equal to its own."""

# Where nobody follows anybody, `ended` opens no batch.
# events_order, job_triggers_event, job_triggers_parent, job_dependencies' key by parent.
_FOLLOW = f"""
WITH reader AS MATERIALIZED (
    SELECT xid, number FROM event_readers WHERE name = 'triggers' FOR UPDATE
), batch AS MATERIALIZED (
    SELECT e.xid, e.number, e.at, e.kind, e.tenant, e.name, e.payload, e.ids, e.job_keys, e.states
    FROM reader r CROSS JOIN LATERAL (
        SELECT * FROM events e WHERE {_UNREAD} ORDER BY e.xid, e.number LIMIT $2
    ) AS e
), moved AS (
    UPDATE event_readers SET xid = final.xid, number = final.number
    FROM (SELECT xid, number FROM batch ORDER BY xid DESC, number DESC LIMIT 1) AS final
    WHERE event_readers.name = 'triggers'
), ended AS MATERIALIZED (
    SELECT b.xid, b.number, c.id, c.job_key, c.state
    FROM batch b CROSS JOIN LATERAL unnest(b.ids, b.job_keys, b.states) AS c(id, job_key, state)
    WHERE c.state IN ({_ENDS}) AND (
        (SELECT EXISTS (SELECT FROM job_triggers WHERE parent_key IS NOT NULL))
        OR (SELECT EXISTS (SELECT FROM job_dependencies))
    )
), parents AS MATERIALIZED (
    SELECT DISTINCT job_key, state FROM ended
), met AS MATERIALIZED (
    SELECT d.parent_key, d.child_key
    FROM (SELECT job_key FROM parents WHERE state = 'succeeded' ORDER BY job_key) AS p
    CROSS JOIN LATERAL (
        SELECT d.parent_key, d.child_key FROM job_dependencies d
        WHERE d.parent_key = p.job_key AND d.met_at IS NULL
            AND NOT EXISTS (SELECT FROM schedules s WHERE s.job_key = d.child_key)
        ORDER BY d.child_key
        FOR UPDATE
    ) AS d
), marked AS (
    UPDATE job_dependencies SET met_at = $1
    WHERE parent_key = ANY(ARRAY(SELECT parent_key FROM met))
        AND child_key = ANY(ARRAY(SELECT child_key FROM met)) AND met_at IS NULL
), watched AS MATERIALIZED (
    SELECT t.*, j.tenant AS parent_tenant, j.job_id AS parent_id
    FROM parents p
    CROSS JOIN LATERAL (
        SELECT t.job_key, t.parent_key, t.state, t.filter FROM job_triggers t
        WHERE t.parent_key = p.job_key AND t.state = p.state OFFSET 0
    ) AS t
    CROSS JOIN LATERAL (SELECT * FROM jobs j WHERE j.job_key = t.parent_key LIMIT 1) AS j
), matched AS (
    SELECT b.xid, b.number, 0 AS id, t.job_key, p.payload
    FROM batch b
    CROSS JOIN LATERAL (
        SELECT t.job_key, t.filter FROM job_triggers t
        WHERE t.tenant = b.tenant AND t.event = b.name OFFSET 0
    ) AS t
    CROSS JOIN LATERAL (SELECT b.payload) AS p
    WHERE b.kind = 'emitted' AND {HOLDS}
    UNION ALL
    SELECT c.xid, c.number, c.id, t.job_key, p.payload
    FROM ended c
    JOIN watched t ON t.parent_key = c.job_key AND t.state = c.state
    LEFT JOIN LATERAL (
        SELECT x.execution_id, x.scheduled_for FROM all_executions x
        WHERE x.tenant = t.parent_tenant AND x.id = c.id LIMIT 1
    ) AS x ON true
    CROSS JOIN LATERAL (
        SELECT jsonb_build_object(
            'job_id', t.parent_id, 'execution_id', x.execution_id, 'state', c.state,
            'scheduled_for', to_char(x.scheduled_for AT TIME ZONE 'UTC',
                'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
        ) AS payload
    ) AS p
    WHERE {HOLDS}
), wanted AS MATERIALIZED (
    SELECT row_number() OVER (ORDER BY xid, number, id, job_key) AS nth, job_key, input
    FROM (
        SELECT DISTINCT ON (xid, number, id, job_key) xid, number, id, job_key, payload AS input
        FROM matched ORDER BY xid, number, id, job_key
    ) AS once
),
{reacting("wanted")}
"""


async def run_triggers(pool: Pool, *, now: datetime, limit: int) -> Settled:
    """Take up to `limit` unread events, once each, and let go what they made."""
    (look,) = await pool.fetch(_PENDING, limit)
    if look["restored"]:
        await begin_anew(pool)
        return Settled(more=True)
    pending = look["unread"]
    if not pending:
        return Settled()
    followed = await step(pool, _FOLLOW, now, limit)
    gathered = await gather(pool, None, now=now)
    made = {*followed.job_keys, *gathered.job_keys}
    granted = await take_turns(pool, sorted(made), now=now) if made else gathered
    return Settled(
        pools=sorted({*followed.pools, *gathered.pools, *granted.pools}),
        more=pending >= limit or gathered.done >= AT_ONCE,
    )
