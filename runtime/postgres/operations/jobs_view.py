"""Lists and shows jobs; a page costs a page, whether there are ten jobs or a million."""

from typing import Final

import asyncpg
import msgspec

from protocols.instants import iso
from protocols.jobs import JobSpec
from protocols.views import JobDetail, JobView, Page
from runtime.postgres.operations.cursors import cursor_of, number_of, page_size
from runtime.postgres.operations.names import unknown
from runtime.postgres.operations.rows import when
from runtime.postgres.operations.session import Connection

_COLUMNS: Final = """
    j.job_key, j.tenant, j.job_id, j.source, j.version, j.enabled, j.paused, j.paused_reason,
    j.tags, j.created_at, j.updated_at
"""

# What a job's line shows beside its own row. The newest execution that runs or is over: what has
# the job's turn by executions_turn, what else runs by executions_instant, what is over by
# execution_history_instant. Of `allow` jobs only executions of the schedule count while they run.
_BESIDE: Final = """
LEFT JOIN schedules s ON s.job_key = page.job_key
JOIN job_versions v ON v.job_key = page.job_key AND v.version = page.version
LEFT JOIN LATERAL (
    SELECT e.state FROM executions e
    WHERE e.job_key = page.job_key AND e.holds_turn AND e.state = 'running'
    LIMIT 1
) AS turn ON true
LEFT JOIN LATERAL (
    SELECT e.state FROM executions e
    WHERE e.job_key = page.job_key AND e.origin = 0 AND e.state = 'running'
    ORDER BY e.scheduled_for DESC LIMIT 1
) AS fired ON v.overlap = 'allow'
LEFT JOIN LATERAL (
    SELECT h.state FROM execution_history h
    WHERE h.job_key = page.job_key
    ORDER BY h.scheduled_for DESC, h.origin DESC LIMIT 1
) AS over ON true
"""
_SHOWN: Final = """
    v.spec -> 'schedule' ->> 'text' AS schedule,
    CASE WHEN v.spec ? 'schedule' THEN coalesce(v.spec -> 'schedule' ->> 'timezone', 'UTC') END
        AS timezone,
    s.next_fire_at, coalesce(turn.state, fired.state, over.state) AS last_state
"""

# Index: jobs_newest.
_LIST: Final = f"""
SELECT page.*, {_SHOWN}
FROM (
    SELECT {_COLUMNS} FROM jobs j
    WHERE j.tenant = $1 AND j.deleted_at IS NULL AND NOT j.hidden AND j.job_key < $2
    ORDER BY j.job_key DESC LIMIT $3
) AS page
{_BESIDE}
ORDER BY page.job_key DESC
"""

# Index: job_tags_pkey; a deleted job has no tags.
_LIST_TAGGED: Final = f"""
SELECT page.*, {_SHOWN}
FROM (
    SELECT {_COLUMNS} FROM (
        SELECT t.job_key FROM job_tags t
        WHERE t.tenant = $1 AND t.tag = $4 AND t.job_key < $2
        ORDER BY t.job_key DESC LIMIT $3
    ) AS tagged
    JOIN jobs j ON j.job_key = tagged.job_key
) AS page
{_BESIDE}
ORDER BY page.job_key DESC
"""

# Index: jobs_name.
_SHOW: Final = f"""
SELECT page.*, {_SHOWN}, v.spec::text AS spec, v.in_force_at
FROM (
    SELECT {_COLUMNS} FROM jobs j
    WHERE j.tenant = $1 AND j.job_id = $2 AND j.deleted_at IS NULL AND NOT j.hidden
) AS page
{_BESIDE}
"""

# Indexes: job_dependencies_pkey, job_triggers_parent.
_DEPENDENTS: Final = """
SELECT j.job_id FROM (
    SELECT child_key AS job_key FROM job_dependencies WHERE parent_key = $1
    UNION
    SELECT job_key FROM job_triggers WHERE parent_key = $1
) AS d
JOIN jobs j ON j.job_key = d.job_key AND j.deleted_at IS NULL
ORDER BY j.job_id LIMIT 1000
"""


async def list_jobs(
    conn: Connection,
    *,
    tenant: str,
    tag: str | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> Page[JobView]:
    """A page of jobs, the one made last first; `tag` leaves those that carry it.

    Raises:
        InvalidError: the cursor is none of this list.
    """
    size = page_size(limit)
    before = number_of(cursor)
    if tag is None:
        rows = await conn.fetch(_LIST, tenant, before, size + 1)
    else:
        rows = await conn.fetch(_LIST_TAGGED, tenant, before, size + 1, tag)
    following = cursor_of(rows[size - 1]["job_key"]) if len(rows) > size else None
    return Page(tuple(_view(row) for row in rows[:size]), following)


async def show_job(conn: Connection, *, tenant: str, job_id: str) -> JobDetail:
    """A job with the version in force. Raises `NotFoundError`, with the nearest name."""
    row = await conn.fetchrow(_SHOW, tenant, job_id)
    if row is None:
        raise await unknown(conn, tenant, job_id)
    dependents = await conn.fetch(_DEPENDENTS, row["job_key"])
    return JobDetail(
        **msgspec.structs.asdict(_view(row)),
        spec=msgspec.json.decode(row["spec"], type=JobSpec),
        in_force_at=iso(row["in_force_at"]),
        created_at=iso(row["created_at"]),
        updated_at=iso(row["updated_at"]),
        dependents=tuple(found["job_id"] for found in dependents),
    )


def _view(row: asyncpg.Record) -> JobView:
    return JobView(
        tenant=row["tenant"],
        job_id=row["job_id"],
        schedule=row["schedule"],
        timezone=row["timezone"],
        enabled=row["enabled"],
        paused=row["paused"],
        paused_reason=row["paused_reason"],
        next_fire_at=when(row["next_fire_at"]),
        last_state=row["last_state"],
        tags=tuple(row["tags"]),
        source=row["source"],
        version=row["version"],
    )
