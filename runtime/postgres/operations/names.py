"""Finds jobs by the names that people use, and says what they may have meant."""

from typing import Final

import asyncpg

from protocols.errors import NotFoundError
from protocols.nearest import Nearest
from runtime.postgres.definitions.dependencies import unknown_job
from runtime.postgres.definitions.stored import some_ids
from runtime.postgres.operations.session import Connection

# Indexes: jobs_name, jobs_deleted.
_EVER: Final = """
SELECT job_key FROM jobs WHERE tenant = $1 AND job_id = $2 AND deleted_at IS NULL
UNION ALL
SELECT job_key FROM jobs WHERE tenant = $1 AND job_id = $2 AND deleted_at IS NOT NULL
"""
# Index: jobs_name.
_LIVE: Final = """
SELECT job_key, job_id, source, version, enabled, paused, paused_reason
FROM jobs
WHERE tenant = $1 AND job_id = $2 AND deleted_at IS NULL AND NOT hidden
"""


async def keys_ever(conn: Connection, tenant: str, job_id: str) -> list[int]:
    """The keys of every job that has had this name, deleted ones too, the living one first.

    Raises:
        NotFoundError: there never was one; the nearest name is told.
    """
    keys = [row["job_key"] for row in await conn.fetch(_EVER, tenant, job_id)]
    if not keys:
        raise await unknown(conn, tenant, job_id)
    return keys


async def live_job(
    conn: Connection, tenant: str, job_id: str, *, lock: bool = False
) -> asyncpg.Record:
    """The job of this name; `lock` keeps others from changing it until the transaction ends.

    Raises:
        NotFoundError: there is none; the nearest name is told.
    """
    row = await conn.fetchrow(f"{_LIVE} FOR UPDATE" if lock else _LIVE, tenant, job_id)
    if row is None:
        raise await unknown(conn, tenant, job_id)
    return row


async def unknown(conn: Connection, tenant: str, job_id: str) -> NotFoundError:
    """The error to raise for a job that is not there."""
    return NotFoundError(unknown_job(job_id, Nearest(await some_ids(conn, tenant))))
