"""What a running task asks of the books: checkpoints, `once`, events, and whether it shall end.

A call that carries a fencing token locks its execution's row, so that no token is found in force
and spent before the call's effect is written.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal

import asyncpg

from protocols.errors import InvalidError, KeyReusedError, Problem, UnavailableError
from runtime.postgres.pool import Pool

KEY_TTL_S: Final = 24 * 3600.0
"""How long an event's idempotency key is known."""
ONCE_TTL_MAX_S: Final = 366 * 24 * 3600.0

_TRIES: Final = 5

_LIVE: Final = """
live AS MATERIALIZED (
    SELECT id, tenant, job_key, version, keeps FROM executions
    WHERE id = $1 AND fencing_token = $2 AND state = 'running'
    FOR NO KEY UPDATE
)"""
# `keeps` tells the finish to look for what the execution kept.
_KEEPS: Final = """
kept AS (
    UPDATE executions SET keeps = true
    WHERE id = ANY(ARRAY(SELECT id FROM live WHERE NOT keeps)) AND fencing_token = $2
)"""

_SAVE = f"""
WITH {_LIVE}, {_KEEPS}, saved AS (
    INSERT INTO checkpoints (tenant, job_key, execution, value, fencing_token, saved_at)
    SELECT l.tenant, l.job_key, CASE v.spec ->> 'checkpoint' WHEN 'job' THEN 0 ELSE l.id END,
        $3, $2, $4
    FROM live l
    CROSS JOIN LATERAL (
        SELECT spec FROM job_versions v
        WHERE v.job_key = l.job_key AND v.version = l.version LIMIT 1
    ) AS v
    ON CONFLICT (job_key, execution) DO UPDATE SET
        value = excluded.value, fencing_token = excluded.fencing_token,
        saved_at = excluded.saved_at
)
SELECT EXISTS (SELECT FROM live) AS live
"""

# What `k` says is what the statement's snapshot saw, not what the conflict met.
_ONCE = f"""
WITH {_LIVE}, {_KEEPS}, taken AS (
    INSERT INTO once_keys AS k (tenant, key, execution, fencing_token, ttl_s)
    SELECT tenant, $3, id, $2, $4 FROM live
    ON CONFLICT (tenant, key) DO UPDATE SET
        execution = excluded.execution, fencing_token = excluded.fencing_token,
        ttl_s = excluded.ttl_s, expires_at = NULL
    WHERE k.expires_at <= $5
    RETURNING 1
)
SELECT l.id IS NOT NULL AS live, EXISTS (SELECT FROM taken) AS taken, k.execution,
    k.fencing_token, k.expires_at
FROM (SELECT 1) AS one
LEFT JOIN live l ON true
LEFT JOIN once_keys k ON k.tenant = l.tenant AND k.key = $3
"""

# The owner's row was there when its key was written, and the key was seen by a statement before
# this one: that the row is gone, and the key has no end, means that it ended and did not succeed.
_TAKE_OVER = f"""
WITH {_LIVE}
UPDATE once_keys k SET execution = l.id, fencing_token = $2, ttl_s = $4
FROM live l
WHERE k.tenant = l.tenant AND k.key = $3 AND k.execution = $5 AND k.fencing_token = $6
    AND k.expires_at IS NULL AND NOT EXISTS (SELECT FROM executions WHERE id = $5)
RETURNING 1
"""

_EMIT: Final = """
INSERT INTO events (at, kind, tenant, name, payload)
VALUES ($1, 'emitted', $2, $3, $4::text::jsonb)
"""
_EMIT_KEYED: Final = """
WITH fresh AS (
    INSERT INTO idempotency_keys AS k (tenant, scope, key, body_hash, answer, expires_at)
    VALUES ($2, 'emit ' || $3::text, $5, $6, '{}', $1::timestamptz + make_interval(secs => $7))
    ON CONFLICT (tenant, scope, key) DO UPDATE SET
        body_hash = excluded.body_hash, answer = excluded.answer, expires_at = excluded.expires_at
    WHERE k.expires_at <= $1
    RETURNING 1
), told AS (
    INSERT INTO events (at, kind, tenant, name, payload)
    SELECT $1, 'emitted', $2, $3, $4::text::jsonb WHERE EXISTS (SELECT FROM fresh)
)
SELECT EXISTS (SELECT FROM fresh) AS fresh, (
    SELECT body_hash FROM idempotency_keys
    WHERE tenant = $2 AND scope = 'emit ' || $3::text AND key = $5
) AS body_hash
"""

