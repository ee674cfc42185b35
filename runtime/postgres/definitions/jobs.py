"""One job made, replaced, changed or deleted by itself: what the API does, by the rules of apply.

A job's version is its ETag. A change that names another version than the one in force is refused.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Final

import msgspec

from protocols.dags import DagTask
from protocols.durations import shown
from protocols.errors import ConflictError, InvalidError, PreconditionError, Problem
from protocols.jobs import JobSpec
from protocols.views import JobDetail
from runtime.postgres.definitions.apply import carry_out, make_plan
from runtime.postgres.definitions.delete import delete_jobs, refuse_needed
from runtime.postgres.definitions.stored import lock_definitions
from runtime.postgres.operations.audit import record
from runtime.postgres.operations.jobs_view import show_job
from runtime.postgres.operations.names import live_job
from runtime.postgres.operations.session import Connection

API: Final = "api"
"""The source of what the API makes; Python programs have their own."""

# Index: jobs_name.
_STANDING: Final = """
SELECT version, source, EXISTS (SELECT FROM dags d WHERE d.job_key = jobs.job_key) AS is_dag
FROM jobs WHERE tenant = $1 AND job_id = $2 AND deleted_at IS NULL
"""


class Written(msgspec.Struct, frozen=True):
    """A job as it stands now, and whether it is new."""

    job: JobDetail
    created: bool


async def create_job(
    conn: Connection, *, tenant: str, spec: JobSpec, who: str, now: datetime, source: str = API
) -> JobDetail:
    """Make a job.

    Raises:
        ConflictError: there is one of this id.
        InvalidError: as `apply`; paths begin with the field.
    """
    await lock_definitions(conn, tenant)
    if await conn.fetchrow(_STANDING, tenant, spec.job_id) is not None:
        raise ConflictError(
            f"there is a job {shown(spec.job_id)} already: replace it, or take another id"
        )
    return await _write(
        conn, spec, tenant=tenant, source=source, adopt=False, who=who, action="create", now=now
    )


async def replace_job(
    conn: Connection,
    *,
    tenant: str,
    spec: JobSpec,
    who: str,
    now: datetime,
    if_match: int | None = None,
    adopt: bool = False,
    source: str = API,
) -> Written:
    """Put a job in place, whether there was one or not.

    Args:
        conn: within a transaction of the tenant.
        tenant: whose.
        spec: all of it.
        who: for the audit row.
        now: when it takes force.
        if_match: the version that the caller has seen.
        adopt: take it over where it is another source's.
        source: whose it is from then on.

    Raises:
        PreconditionError: another version is in force, or none.
        ConflictError: it is another source's, or a DAG.
        InvalidError: as `apply`; paths begin with the field.
    """
    await lock_definitions(conn, tenant)
    row = await conn.fetchrow(_STANDING, tenant, spec.job_id)
    if row is not None and row["is_dag"]:
        raise _is_dag(spec.job_id)
    _check_version(spec.job_id, None if row is None else row["version"], if_match)
    action = "create" if row is None else "replace"
    job = await _write(
        conn, spec, tenant=tenant, source=source, adopt=adopt, who=who, action=action, now=now
    )
    return Written(job, created=row is None)


async def change_job(
    conn: Connection,
    *,
    tenant: str,
    job_id: str,
    change: Callable[[JobSpec], JobSpec],
    who: str,
    now: datetime,
    if_match: int | None = None,
    adopt: bool = False,
    source: str = API,
) -> JobDetail:
    """Change some of a job: `change` is given the version in force, and returns the next.

    Raises what `replace_job` raises, what `change` raises, and:
        NotFoundError: there is none of this id.
        ConflictError: `change` gives it another id, or it is a DAG.
    """
    await lock_definitions(conn, tenant)
    before = await show_job(conn, tenant=tenant, job_id=job_id)
    if isinstance(before.spec.task, DagTask):
        raise _is_dag(job_id)
    _check_version(job_id, before.version, if_match)
    spec = change(before.spec)
    if spec.job_id != job_id:
        raise ConflictError("a job keeps its id: make another one, and delete this one")
    return await _write(
        conn, spec, tenant=tenant, source=source, adopt=adopt, who=who, action="change", now=now
    )


async def delete_job(
    conn: Connection,
    *,
    tenant: str,
    job_id: str,
    who: str,
    now: datetime,
    if_match: int | None = None,
) -> None:
    """Delete a job, whosever it is; what of it has not started is cancelled, what runs goes on.

    Raises:
        NotFoundError: there is none of this id.
        PreconditionError: another version is in force.
        ConflictError: another job depends on it, or is triggered by it.
    """
    await lock_definitions(conn, tenant)
    job = await live_job(conn, tenant, job_id, lock=True)
    _check_version(job_id, job["version"], if_match)
    await refuse_needed(conn, [job["job_key"]])
    await delete_jobs(conn, [job["job_key"]], now=now)
    await record(
        conn,
        tenant=tenant,
        who=who,
        action="delete",
        target=job_id,
        detail={"source": job["source"], "version": job["version"]},
        now=now,
    )


async def _write(
    conn: Connection,
    spec: JobSpec,
    *,
    tenant: str,
    source: str,
    adopt: bool,
    who: str,
    action: str,
    now: datetime,
) -> JobDetail:
    try:
        plan = await make_plan(
            conn,
            tenant=tenant,
            source=source,
            jobs=[spec],
            calendars={},
            adopt=adopt,
            prune=False,
        )
    except InvalidError as error:
        # There is one job here, not a list of them.
        problems = (Problem(p.path[2:], p.message) for p in error.problems)
        raise InvalidError(tuple(problems)) from error
    await carry_out(conn, plan, tenant=tenant, source=source, now=now)
    job = await show_job(conn, tenant=tenant, job_id=spec.job_id)
    await record(
        conn,
        tenant=tenant,
        who=who,
        action=action,
        target=spec.job_id,
        detail={"version": job.version},
        now=now,
    )
    return job


def _is_dag(job_id: str) -> ConflictError:
    return ConflictError(f"{shown(job_id)} is a DAG: change its file, and apply that")


def _check_version(job_id: str, version: int | None, if_match: int | None) -> None:
    if if_match is None or if_match == version:
        return
    stands = "there is no such job" if version is None else f"version {version} is in force"
    raise PreconditionError(
        f"the job {shown(job_id)} is not at version {if_match}: {stands}; read it again"
    )
