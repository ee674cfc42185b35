"""Claims roots of runs within runs by the run they are within, where no other root has room."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from protocols.ports.store.dags import Within
from runtime.postgres.claim import ABLE, CLAIMABLE, HELD, TAKE
from runtime.postgres.pool import Pool, Session

# executions_pkey.
_MARK: Final = "UPDATE executions SET within = $2 WHERE id = $1"

# executions_within, then limits_pkey in the order in which all lock limits: one root of a limit.
_CLAIM: Final = f"""{ABLE}, found AS MATERIALIZED (
    SELECT e.*
    FROM able
    CROSS JOIN unnest($5::bigint[]) AS u(run)
    CROSS JOIN LATERAL (
        SELECT x.ctid AS at, x.id, x.tenant, x.limit_key, x.within FROM executions x
        WHERE x.pool = $1 AND x.{CLAIMABLE} AND x.within = u.run AND x.run_at <= $3
            AND x.needs <= $4 AND (x.expires_at <= $3) IS NOT TRUE
        ORDER BY x.within, x.id
        LIMIT $6
        FOR UPDATE SKIP LOCKED
    ) AS e
    LIMIT $6
), limited AS MATERIALIZED (
    SELECT f.at
    FROM (
        SELECT DISTINCT ON (tenant, limit_key) at, tenant, limit_key FROM found
        WHERE limit_key IS NOT NULL ORDER BY tenant, limit_key, id
    ) AS f
    CROSS JOIN LATERAL (
        SELECT FROM limits k
        WHERE k.tenant = f.tenant AND k.limit_key = f.limit_key
            AND cardinality(k.holders) < k.most
        FOR UPDATE
    ) AS l
), picked AS MATERIALIZED (
    SELECT at FROM found WHERE limit_key IS NULL
    UNION ALL
    SELECT at FROM limited
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
    rows = await pool.fetch(_CLAIM, name, incarnation, now, level, sorted(runs), limit)
    return [Within(*row) for row in rows]
