"""Lists executions that ended dead and that nobody has replayed or put away."""

from datetime import datetime
from typing import Final

from protocols.instants import iso
from protocols.views import DeadLetterView, Page
from runtime.postgres.operations.cursors import cursor_of, number_of, page_size
from runtime.postgres.operations.names import keys_ever
from runtime.postgres.operations.rows import FILED, execution_fields
from runtime.postgres.operations.session import Connection

# Index: execution_history_dead, which holds these and no others.
_LIST: Final = f"""
SELECT page.*, n.name AS node
FROM (
    SELECT {FILED} FROM execution_history h
    WHERE h.tenant = $1 AND h.state = 'dead' AND h.discarded_at IS NULL AND h.id < $2
        AND ($3::bigint[] IS NULL OR h.job_key = ANY($3))
        AND h.scheduled_for >= coalesce($4, '-infinity'::timestamptz)
    ORDER BY h.id DESC LIMIT $5
) AS page
LEFT JOIN nodes n ON n.incarnation = page.incarnation
ORDER BY page.id DESC
"""


async def list_dead_letters(
    conn: Connection,
    *,
    tenant: str,
    job_id: str | None = None,
    since: datetime | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> Page[DeadLetterView]:
    """A page of dead letters, the one made last first.

    Raises:
        NotFoundError: there never was such a job.
        InvalidError: the cursor is none of this list.
    """
    size = page_size(limit)
    before = number_of(cursor)
    keys = None if job_id is None else await keys_ever(conn, tenant, job_id)
    rows = await conn.fetch(_LIST, tenant, before, keys, since, size + 1)
    items = tuple(
        DeadLetterView(**execution_fields(row, ready=False), dead_at=iso(row["finished_at"]))
        for row in rows[:size]
    )
    return Page(items, cursor_of(rows[size - 1]["id"]) if len(rows) > size else None)
