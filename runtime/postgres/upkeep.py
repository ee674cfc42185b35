"""Ends what has waited too long, and keeps the books small: days, folded runs, keys that expired.

Everything here is bounded in rows a call, and may be done by two janitors at once.
"""

from datetime import datetime, timedelta
from typing import Final

from runtime.postgres.dags.keep import forget_runs
from runtime.postgres.folds import fold
from runtime.postgres.locks import forget_locks
from runtime.postgres.moves import guard, into_history, logged
from runtime.postgres.nodes import forget
from runtime.postgres.partitions import keep_days
from runtime.postgres.pool import Pool
from runtime.postgres.steps import changed, step

FORGOTTEN_AT_ONCE: Final = 10_000
"""Keys of one kind that one call forgets."""

# executions_expiring. A claim that is quicker leaves a running row, which is left alone.
_EXPIRE = f"""
WITH due AS (
    SELECT id FROM executions
    WHERE expires_at <= $1 AND expires_at IS NOT NULL AND state <> 'running'
    ORDER BY expires_at LIMIT $2
), expired AS MATERIALIZED (
    SELECT e.*
    FROM (SELECT id FROM due ORDER BY id) AS d
    CROSS JOIN LATERAL (
        SELECT * FROM executions e
        WHERE e.id = d.id AND e.expires_at <= $1 AND e.state IN {guard("skipped")}
        FOR UPDATE
    ) AS e
), gone AS (
    DELETE FROM executions WHERE id = ANY(ARRAY(SELECT id FROM expired))
), released AS (
    DELETE FROM wait_edges
    WHERE child_id = ANY(ARRAY(SELECT id FROM expired WHERE reason = 'dependency'))
), history AS (
    {into_history("expired", state="'skipped'", reason="'expired'", finished_at="$1")}
), told AS (
    {logged("expired", kind="'skipped'", at="$1", states="'skipped'")}
)
{changed("expired")}
"""

_FORGET_IDEMPOTENCY: Final = f"""
DELETE FROM idempotency_keys WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM idempotency_keys WHERE expires_at <= $1
    ORDER BY expires_at LIMIT {FORGOTTEN_AT_ONCE} FOR UPDATE SKIP LOCKED))
"""

# once_keys_expiry.
_FORGET_ONCE: Final = f"""
DELETE FROM once_keys WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM once_keys WHERE expires_at <= $1
    ORDER BY expires_at LIMIT {FORGOTTEN_AT_ONCE} FOR UPDATE SKIP LOCKED))
"""

# checkpoints_saved. A dead execution's checkpoint is kept for its replay as long as its row is.
_FORGET_CHECKPOINTS: Final = f"""
DELETE FROM checkpoints WHERE ctid = ANY(ARRAY(
    SELECT c.ctid FROM checkpoints c
    WHERE c.execution <> 0 AND c.saved_at < $1
        AND NOT EXISTS (SELECT FROM executions e WHERE e.id = c.execution)
        AND NOT EXISTS (SELECT FROM execution_history h
            WHERE h.tenant = c.tenant AND h.id = c.execution)
    ORDER BY c.saved_at LIMIT {FORGOTTEN_AT_ONCE} FOR UPDATE SKIP LOCKED))
"""

# So are its once keys. once_keys_open.
_FORGET_ORPHANS: Final = f"""
DELETE FROM once_keys WHERE ctid = ANY(ARRAY(
    SELECT k.ctid FROM once_keys k
    WHERE k.expires_at IS NULL
        AND NOT EXISTS (SELECT FROM executions e WHERE e.id = k.execution)
        AND NOT EXISTS (SELECT FROM execution_history h
            WHERE h.tenant = k.tenant AND h.id = k.execution)
    ORDER BY k.execution LIMIT {FORGOTTEN_AT_ONCE} FOR UPDATE SKIP LOCKED))
"""


async def expire(pool: Pool, *, now: datetime, limit: int) -> int:
    """End up to `limit` unstarted executions past their `expires`; return how many."""
    return (await step(pool, _EXPIRE, now, limit)).done


async def tidy(pool: Pool, *, now: datetime, keep_s: float) -> None:
    """Make and drop days, fold runs of skipped instants, forget keys and nodes that are over."""
    await keep_days(pool, now=now, keep_s=keep_s)
    await fold(pool)
    await pool.fetch(_FORGET_IDEMPOTENCY, now)
    await pool.fetch(_FORGET_ONCE, now)
    await pool.fetch(_FORGET_CHECKPOINTS, now - timedelta(seconds=keep_s))
    await pool.fetch(_FORGET_ORPHANS)
    await forget_locks(pool)
    await forget_runs(pool, before=now - timedelta(seconds=keep_s))
    await forget(pool, before=now - timedelta(seconds=keep_s, days=1))
