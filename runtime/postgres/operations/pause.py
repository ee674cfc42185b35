"""Pauses and resumes a job, or the whole house.

What falls due meanwhile is recorded as skipped by the timer, so that resuming has nothing to
make up. A paused job can still be triggered; a paused house runs nothing.
"""

from datetime import datetime
from typing import Final

from protocols.views import JobView
from runtime.postgres.definitions.stored import lock_definitions
from runtime.postgres.operations.audit import record
from runtime.postgres.operations.jobs_view import show_job
from runtime.postgres.operations.names import live_job
from runtime.postgres.operations.session import Connection
from runtime.postgres.operations.withdraw import withdraw

_JOB: Final = "UPDATE jobs SET paused = $2, paused_reason = $3, updated_at = $4 WHERE job_key = $1"
_SCHEDULE: Final = "UPDATE schedules SET paused = $2 WHERE job_key = $1"

_HOUSE: Final = "UPDATE house SET paused = $1, paused_reason = $2"
# A reshard holds the rows that there are: the statement after this one sees those that it adds.
_LOCK: Final = "SELECT FROM leaderships ORDER BY number FOR UPDATE"
# A fire holds its leadership's row, so it commits before this or sees it.
_LEADERSHIPS: Final = "UPDATE leaderships SET paused = $1"
_WITHDRAW_ALL: Final = "SELECT withdraw_all($1)"


async def pause_job(
    conn: Connection, *, tenant: str, job_id: str, reason: str | None, who: str, now: datetime
) -> JobView:
    """Stop a job from being fired by its schedule, its events and its dependencies.

    Pausing a paused job changes its reason. Raises `NotFoundError`.
    """
    job = await _set_paused(conn, tenant, job_id, paused=True, reason=reason, now=now)
    await withdraw(conn, [job], now=now)
    await record(
        conn,
        tenant=tenant,
        who=who,
        action="pause",
        target=job_id,
        detail={} if reason is None else {"reason": reason},
        now=now,
    )
    return await show_job(conn, tenant=tenant, job_id=job_id)


async def resume_job(
    conn: Connection, *, tenant: str, job_id: str, who: str, now: datetime
) -> JobView:
    """Let a job be fired again, from its next instant on. Raises `NotFoundError`."""
    await _set_paused(conn, tenant, job_id, paused=False, reason=None, now=now)
    await record(conn, tenant=tenant, who=who, action="resume", target=job_id, now=now)
    return await show_job(conn, tenant=tenant, job_id=job_id)


async def _set_paused(
    conn: Connection, tenant: str, job_id: str, *, paused: bool, reason: str | None, now: datetime
) -> int:
    await lock_definitions(conn, tenant)
    job = await live_job(conn, tenant, job_id, lock=True)
    key: int = job["job_key"]
    await conn.execute(_JOB, key, paused, reason, now)
    await conn.execute(_SCHEDULE, key, paused)
    return key


async def pause_house(
    conn: Connection, *, tenant: str, reason: str | None, who: str, now: datetime
) -> None:
    """Stop everything, of every tenant: nothing is claimed, what falls due is skipped.

    What runs goes on. The audit row is the tenant's who asked.
    """
    await conn.execute(_HOUSE, True, reason)
    await conn.execute(_LOCK)
    await conn.execute(_LEADERSHIPS, True)
    await conn.execute(_WITHDRAW_ALL, now)
    detail = {} if reason is None else {"reason": reason}
    await record(
        conn, tenant=tenant, who=who, action="pause --all", target="house", detail=detail, now=now
    )


async def resume_house(
    conn: Connection, *, tenant: str, who: str, now: datetime, reason: str | None = None
) -> None:
    """Let the house go on; the audit row has the reason."""
    await conn.execute(_HOUSE, False, None)
    await conn.execute(_LOCK)
    await conn.execute(_LEADERSHIPS, False)
    detail = {} if reason is None else {"reason": reason}
    await record(
        conn, tenant=tenant, who=who, action="resume --all", target="house", detail=detail, now=now
    )
