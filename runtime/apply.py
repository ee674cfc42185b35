"""Applies job files to a node's database: callables looked up, each tenant in one transaction."""

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
    adopt: bool = False,
    prune: bool = False,
    dry_run: bool = False,
) -> dict[str, Applied]:
    """Make the files the definitions of their source; what changed, by tenant.

    Raises:
        InvalidFileError: A callable, dependency or calendar is wrong; each is told with its place.
        ConflictError: A job belongs to another source, or is pruned though needed.
    """
    files = await resolve_files(files, cwd=cwd)
    answers: dict[str, Applied] = {}
    for part in _parts(files):

        async def work(conn: Connection, part: _Part = part) -> Applied:
            return await apply(
                conn, **part.given(), now=now, who=who, adopt=adopt, prune=prune, dry_run=dry_run
            )

        answers[part.tenant] = await part.applied(pool, work)
    return answers


async def apply_at_start(
    pool: Pool, files: FileSet, *, cwd: Path, now: datetime
) -> dict[str, Applied | None]:
    """The same for a node that starts: only what is new for its source, and nothing is pruned.

    None stands for a tenant whose content was the last applied for that source.
    """
    files = await resolve_files(files, cwd=cwd)
    answers: dict[str, Applied | None] = {}
    for part in _parts(files):

        async def work(conn: Connection, part: _Part = part) -> Applied | None:
            return await apply_if_new(conn, **part.given(), now=now, who="start")

        answers[part.tenant] = await part.applied(pool, work)
    return answers


class _Given(TypedDict):
    tenant: str
    source: str
    jobs: list[JobSpec]
    calendars: dict[str, Calendar]
    content_hash: bytes


class _Part:
    """What the files hold for one tenant: one transaction."""

    def __init__(self, files: FileSet, tenant: str) -> None:
        self.tenant = tenant
        self._files = files
        self._jobs = [job for job in files.jobs if job.spec.tenant == tenant]

    def given(self) -> _Given:
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

    async def applied(self, pool: Pool, work: Callable[[Connection], Awaitable[Answer]]) -> Answer:
        """Run the transaction; what is wrong with a job is told with its place in its file."""
        try:
            return await transact(pool, self.tenant, work)
        except InvalidError as error:
            raise InvalidFileError(map(self._located, error.problems)) from None

    def _located(self, problem: Problem) -> FileProblem:
        match problem.path:
            case ("jobs", int(number), *rest):
                return self._jobs[number].problem(tuple(rest), problem.message)
            case _:
                return FileProblem(self._files.source, Place(1, 1), "", problem.message)


def _parts(files: FileSet) -> list[_Part]:
    return [_Part(files, tenant) for tenant in files.tenants]
