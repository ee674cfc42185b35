"""Locks as people see them: who holds which, and a release by hand."""

from datetime import datetime
from typing import Final

import asyncpg

from protocols.durations import shown
from protocols.errors import NotFoundError
from protocols.ids import execution_id
from protocols.instants import iso
from protocols.views import LockView, Page
from runtime.postgres.operations.audit import record
from runtime.postgres.operations.cursors import cursor_of, number_of, page_size
from runtime.postgres.operations.session import Connection

# What a holder's execution was is looked up by executions_pkey; one that has just ended has none.
_SHOWN: Final = """
SELECT l.tenant, l.name, l.token, l.fencing_token, l.ttl_s, l.taken_at, l.expires_at,
    e.id, e.created_at, e.job_id, e.attempt, n.name AS node
FROM {held} l
LEFT JOIN executions e ON e.id = l.execution AND e.fencing_token = l.fencing_token
LEFT JOIN nodes n ON n.incarnation = e.incarnation
"""

# locks_pkey, from end to end of the tenant: held locks are few.
_LIST: Final = (
    _SHOWN.format(held="locks")
    + """
WHERE l.tenant = $1 AND l.token < $2 AND l.fencing_token IS NOT NULL
    AND l.expires_at > clock_timestamp()
ORDER BY l.token DESC LIMIT $3
"""
)

_RELEASE: Final = """
WITH held AS (
    SELECT * FROM locks
    WHERE tenant = $1 AND name = $2 AND fencing_token IS NOT NULL
        AND expires_at > clock_timestamp()
    FOR UPDATE
), freed AS (
    UPDATE locks l SET fencing_token = NULL, execution = NULL, expires_at = clock_timestamp()
    FROM held h WHERE l.tenant = h.tenant AND l.name = h.name
)
""" + _SHOWN.format(held="held")


async def list_locks(
    conn: Connection, *, tenant: str, limit: int = 50, cursor: str | None = None
) -> Page[LockView]:
    """A page of the locks that are held, the one taken last first.

    Raises:
        InvalidError: the cursor is none of this list.
    """
    size = page_size(limit)
    rows = await conn.fetch(_LIST, tenant, number_of(cursor), size + 1)
    following = cursor_of(rows[size - 1]["token"]) if len(rows) > size else None
    return Page(tuple(_view(row) for row in rows[:size]), following)


async def release_lock(
    conn: Connection, *, tenant: str, name: str, who: str, now: datetime
) -> LockView:
    """Free a lock by hand; the attempt that holds it is cancelled when its node next looks.

    Returns:
        The lock as it was held.

    Raises:
        NotFoundError: nobody holds it.
    """
    row = await conn.fetchrow(_RELEASE, tenant, name)
    if row is None:
        raise NotFoundError(f"nobody holds a lock {shown(name)}: `runtime locks` lists those held")
    view = _view(row)
    detail = {"token": view.token, "execution_id": view.execution_id, "job_id": view.job_id}
    await record(
        conn, tenant=tenant, who=who, action="release_lock", target=name, detail=detail, now=now
    )
    return view


def _view(row: asyncpg.Record) -> LockView:
    return LockView(
        tenant=row["tenant"],
        name=row["name"],
        token=row["token"],
        execution_id=None if row["id"] is None else execution_id(row["id"], row["created_at"]),
        job_id=row["job_id"],
        attempt=row["attempt"],
        fencing_token=row["fencing_token"],
        node=row["node"],
        ttl_s=row["ttl_s"],
        taken_at=iso(row["taken_at"]),
        expires_at=iso(row["expires_at"]),
    )
