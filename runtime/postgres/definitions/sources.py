"""Which content was last applied for a source, so that a start applies only what is new."""

from datetime import datetime
from typing import Final

from runtime.postgres.operations.session import Connection

_HASH: Final = "SELECT content_hash FROM sources WHERE tenant = $1 AND source = $2"
_KEEP: Final = """
INSERT INTO sources (tenant, source, content_hash, applied_at) VALUES ($1, $2, $3, $4)
ON CONFLICT (tenant, source) DO UPDATE SET
    content_hash = excluded.content_hash, applied_at = excluded.applied_at
"""


async def last_applied(conn: Connection, tenant: str, source: str) -> bytes | None:
    """The hash of the content that was last applied for a source, or None."""
    found: bytes | None = await conn.fetchval(_HASH, tenant, source)
    return found


async def keep_applied(
    conn: Connection, tenant: str, source: str, content_hash: bytes, *, now: datetime
) -> None:
    """Remember what was applied for a source."""
    await conn.execute(_KEEP, tenant, source, content_hash, now)