# executions_cancelling.
_CANCEL_REQUESTS: Final = """
SELECT id, fencing_token FROM executions
WHERE incarnation = $1 AND cancel_requested AND state = 'running'
ORDER BY id
"""
# Reads the whole hot table: no index says who runs what, since every claim would pay for it.
_RUNNING: Final = """
SELECT id, fencing_token FROM executions
WHERE incarnation = $1 AND pool = $2 AND state = 'running' ORDER BY id
"""


async def save_checkpoint(
    pool: Pool,
    id: int,  # noqa: A002
    token: int,
    value: bytes,
    *,
    now: datetime,
) -> bool:
    """As the port says; of `checkpoint: job` the last to save wins, whichever execution it is."""
    (row,) = await pool.fetch(_SAVE, id, token, value, now)
    live: bool = row["live"]
    return live


async def once(
    pool: Pool,
    id: int,  # noqa: A002
    token: int,
    key: str,
    ttl_s: float,
    *,
    now: datetime,
) -> Literal["first", "again", "no"] | None:
    """As the port says; the same attempt is told the same however often it asks.

    An execution that ended without success leaves its keys to whoever asks next: to its own
    replay, which is told `again`, or to another execution, which is told `first`.

    Raises:
        InvalidError: the key or `ttl_s` (in seconds, above 0, at most 366 days) cannot be kept.
    """
    _check_text("key", key)
    if not 0 < ttl_s <= ONCE_TTL_MAX_S:
        raise InvalidError((Problem(("ttl",), "must be above 0 and at most 366 days"),))
    for _ in range(_TRIES):
        (row,) = await pool.fetch(_ONCE, id, token, key, ttl_s, now)
        if not row["live"]:
            return None
        if row["taken"]:
            return "first"
        owner, owner_token = row["execution"], row["fencing_token"]
        if owner == id:
            return "first" if owner_token == token else "again"
        if row["expires_at"] is not None and row["expires_at"] > now:
            return "no"
        if owner is not None and row["expires_at"] is None:
            over = await pool.fetch(_TAKE_OVER, id, token, key, ttl_s, owner, owner_token)
            return "first" if over else "no"
        # The key changed hands after the snapshot: the next one shows whose it is.
    raise UnavailableError(f"others change the once key {key} all the time: try again")


async def emit(
    pool: Pool,
    tenant: str,
    event: str,
    payload: bytes | None,
    *,
    now: datetime,
    key: str | None = None,
) -> None:
    """As the port says; with a `key` the event is told once, however often this is called.

    Raises:
        InvalidError: `event`, `key` or `payload` (JSON) cannot be kept.
        KeyReusedError: the key was used with another payload.
    """
    _check_text("event", event)
    _check_text("key", key or "")
    try:
        text = None if payload is None else payload.decode()
        if key is None:
            await pool.fetch(_EMIT, now, tenant, event, text)
        else:
            await _emit_once(pool, tenant, event, text, now, key)
    except (
        UnicodeDecodeError,
        asyncpg.InvalidTextRepresentationError,
        asyncpg.UntranslatableCharacterError,
    ) as error:
        raise InvalidError(
            (Problem(("payload",), f"is not JSON that can be kept: {error}"),)
        ) from error


async def _emit_once(
    pool: Pool, tenant: str, event: str, payload: str | None, now: datetime, key: str
) -> None:
    body = hashlib.sha256((payload or "").encode()).digest()
    for _ in range(_TRIES):
        (row,) = await pool.fetch(_EMIT_KEYED, now, tenant, event, payload, key, body, KEY_TTL_S)
        if row["fresh"] or row["body_hash"] == body:
            return
        if row["body_hash"] is not None:
            raise KeyReusedError(
                f"the idempotency key {key} was used with another payload: take a new key"
            )
        # Somebody else has just written the key: the next snapshot shows with which payload.
    raise UnavailableError("others use the same idempotency key all the time: try again")


async def cancel_requests(pool: Pool, incarnation: int) -> Sequence[tuple[int, int]]:
    """As the port says."""
    return [(row[0], row[1]) for row in await pool.fetch(_CANCEL_REQUESTS, incarnation)]


async def running(pool: Pool, incarnation: int, name: str) -> Sequence[tuple[int, int]]:
    """As the port says; for a start or after an outage, not for every second."""
    return [(row[0], row[1]) for row in await pool.fetch(_RUNNING, incarnation, name)]


def _check_text(name: str, text: str) -> None:
    if "\0" in text:
        raise InvalidError((Problem((name,), "holds a NUL character"),))
