"""Brings next fires in line with the zone database that this build carries."""

from typing import Final

import msgspec

from protocols.jobs import JobSpec
from runtime.postgres.definitions.rules import next_fire
from runtime.postgres.pool import Pool

_BATCH: Final = 1000

_VERSION: Final = "SELECT tzdata_version FROM house"
_KEEP: Final = "UPDATE house SET tzdata_version = $1"

# Index: schedules_pkey. What is being caught up says its own next step, and then the timer asks
# anew by itself.
_READ: Final = """
SELECT s.job_key, s.cursor, s.anchor, s.next_fire_at, v.spec::text AS spec
FROM schedules s
JOIN job_versions v ON v.job_key = s.job_key AND v.version = s.version
WHERE s.job_key > $1 AND s.next_fire_at IS NOT NULL AND s.catchup_from IS NULL
    AND v.spec -> 'schedule' ->> 'kind' = 'cron'
    AND coalesce(v.spec -> 'schedule' ->> 'timezone', 'UTC') <> 'UTC'
ORDER BY s.job_key
LIMIT $2
FOR UPDATE OF s
"""
_WRITE: Final = """
UPDATE schedules s SET next_fire_at = n.next_fire_at
FROM unnest($1::bigint[], $2::timestamptz[]) AS n (job_key, next_fire_at)
WHERE s.job_key = n.job_key
"""


async def recompute_for_tzdata(pool: Pool, version: str) -> int:
    """Recompute what a change of the zone database may have moved; returns how many it did.

    Cursors stay: what is decided is decided. The version is kept last, so that a start which is
    killed in between begins again, and finds what is done done.

    Args:
        pool: of the node's role, which sees all tenants.
        version: of the `tzdata` that this build carries, such as `2025.2`.
    """
    async with pool.transaction() as conn:
        if await conn.fetchval(_VERSION) == version:
            return 0
    last, moved = 0, 0
    while True:
        async with pool.transaction() as conn:
            rows = await conn.fetch(_READ, last, _BATCH)
            changed = []
            for row in rows:
                spec = msgspec.json.decode(row["spec"], type=JobSpec)
                due = next_fire(spec, cursor=row["cursor"], anchor=row["anchor"])
                if due != row["next_fire_at"]:
                    changed.append((row["job_key"], due))
            if changed:
                await conn.execute(_WRITE, [k for k, _ in changed], [due for _, due in changed])
                moved += len(changed)
            if len(rows) < _BATCH:
                await conn.execute(_KEEP, version)
                return moved
            last = rows[-1]["job_key"]
