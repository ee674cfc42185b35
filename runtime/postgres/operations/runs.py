"""Takes single instants out of a row that stands for a run of skipped ones.

The row becomes what lies before them, a new one what lies after: each instant stays covered by
exactly one row.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from actors.timer.schedule import CompiledSchedule, from_us
from protocols.instants import epoch_us
from protocols.ports.store import DueInstant
from runtime.postgres.operations.session import Connection
from runtime.postgres.operations.skips import Skip, record_skips

_TICK: Final = timedelta(microseconds=1)


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A row of history that stands for `instants` skipped ones, from the first to the last."""

    id: int
    job_key: int
    version: int
    scheduled_for: datetime
    last_scheduled_for: datetime
    instants: int
    reason: str


# Index: execution_history_skipped; locked in the order of ids.
_READ: Final = """
SELECT id, job_key, version, scheduled_for, last_scheduled_for, instants, reason
FROM execution_history
WHERE tenant = $1 AND job_key = $2 AND state = 'skipped' AND instants > 1
    AND scheduled_for <= $4 AND last_scheduled_for >= $3
ORDER BY id
FOR UPDATE
"""
_DROP: Final = """
DELETE FROM execution_history WHERE tenant = $1 AND id = $2 AND scheduled_for = $3
"""
_SHORTEN: Final = """
UPDATE execution_history
SET instants = $4, last_scheduled_for = CASE WHEN $4 > 1 THEN $5::timestamptz END
WHERE tenant = $1 AND id = $2 AND scheduled_for = $3
"""


async def read_runs(
    conn: Connection, tenant: str, job_key: int, first: datetime, until: datetime
) -> list[Run]:
    """The runs of a job that reach into [first, until]."""
    rows = await conn.fetch(_READ, tenant, job_key, first, until)
    return [Run(**dict(row)) for row in rows]


async def take_out(
    conn: Connection,
    run: Run,
    taken: Sequence[datetime],
    schedule: CompiledSchedule,
    *,
    tenant: str,
    now: datetime,
) -> None:
    """Leave of a run what lies before and after some of its instants.

    Args:
        conn: within a transaction of the tenant.
        run: as `read_runs` gave it.
        taken: instants of it, one after the other without a gap, earliest first; not empty.
        schedule: of the run's version.
        tenant: whose.
        now: when the rest is recorded.
    """
    before = schedule.count(run.scheduled_for - _TICK, taken[0] - _TICK)
    after = max(0, run.instants - before - len(taken))
    if before:
        found = schedule.last_until_us(epoch_us(taken[0]) - 1)
        assert found is not None, "there are some before"
        reached = from_us(found)
        await conn.execute(_SHORTEN, tenant, run.id, run.scheduled_for, before, reached)
    else:
        await conn.execute(_DROP, tenant, run.id, run.scheduled_for)
    following = schedule.next_after(taken[-1])
    if after and following is not None:
        rest = DueInstant(
            scheduled_for=following,
            run_at=following,
            last=run.last_scheduled_for if after > 1 else None,
            count=after,
        )
        skip = Skip(run.job_key, run.version, rest, run.reason)
        await record_skips(conn, [skip], tenant=tenant, now=now)
