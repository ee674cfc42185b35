"""Takes back executions that were inserted ahead of their instant and have not started.

Pause, apply and delete do so before they answer. The schedule's row goes back to where it stood
before them, so that each of these instants is decided again, by what holds then.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from runtime.postgres.operations.session import Connection

# A fire that is under way commits before this goes on, and the statement after it sees its rows.
# Index: schedules_pkey.
_LOCK: Final = """
SELECT FROM schedules WHERE job_key = ANY($1::bigint[]) ORDER BY job_key FOR UPDATE
"""

# Rows of an instant still to come, as fire inserted them: never claimed, never re-opened.
# Index: executions_instant.
_WITHDRAW: Final = """
WITH ahead AS MATERIALIZED (
    SELECT id FROM executions
    WHERE job_key = ANY($1::bigint[]) AND origin = 0 AND scheduled_for > $2
        AND state IN ('scheduled', 'blocked') AND attempt = 0 AND run = 1
    ORDER BY id
    FOR UPDATE
), gone AS (
    DELETE FROM executions WHERE id IN (SELECT id FROM ahead) RETURNING job_key, scheduled_for
), earliest AS (
    SELECT job_key, min(scheduled_for) AS scheduled_for FROM gone GROUP BY job_key
)
UPDATE schedules s
SET cursor = least(s.cursor, $2), next_fire_at = least(s.next_fire_at, e.scheduled_for)
FROM earliest e
WHERE s.job_key = e.job_key
"""


async def withdraw(conn: Connection, job_keys: Sequence[int], *, now: datetime) -> None:
    """Withdraw what these jobs have in the table for instants after `now`."""
    if job_keys:
        await conn.execute(_LOCK, job_keys)
        await conn.execute(_WITHDRAW, job_keys, now)
