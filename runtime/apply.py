"""Applies job files to a node's database: callables looked up, all tenants in one transaction."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import TypedDict, TypeVar

from protocols.errors import InvalidError, Problem
from protocols.jobs import JobSpec
from protocols.schedules import Calendar
from protocols.views import Applied
from runtime.files.callables import resolve_files
from runtime.files.load import FileSet
from runtime.files.places import FileProblem, InvalidFileError, Place
from runtime.files.triggers import kafka_problems
from runtime.postgres.definitions.apply import apply, apply_if_new
from runtime.postgres.operations.session import Connection, transact
from runtime.postgres.pool import Pool

Answer = TypeVar("Answer")


async def apply_files(
    pool: Pool,
    files: FileSet,
    *,
    cwd: Path,
    now: datetime,
    who: str,
    kafka: bool = False,
    adopt: bool = False,
    prune: bool = False,
    dry_run: bool = False,
) -> dict[str, Applied]:
    """Make the files the definitions of their source; what changed, by tenant.

    `kafka` says whether this node has one, and so may take jobs that its records trigger.

    Raises:
        InvalidFileError: A callable, dependency, calendar or trigger is wrong; each is told with
            its place.
        ConflictError: A job belongs to another source, or is pruned though needed.
    """

    async def one(conn: Connection, given: _Given) -> Applied:
        return await apply(
            conn, **given, now=now, who=who, adopt=adopt, prune=prune, dry_run=dry_run
        )

    if not kafka:
        _refuse_kafka(files)
    return await _together(pool, await resolve_files(files, cwd=cwd), one)


async def apply_at_start(
    pool: Pool, files: FileSet, *, cwd: Path, now: datetime, kafka: bool = False
) -> dict[str, Applied | None]:
    """The same for a node that starts: only what is new for its source, and nothing is pruned.

    None stands for a tenant whose content was the last applied for that source.
    """

    async def one(conn: Connection, given: _Given) -> Applied | None:
        return await apply_if_new(conn, **given, now=now, who="start")

    if not kafka:
        _refuse_kafka(files)
    return await _together(pool, await resolve_files(files, cwd=cwd), one)


def _refuse_kafka(files: FileSet) -> None:
    problems = [
        job.problem(problem.path, problem.message)
        for job in files.jobs
        for problem in kafka_problems(job.spec)
    ]
    if problems:
        raise InvalidFileError(problems)


async def _together(
    pool: Pool, files: FileSet, one: Callable[[Connection, "_Given"], Awaitable[Answer]]
) -> dict[str, Answer]:
    """Do one thing for each tenant of the files, all in one transaction; the answers by tenant."""
    parts = [_Part(files, tenant) for tenant in files.tenants]
    if not parts:
        return {}

    async def work(conn: Connection) -> dict[str, Answer]:
        answers = {}
        for part in parts:
            await conn.execute("SELECT set_config('tickwright.tenant', $1, true)", part.tenant)
            try:
                answers[part.tenant] = await one(conn, part.given())
            except InvalidError as error:
                raise InvalidFileError(map(part.located, error.problems)) from None
        return answers

    return await transact(pool, parts[0].tenant, work)


class _Given(TypedDict):
    tenant: str
    source: str
    jobs: list[JobSpec]
    calendars: dict[str, Calendar]
    content_hash: bytes


class _Part:
    """What the files hold for one tenant."""

    def __init__(self, files: FileSet, tenant: str) -> None:
        self.tenant = tenant
        self._files = files
        self._jobs = [job for job in files.jobs if job.spec.tenant == tenant]

    def given(self) -> _Given:
        """What an apply takes."""
        return _Given(
            tenant=self.tenant,
            source=self._files.source,
            jobs=[job.spec for job in self._jobs],
            calendars={
                name: calendar
                for (tenant, name), calendar in self._files.calendars.items()
                if tenant == self.tenant
            },
            content_hash=self._files.content_hash,
        )

    def located(self, problem: Problem) -> FileProblem:
        """What is wrong with a job, with its place in its file."""
        match problem.path:
            case ("jobs", int(number), *rest):
                return self._jobs[number].problem(tuple(rest), problem.message)
            case _:
                return FileProblem(self._files.source, Place(1, 1), "", problem.message)
