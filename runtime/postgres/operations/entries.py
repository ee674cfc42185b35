"""Puts executions among those that are to run: new ones, and old ones that run again.

A job's turn is taken by the first of them where it is free; what finds it taken waits, whatever
the job's `overlap` says, since a person or a missed instant asked for it.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from protocols.ids import execution_id
from runtime.postgres.operations.events import logged
from runtime.postgres.operations.session import Connection


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One execution to enter; without an `id` it is new, and named by its instant alone.

    `origin` is 0 for an instant of the schedule, else the execution's own id.
    """

    job_key: int
    version: int
    scheduled_for: datetime
    run_at: datetime
    id: int | None = None
    created_at: datetime
    origin: int = 0
    run: int = 1
    attempt: int = 0
    input: bytes | None = None
    gated: bool = False
    """It waits for its job's dependencies."""
    parallel: int | None = None
    """So many of its job's at once that say so, beside what else runs of it; not in its turn."""


class Entered(msgspec.Struct, frozen=True):
    """An execution that was entered, as `scheduled` or `blocked`."""

    id: int
    execution_id: str
    job_key: int
    scheduled_for: datetime
    pool: str
    state: str


# Indexes: job_versions_pkey; executions_turn and executions_blocked say whose turn is taken.
_ENTER: Final = f"""
WITH wanted AS (
    SELECT n.*, v.needs, v.job_id, v.pool, v.priority, v.expires_s, v.at_most_once, v.max_lost,
        w.overlap,
        CASE WHEN n.parallel IS NULL THEN v.limit_key
            ELSE coalesce(v.limit_key, 'backfill:' || n.job_key::text) END AS limit_key,
        row_number() OVER (
            PARTITION BY n.job_key, w.overlap = 'allow', n.gated ORDER BY n.scheduled_for, n.origin
        ) AS place
    FROM unnest(
        $2::bigint[], $3::timestamptz[], $4::bigint[], $5::integer[], $6::bigint[],
        $7::timestamptz[], $8::integer[], $9::timestamptz[], $10::integer[], $11::bytea[],
        $14::boolean[], $15::integer[]
    ) AS n (
        id, created_at, job_key, version, origin,
        scheduled_for, run, run_at, attempt, input,
        gated, parallel
    )
    JOIN job_versions v ON v.job_key = n.job_key AND v.version = n.version
    CROSS JOIN LATERAL (
        SELECT CASE WHEN n.parallel IS NULL THEN v.overlap ELSE 'allow' END AS overlap
    ) AS w
), busy AS (
    SELECT job_key FROM executions WHERE job_key = ANY($4) AND holds_turn
    UNION
    SELECT job_key FROM executions
    WHERE job_key = ANY($4) AND state = 'blocked' AND reason = 'overlap'
), decided AS (
    SELECT w.*, w.overlap = 'allow' AND NOT w.gated AS free,
        w.overlap <> 'allow' AND NOT w.gated AND w.place = 1
            AND NOT EXISTS (SELECT FROM busy b WHERE b.job_key = w.job_key) AS first,
        EXISTS (SELECT FROM checkpoints c WHERE c.job_key = w.job_key AND c.execution = w.id)
            OR EXISTS (SELECT FROM once_keys o WHERE o.execution = w.id) AS keeps
    FROM wanted w
), entered AS (
    INSERT INTO executions (
        id, created_at, tenant, job_id, job_key, version, needs, origin, scheduled_for, run,
        pool, priority, state, reason, overlap, patient, holds_turn, limit_key, run_at, expires_at,
        at_most_once, max_lost, attempt, input, keeps
    )
    SELECT coalesce(d.id, nextval('execution_ids')), d.created_at, $1, d.job_id, d.job_key,
        d.version, d.needs, d.origin, d.scheduled_for, d.run, d.pool, d.priority,
        CASE WHEN d.free OR d.first THEN 'scheduled' ELSE 'blocked' END,
        CASE WHEN d.gated THEN 'dependency' WHEN NOT d.free AND NOT d.first THEN 'overlap' END,
        d.overlap, true, d.first, d.limit_key, d.run_at,
        d.run_at + d.expires_s * interval '1 second',
        d.at_most_once, d.max_lost, d.attempt, d.input, d.keeps
    FROM decided d
    ORDER BY d.job_key, d.scheduled_for
    RETURNING id, created_at, tenant, job_key, scheduled_for, pool, state, reason
), edges AS (
    INSERT INTO wait_edges (child_id, parent_key, tenant)
    SELECT e.id, d.parent_key, e.tenant
    FROM entered e
    JOIN job_dependencies d ON d.child_key = e.job_key
    WHERE e.reason = 'dependency'
), told AS (
    {logged("entered", kind="$13", at="$12")}
)
SELECT id, created_at, job_key, scheduled_for, pool, state FROM entered
"""


# A later backfill's word holds for what an earlier one has left to do. Index: limits_pkey.
_LIMIT: Final = """
INSERT INTO limits (tenant, limit_key, most)
SELECT $1, 'backfill:' || n.job_key::text, max(n.most)
FROM unnest($2::bigint[], $3::integer[]) AS n (job_key, most)
GROUP BY n.job_key ORDER BY n.job_key
ON CONFLICT (tenant, limit_key) DO UPDATE SET most = excluded.most
"""


async def enter(
    conn: Connection, entries: Sequence[Entry], *, tenant: str, kind: str, now: datetime
) -> list[Entered]:
    """Insert these executions in one statement, and tell the event log by `kind`.

    Raises `asyncpg.UniqueViolationError` where another writer took the instant or the turn
    meanwhile; `transact` runs the whole again then.
    """
    if not entries:
        return []
    limited = [e for e in entries if e.parallel is not None]
    if limited:
        await conn.execute(
            _LIMIT, tenant, [e.job_key for e in limited], [e.parallel for e in limited]
        )
    rows = await conn.fetch(
        _ENTER,
        tenant,
        [e.id for e in entries],
        [e.created_at for e in entries],
        [e.job_key for e in entries],
        [e.version for e in entries],
        [e.origin for e in entries],
        [e.scheduled_for for e in entries],
        [e.run for e in entries],
        [e.run_at for e in entries],
        [e.attempt for e in entries],
        [e.input for e in entries],
        now,
        kind,
        [e.gated for e in entries],
        [e.parallel for e in entries],
    )
    return [
        Entered(
            row["id"],
            execution_id(row["id"], row["created_at"]),
            row["job_key"],
            row["scheduled_for"],
            row["pool"],
            row["state"],
        )
        for row in rows
    ]


def pools_to_wake(entered: Sequence[Entered]) -> tuple[str, ...]:
    """Pools that have something to claim since these were entered."""
    return tuple(sorted({e.pool for e in entered if e.state == "scheduled"}))
