"""When a job is due next, by the version in force and the same rules as its timer."""

from datetime import datetime
from typing import Final

import msgspec

from protocols.instants import iso
from protocols.jobs import JobSpec
from runtime.postgres.definitions.rules import compiled
from runtime.postgres.operations.names import unknown
from runtime.postgres.operations.session import Connection

COUNT_MAX: Final = 10_000

# Indexes: jobs_name, job_versions_pkey, schedules_pkey.
_READ: Final = """
SELECT v.spec::text AS spec, s.anchor, s.next_fire_at
FROM jobs j
JOIN job_versions v ON v.job_key = j.job_key AND v.version = j.version
LEFT JOIN schedules s ON s.job_key = j.job_key
WHERE j.tenant = $1 AND j.job_id = $2 AND j.deleted_at IS NULL
"""


async def next_fires(
    conn: Connection, *, tenant: str, job_id: str, after: datetime, count: int
) -> tuple[str, ...]:
    """The next `count` instants after `after` that are not excluded, earliest first.

    Empty for a job without a schedule, and for one that is not enabled; of an `@after` schedule
    only the one that is set already is known. Raises `NotFoundError`.
    """
    row = await conn.fetchrow(_READ, tenant, job_id)
    if row is None:
        raise await unknown(conn, tenant, job_id)
    if row["anchor"] is None:
        return ()
    spec = msgspec.json.decode(row["spec"], type=JobSpec)
    ready = compiled(spec, row["anchor"])
    found: list[str] = []
    moment: datetime | None = after
    if ready.schedule.kind == "after":
        at = row["next_fire_at"]
        return (iso(at),) if at is not None and at > after else ()
    while moment is not None and len(found) < min(count, COUNT_MAX):
        moment = ready.next_run_after(moment)
        if moment is not None:
            found.append(iso(moment))
    return tuple(found)
