"""Locks of tasks in PostgreSQL: taken in the order of asking, held on its clock, free by TTL.

A take, a renewal and a release are one statement each, and each carries its proof: the attempt's
fencing token to take and to release, the lock's own token to renew. A token is drawn while the
lock's row is locked, so tokens grow in the order in which a lock changes hands.
"""

from collections.abc import Sequence
from typing import Final

from protocols.ports.locks import LockClaim, LockHold
from runtime.postgres.pool import Pool

WAIT_SEEN_S: Final = 3.0
"""Whoever waits says so more often than this; past it, those who came later go first."""
FORGOTTEN_AT_ONCE: Final = 10_000

# The SET of a conflict is computed once the row is locked, and so is its token drawn; a fresh row
# is made without one (0), for a token drawn before an insert might be older than the row's last.
# locks_pkey, lock_waits_pkey.
_TAKE: Final = f"""
WITH live AS MATERIALIZED (
    SELECT tenant FROM executions WHERE id = $1 AND fencing_token = $2 AND state = 'running'
), taken AS (
    INSERT INTO locks AS l (tenant, name)
    SELECT tenant, $3 FROM live
    WHERE NOT EXISTS (
        SELECT FROM lock_waits w
        WHERE w.tenant = live.tenant AND w.name = $3
            AND (w.asked_at, w.fencing_token) < ($5::timestamptz, $2)
            AND w.until > clock_timestamp()
    )
    ON CONFLICT (tenant, name) DO UPDATE SET
        token = nextval('lock_tokens'), execution = $1, fencing_token = $2, ttl_s = $4,
        taken_at = clock_timestamp(),
        expires_at = clock_timestamp() + make_interval(secs => $4)
    WHERE l.fencing_token IS NULL OR l.fencing_token = $2 OR l.expires_at <= clock_timestamp()
    RETURNING token
), waits AS (
    INSERT INTO lock_waits (tenant, name, asked_at, fencing_token, until)
    SELECT tenant, $3, $5, $2, clock_timestamp() + make_interval(secs => {WAIT_SEEN_S})
    FROM live WHERE $6 AND NOT EXISTS (SELECT FROM taken)
    ON CONFLICT (tenant, name, asked_at, fencing_token) DO UPDATE SET until = excluded.until
), waited AS (
    DELETE FROM lock_waits w USING live
    WHERE EXISTS (SELECT FROM taken) AND w.tenant = live.tenant AND w.name = $3
        AND (w.until <= clock_timestamp() OR (w.asked_at = $5 AND w.fencing_token = $2))
)
SELECT EXISTS (SELECT FROM live) AS live, (SELECT token FROM taken) AS token
"""

# In the order given, which is that of the key. A lock past its end is nobody's, taken or not.
_RENEW: Final = """
WITH held AS MATERIALIZED (
    SELECT l.tenant, l.name, l.token, l.ttl_s, a.due
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::boolean[])
        AS a(tenant, name, token, due)
    CROSS JOIN LATERAL (
        SELECT k.tenant, k.name, k.token, k.ttl_s FROM locks k
        WHERE k.tenant = a.tenant AND k.name = a.name AND k.token = a.token
            AND k.fencing_token IS NOT NULL AND k.expires_at > clock_timestamp()
        FOR UPDATE
    ) AS l
), renewed AS (
    UPDATE locks l SET expires_at = clock_timestamp() + make_interval(secs => h.ttl_s)
    FROM held h WHERE l.tenant = h.tenant AND l.name = h.name AND h.due
)
SELECT token FROM held
"""

_RELEASE: Final = """
WITH held AS MATERIALIZED (
    SELECT l.tenant, l.name
    FROM unnest($1::text[], $2::text[], $3::bigint[]) AS a(tenant, name, fencing_token)
    CROSS JOIN LATERAL (
        SELECT k.tenant, k.name FROM locks k
        WHERE k.tenant = a.tenant AND k.name = a.name AND k.fencing_token = a.fencing_token
        FOR UPDATE
    ) AS l
)
UPDATE locks l SET fencing_token = NULL, execution = NULL, expires_at = clock_timestamp()
FROM held h WHERE l.tenant = h.tenant AND l.name = h.name
RETURNING l.token
"""

_LEAVE: Final = """
DELETE FROM lock_waits w
USING unnest($1::text[], $2::text[], $3::timestamptz[], $4::bigint[])
    AS a(tenant, name, asked_at, fencing_token)
WHERE w.tenant = a.tenant AND w.name = a.name AND w.asked_at = a.asked_at
    AND w.fencing_token = a.fencing_token
"""

# Few rows, each minute: no index would earn its keep, and one on `expires_at` would cost renewals.
_FORGET: Final = f"""
WITH gone AS (
    DELETE FROM lock_waits WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM lock_waits WHERE until <= clock_timestamp()
        LIMIT {FORGOTTEN_AT_ONCE} FOR UPDATE SKIP LOCKED))
)
DELETE FROM locks WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM locks WHERE expires_at <= clock_timestamp() - interval '1 hour'
    LIMIT {FORGOTTEN_AT_ONCE} FOR UPDATE SKIP LOCKED))
"""


class PostgresLocks:
    """The LockStore port.

    Args:
        pool: connections of the node's role.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def take(self, claim: LockClaim) -> int | None:
        """As the port says; a lock that never was is made first, and then taken."""
        arguments = (
            claim.id,
            claim.fencing_token,
            claim.name,
            claim.ttl_s,
            claim.asked_at,
            claim.queues,
        )
        (row,) = await self._pool.fetch(_TAKE, *arguments)
        if row["token"] == 0:
            (row,) = await self._pool.fetch(_TAKE, *arguments)
        return (row["token"] or 0) if row["live"] else None

    async def renew(self, holds: Sequence[tuple[LockHold, bool]]) -> Sequence[int]:
        """As the port says."""
        given = sorted(holds, key=lambda one: (one[0].tenant, one[0].name))
        rows = await self._pool.fetch(
            _RENEW,
            [hold.tenant for hold, _ in given],
            [hold.name for hold, _ in given],
            [hold.token for hold, _ in given],
            [due for _, due in given],
        )
        return [row["token"] for row in rows]

    async def release(self, holds: Sequence[LockHold]) -> Sequence[int]:
        """As the port says."""
        given = sorted(holds, key=lambda hold: (hold.tenant, hold.name))
        rows = await self._pool.fetch(
            _RELEASE,
            [hold.tenant for hold in given],
            [hold.name for hold in given],
            [hold.fencing_token for hold in given],
        )
        return [row["token"] for row in rows]

    async def leave(self, claims: Sequence[LockClaim]) -> None:
        """As the port says."""
        await self._pool.fetch(
            _LEAVE,
            [claim.tenant for claim in claims],
            [claim.name for claim in claims],
            [claim.asked_at for claim in claims],
            [claim.fencing_token for claim in claims],
        )


async def forget_locks(pool: Pool) -> None:
    """Delete rows of locks that nobody has held for an hour, and of waiters that are gone."""
    await pool.fetch(_FORGET)
