"""What the event log tells of, as one tenant may see it: executions by their public ids."""

from collections.abc import Sequence
from typing import Final

import asyncpg

from runtime.postgres.operations.session import Connection

# Indexes: executions_pkey, execution_history_id. Row security leaves out other tenants'.
_NAMES: Final = """
SELECT e.id, e.created_at, e.job_id, e.scheduled_for, e.attempt
FROM executions e WHERE e.tenant = $1 AND e.id = ANY($2::bigint[])
UNION ALL
SELECT h.id, h.created_at, h.job_id, h.scheduled_for, h.attempt
FROM execution_history h WHERE h.tenant = $1 AND h.id = ANY($2::bigint[])
"""


async def read_names(
    conn: Connection, *, tenant: str, ids: Sequence[int]
) -> dict[int, asyncpg.Record]:
    """The rows of these keys that are the tenant's, with what names them, by key."""
    return {row["id"]: row for row in await conn.fetch(_NAMES, tenant, ids)}
