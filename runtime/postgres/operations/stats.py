"""Figures for metrics and the doctor: what waits, what runs, who leads, and nothing costly."""

from datetime import datetime
from typing import Final

from protocols.views import LeadershipView, StatsView
from runtime.postgres.operations.rows import when
from runtime.postgres.operations.session import Connection

COUNTED_TO: Final = 100_000
"""How far each state is counted; a backlog of a million is not walked for a figure."""

_COUNT: Final = """
SELECT count(*) FROM (SELECT FROM executions WHERE state = $1 LIMIT $2) AS counted
"""
_COUNT_READY: Final = """
SELECT count(*) FROM (
    SELECT FROM executions WHERE state = 'scheduled' AND run_at <= $1 LIMIT $2
) AS counted
"""

# As statistics have it: partitions of history by the planner's figures, never by a scan.
_ESTIMATES: Final = """
SELECT
    (
        SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'execution_history'::regclass
    ) AS history,
    (SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = 'jobs'::regclass) AS jobs
"""

# From lane to lane, and in each its oldest row. Indexes: executions_due, executions_due_limited.
_OLDEST: Final = """
WITH RECURSIVE free AS (
    (
        SELECT pool, tenant, priority, run_at FROM executions
        WHERE state = 'scheduled' AND limit_key IS NULL
        ORDER BY pool, tenant, priority, run_at LIMIT 1
    )
    UNION ALL
    SELECT n.* FROM free f CROSS JOIN LATERAL (
        SELECT pool, tenant, priority, run_at FROM executions
        WHERE state = 'scheduled' AND limit_key IS NULL
            AND (pool, tenant, priority) > (f.pool, f.tenant, f.priority)
        ORDER BY pool, tenant, priority, run_at LIMIT 1
    ) AS n
), limited AS (
    (
        SELECT pool, tenant, priority, limit_key, run_at FROM executions
        WHERE state = 'scheduled' AND limit_key IS NOT NULL
        ORDER BY pool, tenant, priority, limit_key, run_at LIMIT 1
    )
    UNION ALL
    SELECT n.* FROM limited f CROSS JOIN LATERAL (
        SELECT pool, tenant, priority, limit_key, run_at FROM executions
        WHERE state = 'scheduled' AND limit_key IS NOT NULL
            AND (pool, tenant, priority, limit_key)
                > (f.pool, f.tenant, f.priority, f.limit_key)
        ORDER BY pool, tenant, priority, limit_key, run_at LIMIT 1
    ) AS n
)
SELECT pool, min(run_at) AS run_at
FROM (SELECT pool, run_at FROM free UNION ALL SELECT pool, run_at FROM limited) AS lanes
WHERE run_at <= $1
GROUP BY pool
"""

_HOUSE: Final = "SELECT paused, paused_reason FROM house"
_LEADERSHIPS: Final = "SELECT number, epoch, incarnation, taken_at FROM leaderships ORDER BY number"


async def read_stats(conn: Connection, *, now: datetime) -> StatsView:
    """The house's figures; by a connection of one tenant, that tenant's executions only."""
    counts = {
        state: await conn.fetchval(_COUNT, state, COUNTED_TO) for state in ("blocked", "running")
    }
    scheduled = await conn.fetchval(_COUNT, "scheduled", COUNTED_TO)
    counts["ready"] = await conn.fetchval(_COUNT_READY, now, COUNTED_TO)
    counts["scheduled"] = max(0, scheduled - counts["ready"])
    estimates = await conn.fetchrow(_ESTIMATES)
    house = await conn.fetchrow(_HOUSE)
    assert estimates is not None
    assert house is not None
    oldest = {
        row["pool"]: float((now - row["run_at"]).total_seconds())
        for row in await conn.fetch(_OLDEST, now)
    }
    return StatsView(
        executions=counts,
        counted_to=COUNTED_TO,
        history_estimate=estimates["history"],
        jobs_estimate=estimates["jobs"],
        oldest_ready_s=oldest,
        paused=house["paused"],
        paused_reason=house["paused_reason"],
        leaderships=tuple(
            LeadershipView(row["number"], row["epoch"], row["incarnation"], when(row["taken_at"]))
            for row in await conn.fetch(_LEADERSHIPS)
        ),
    )
