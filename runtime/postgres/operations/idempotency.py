"""A request that is sent again is answered again, and does nothing a second time.

The key and the answer are written in the transaction of what was done, so that neither is there
without the other. Whoever sends the same key at the same time waits for the first.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

import msgspec

from protocols.durations import shown
from protocols.errors import InvalidError, KeyReusedError, Problem
from runtime.postgres.operations.session import Connection

KEPT_S: Final = 86_400.0
"""How long a key is known."""
KEY_LENGTH_MAX: Final = 255


class Answered(msgspec.Struct, frozen=True):
    """An answer as JSON, and whether it is that of an earlier request."""

    answer: bytes
    known: bool


_LOCK: Final = """
SELECT pg_advisory_xact_lock(hashtextextended(
    'tickwright.idempotency:' || $1 || chr(31) || $2 || chr(31) || $3, 0
))
"""
# Index: idempotency_keys_pkey.
_FIND: Final = """
SELECT body_hash, answer::text AS answer FROM idempotency_keys
WHERE tenant = $1 AND scope = $2 AND key = $3 AND expires_at > $4
"""
_KEEP: Final = """
INSERT INTO idempotency_keys (tenant, scope, key, body_hash, answer, expires_at)
VALUES ($1, $2, $3, $4, $5::text::jsonb, $6)
ON CONFLICT (tenant, scope, key) DO UPDATE SET
    body_hash = excluded.body_hash, answer = excluded.answer, expires_at = excluded.expires_at
"""


async def answered_once(
    conn: Connection,
    work: Callable[[Connection], Awaitable[bytes]],
    *,
    tenant: str,
    scope: str,
    key: str,
    body_hash: bytes,
    now: datetime,
    kept_s: float = KEPT_S,
) -> Answered:
    """Do `work` and keep its answer under a key, or give the answer that is kept.

    Args:
        conn: within the transaction that `work` writes in.
        work: returns its answer as JSON; what raises is not kept.
        tenant: whose key it is.
        scope: which operation, on what; a key means nothing beyond it.
        key: the client's.
        body_hash: of what the client asked.
        now: by which a key expires.
        kept_s: how long from now.

    Raises:
        KeyReusedError: the key is known, with another body.
        InvalidError: the key is empty or too long.
    """
    if not 0 < len(key) <= KEY_LENGTH_MAX:
        text = f"an idempotency key has 1 to {KEY_LENGTH_MAX} characters"
        raise InvalidError((Problem(("key",), text),))
    await conn.execute(_LOCK, tenant, scope, key)
    row = await conn.fetchrow(_FIND, tenant, scope, key, now)
    if row is None:
        answer = await work(conn)
        expiry = now + timedelta(seconds=kept_s)
        await conn.execute(_KEEP, tenant, scope, key, body_hash, answer.decode(), expiry)
        return Answered(answer, known=False)
    if row["body_hash"] != body_hash:
        raise KeyReusedError(
            f"the idempotency key {shown(key)} was used for another request: take a new key"
        )
    return Answered(row["answer"].encode(), known=True)
