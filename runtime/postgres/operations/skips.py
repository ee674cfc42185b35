"""Records instants that did not run, each, or a run of them, as one row of history."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from protocols.ports.store import DueInstant
from runtime.postgres.operations.events import logged
from runtime.postgres.operations.session import Connection


class Skip(msgspec.Struct, frozen=True):
    """An instant, or a run of instants, of a job's version that is skipped for `reason`."""

    job_key: int
    version: int
    instant: DueInstant
    reason: str


_RECORD: Final = f"""
WITH skipped AS (
    INSERT INTO execution_history (
        id, created_at, tenant, job_id, job_key, version, needs, scheduled_for, pool, priority,
        state, reason, finished_at, last_scheduled_for, instants
    )
    SELECT nextval('execution_ids'), $2, $1, v.job_id, n.job_key, n.version, v.needs,
        n.scheduled_for, v.pool, v.priority, 'skipped', n.reason, $2, n.last_scheduled_for,
        n.instants
    FROM unnest(
        $3::bigint[], $4::integer[], $5::timestamptz[], $6::text[], $7::timestamptz[],
        $8::integer[]
    ) AS n (job_key, version, scheduled_for, reason, last_scheduled_for, instants)
    JOIN job_versions v ON v.job_key = n.job_key AND v.version = n.version
    RETURNING id, tenant, job_key, state
)
{logged("skipped", kind="'skipped'", at="$2")}
"""


async def record_skips(
    conn: Connection, skips: Sequence[Skip], *, tenant: str, now: datetime
) -> None:
    """Write these into history, in one statement, and tell the event log."""
    if not skips:
        return
    await conn.execute(
        _RECORD,
        tenant,
        now,
        [s.job_key for s in skips],
        [s.version for s in skips],
        [s.instant.scheduled_for for s in skips],
        [s.reason for s in skips],
        [s.instant.last for s in skips],
        [s.instant.count for s in skips],
    )
