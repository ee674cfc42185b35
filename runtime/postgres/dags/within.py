"""Claims roots of runs within runs by the run they are within, where no other root has room."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from protocols.ports.store.dags import Within
from runtime.postgres.claim import ABLE, CLAIMABLE, HELD, TAKE
from runtime.postgres.pool import Pool, Session

# executions_pkey.
_MARK: Final = "UPDATE executions SET within = $2 WHERE id = $1"

_DUE: Final = f"""
            x.pool = $1 AND x.{CLAIMABLE} AND x.run_at <= $3 AND x.needs <= $4
            AND (x.expires_at <= $3) IS NOT TRUE
            AND (x.limit_key IS NULL OR (SELECT cardinality(k.holders) < k.most FROM limits k
                WHERE k.tenant = x.tenant AND k.limit_key = x.limit_key))"""

# executions_within. Where one of these waits for its job's turn, who has that turn is claimed for
# its sake, whoever asked for it: executions_turn. Limits are locked in the order of all claims.
_CLAIM: Final = f"""{ABLE}, within AS MATERIALIZED (
    SELECT e.*
    FROM able
    CROSS JOIN unnest($5::bigint[]) AS u(run)
    CROSS JOIN LATERAL (
        SELECT x.ctid AS at, x.id, x.tenant, x.limit_key, x.within FROM executions x
        WHERE x.within = u.run AND {_DUE}
        ORDER BY x.within, x.id
        LIMIT greatest(1, $6 / 8)
        FOR UPDATE SKIP LOCKED
    ) AS e
    LIMIT $6
), turns AS MATERIALIZED (
    SELECT e.*, b.within
    FROM able
    CROSS JOIN unnest($5::bigint[]) AS u(run)
    CROSS JOIN LATERAL (
        SELECT DISTINCT w.job_key, w.within FROM (
            SELECT v.job_key, v.within FROM executions v
            WHERE v.within = u.run AND v.state = 'blocked' AND v.reason = 'overlap'
            ORDER BY v.within, v.id
        ) AS w
    ) AS b
    CROSS JOIN LATERAL (
        SELECT x.ctid AS at, x.id, x.tenant, x.limit_key FROM executions x
        WHERE x.job_key = b.job_key AND x.holds_turn AND {_DUE}
        ORDER BY x.job_key
        LIMIT 1
        FOR UPDATE SKIP LOCKED
    ) AS e
    LIMIT $6
), found AS MATERIALIZED (
    SELECT DISTINCT ON (id) * FROM (
        SELECT at, id, tenant, limit_key, within FROM within
        UNION ALL
        SELECT at, id, tenant, limit_key, within FROM turns
    ) AS either
    ORDER BY id
), roomy AS MATERIALIZED (
    SELECT f.tenant, f.limit_key, l.room
    FROM (
        SELECT DISTINCT tenant, limit_key FROM found
        WHERE limit_key IS NOT NULL ORDER BY tenant, limit_key
    ) AS f
    CROSS JOIN LATERAL (
        SELECT k.most - cardinality(k.holders) AS room FROM limits k
        WHERE k.tenant = f.tenant AND k.limit_key = f.limit_key
        FOR UPDATE
    ) AS l
), picked AS MATERIALIZED (
    SELECT at FROM found WHERE limit_key IS NULL
    UNION ALL
    SELECT p.at
    FROM (
        SELECT f.at, r.room,
            row_number() OVER (PARTITION BY f.tenant, f.limit_key ORDER BY f.id) AS place
        FROM found f
        JOIN roomy r ON r.tenant = f.tenant AND r.limit_key = f.limit_key
    ) AS p
    WHERE p.place <= p.room
){TAKE}{HELD}
SELECT t.id, t.fencing_token, f.within FROM found f CROSS JOIN LATERAL (
    SELECT x.id, x.fencing_token FROM taken x WHERE x.id = f.id
) AS t
"""


async def mark_within(session: Session, execution: int, run: int) -> None:
    """Say of a root that was just made which run it is within."""
    await session.execute(_MARK, execution, run)


async def claim_within(
    pool: Pool,
    name: str,
    incarnation: int,
    runs: Sequence[int],
    *,
    limit: int,
    now: datetime,
    level: int,
) -> Sequence[Within]:
    """As `DagStore.claim_within`, from the pool `name`."""
    rows = await pool.fetch(_CLAIM, name, incarnation, now, level, list(runs), limit)
    return [Within(*row) for row in rows]
