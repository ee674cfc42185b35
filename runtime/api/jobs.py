"""Jobs: listed, shown, made, replaced, changed and deleted, with the fields of job files."""

from functools import partial
from typing import Any, Final

import msgspec
from litestar import Response, delete, get, patch, post, put
from litestar.params import FromPath

from protocols.errors import ConflictError, InvalidError, NotFoundError, PreconditionError, Problem
from protocols.jobs import JobSpec, PythonTask
from protocols.messages import SchedulesChanged
from protocols.views import JobDetail, JobView, Page
from runtime.api.asked import (
    Asked,
    Given,
    Listing,
    answered,
    listed,
    made,
    shown_as,
)
from runtime.api.matching import Match, etag_of
from runtime.api.spelling import spelled
from runtime.files.callables import look_up, resolved
from runtime.files.jobs import read_job
from runtime.files.triggers import kafka_problems
from runtime.postgres.definitions.jobs import change_job, create_job, delete_job, replace_job
from runtime.postgres.definitions.stored import lock_definitions
from runtime.postgres.operations.jobs_view import list_jobs, show_job
from runtime.postgres.operations.session import Connection

_TRIES: Final = 5

Fields = dict[str, Any]


class Jobs(Listing, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which jobs: those that carry `tag`."""

    tag: str | None = None


class Adopting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether to take a job over that belongs to another source."""

    adopt: bool = False


class JobShown(JobDetail, frozen=True, kw_only=True):
    """A job, also as a job file has it: `definition` can be changed and sent back."""

    definition: dict[str, Any]


@get("/jobs", opt={"query": Jobs})
async def list_(asked: Given) -> Response[Page[JobView]]:
    """List jobs, the one made last first."""
    query = asked.query(Jobs)

    return await listed(asked, query, partial(list_jobs, tenant=asked.tenant, tag=query.tag))


@post("/jobs", opt={"body": Fields})
async def create(asked: Given) -> Response[JobShown]:
    """Make a job; the fields are those of a job file."""
    fields = await asked.body(Fields)
    spec = await _checked(asked, fields)

    async def work(conn: Connection) -> tuple[JobShown, tuple[SchedulesChanged]]:
        job = await create_job(conn, tenant=asked.tenant, spec=spec, who=asked.who, now=asked.now)
        return _shown(job), (SchedulesChanged(),)

    body, known = await asked.once("create", fields, work)
    job = msgspec.json.decode(body, type=JobShown)
    return made(JobShown, (body, known), ETag=etag_of(job), Location=f"/api/v1/jobs/{job.job_id}")


@get("/jobs/{job_id:str}")
async def show(asked: Given, job_id: FromPath[str]) -> Response[JobShown]:
    """Show a job with the version in force."""
    job = await asked.do(lambda conn: show_job(conn, tenant=asked.tenant, job_id=job_id))
    return shown_as(_shown(job), ETag=etag_of(job))


@put("/jobs/{job_id:str}", opt={"query": Adopting, "body": Fields})
async def replace(asked: Given, job_id: FromPath[str]) -> Response[JobShown]:
    """Put a job in place, whether there was one or not; 201 where it is new."""
    match, query = Match(asked.request), asked.query(Adopting)
    spec = await _checked(asked, _named(await asked.body(Fields), job_id))

    async def work(conn: Connection) -> tuple[JobDetail, bool]:
        await lock_definitions(conn, asked.tenant)
        match.check(await _standing(conn, asked.tenant, job_id))
        written = await replace_job(
            conn, tenant=asked.tenant, spec=spec, who=asked.who, now=asked.now, adopt=query.adopt
        )
        return written.job, written.created

    job, created = await asked.do(work)
    asked.hint(SchedulesChanged())
    body = msgspec.json.encode(_shown(job))
    return answered(JobShown, body, status=201 if created else 200, ETag=etag_of(job))


@patch("/jobs/{job_id:str}", opt={"query": Adopting, "body": Fields})
async def change(asked: Given, job_id: FromPath[str]) -> Response[JobShown]:
    """Change some fields of a job: a JSON merge patch (RFC 7396); null takes a field out."""
    match, query = Match(asked.request), asked.query(Adopting)
    changes = await asked.body(Fields)
    for left in range(_TRIES, 0, -1):
        seen = await asked.do(lambda conn: show_job(conn, tenant=asked.tenant, job_id=job_id))
        match.check(seen)
        wanted = merged(spelled(seen.spec), changes)
        if wanted.get("job_id") != job_id:
            raise ConflictError("a job keeps its id: make another one, and delete this one")
        spec = await _checked(asked, wanted)
        try:
            job = await asked.do(_changing(asked, seen, spec, adopt=query.adopt))
        except PreconditionError:
            # Somebody else changed it while the callable was looked up: their change stays.
            if match.given or left == 1:
                raise
            continue
        asked.hint(SchedulesChanged())
        return shown_as(_shown(job), ETag=etag_of(job))
    raise AssertionError


@delete("/jobs/{job_id:str}", status_code=204)
async def remove(asked: Given, job_id: FromPath[str]) -> None:
    """Delete a job: what has not started is cancelled, what runs goes on, history stays."""
    match = Match(asked.request)

    async def work(conn: Connection) -> None:
        await lock_definitions(conn, asked.tenant)
        match.check(await _standing(conn, asked.tenant, job_id))
        await delete_job(conn, tenant=asked.tenant, job_id=job_id, who=asked.who, now=asked.now)

    await asked.do(work)
    asked.hint(SchedulesChanged())


def merged(old: Any, changes: Any) -> Any:
    """`old` with a merge patch applied (RFC 7396, section 2)."""
    if not isinstance(changes, dict):
        return changes
    found = dict(old) if isinstance(old, dict) else {}
    for name, value in changes.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = merged(found.get(name), value)
    return found


def _changing(asked: Asked, seen: JobDetail, spec: JobSpec, *, adopt: bool) -> Any:
    async def work(conn: Connection) -> JobDetail:
        await lock_definitions(conn, asked.tenant)
        standing = await show_job(conn, tenant=asked.tenant, job_id=seen.job_id)
        if etag_of(standing) != etag_of(seen):
            raise PreconditionError(f"{etag_of(standing)} is in force now: read the job again")
        return await change_job(
            conn,
            tenant=asked.tenant,
            job_id=seen.job_id,
            change=lambda _: spec,
            who=asked.who,
            now=asked.now,
            adopt=adopt,
        )

    return work


def _shown(job: JobDetail) -> JobShown:
    return JobShown(**msgspec.structs.asdict(job), definition=spelled(job.spec))


async def _standing(conn: Connection, tenant: str, job_id: str) -> JobDetail | None:
    try:
        return await show_job(conn, tenant=tenant, job_id=job_id)
    except NotFoundError:
        return None


def _named(fields: Fields, job_id: str) -> Fields:
    """The fields of a PUT, which may leave the id to the path."""
    named = {"job_id": job_id, **fields}
    if named["job_id"] != job_id:
        raise InvalidError((Problem(("job_id",), f"the path names another job: {job_id}"),))
    return named


async def _checked(asked: Asked, fields: Fields) -> JobSpec:
    """The job that these fields describe, its callable looked up.

    Raises:
        InvalidError: with everything wrong in them.
    """
    problems: list[Problem] = []
    spec = read_job(fields, (), problems, tenant=asked.tenant, defaults={}, calendars={})
    if spec is None:
        raise InvalidError(tuple(problems))
    if not asked.node.settings.clustered and (refused := kafka_problems(spec)):
        raise InvalidError(tuple(refused))
    if not isinstance(spec.task, PythonTask):
        return spec
    found = await look_up([spec.task.target], cwd=asked.node.settings.tasks_cwd)
    callable_ = found[spec.task.target]
    if callable_.isolation is None:
        text = f"{spec.task.target} cannot be imported: {callable_.error}"
        raise InvalidError((Problem(("python",), text),))
    return resolved(spec, found)


ROUTES: Final = [list_, create, show, replace, change, remove]
