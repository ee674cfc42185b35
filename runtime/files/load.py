"""Loads job files: every path given, every file whole, every error at once."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any, Final

import msgspec

from protocols.errors import InvalidError, Problem
from protocols.jobs import JobSpec
from protocols.schedule_text import parse_calendar
from protocols.schedules import Calendar
from runtime.files.fields import NAME, Fields, Refused, matching
from runtime.files.jobs import read_job
from runtime.files.places import Document, FileProblem, InvalidFileError, Path, Place
from runtime.files.yaml import FILE_BYTES_MAX, read_yaml

FILES_MAX: Final = 10_000
_ENDINGS: Final = frozenset({".yaml", ".yml"})
_tenant = matching(NAME, "a tenant's name")


class Located(msgspec.Struct, frozen=True):
    """A job and where it stands, so that later checks can tell their errors with a place."""

    spec: JobSpec
    document: Document
    path: Path

    def problem(self, path: Path, message: str) -> FileProblem:
        """An error about the part of this job at `path`."""
        return self.document.locate(Problem((*self.path, *path), message))


class FileSet(msgspec.Struct, frozen=True):
    """What the given paths hold; `content_hash` changes whenever any of it does."""

    source: str
    jobs: tuple[Located, ...]
    calendars: dict[tuple[str, str], Calendar]
    """By (tenant, name)."""
    content_hash: bytes

    @property
    def tenants(self) -> tuple[str, ...]:
        """The tenants these files speak for, sorted."""
        named = {job.spec.tenant for job in self.jobs} | {tenant for tenant, _ in self.calendars}
        return tuple(sorted(named))


def load_files(paths: Sequence[FilePath], *, source: str | None = None) -> FileSet:
    """Read all job files below `paths`.

    Raises:
        InvalidFileError: With every error of every file.
    """
    problems: list[FileProblem] = []
    texts: list[tuple[str, bytes]] = []
    for file in _files(paths, problems):
        try:
            texts.append((str(file), _read(file)))
        except InvalidFileError as error:
            problems.extend(error.problems)
    name = source or "+".join(path.name or str(path) for path in paths)
    return load_texts(texts, source=name, problems=problems)


def load_texts(
    texts: Iterable[tuple[str, bytes]], *, source: str, problems: Iterable[FileProblem] = ()
) -> FileSet:
    """Read job files that are at hand as (name, text); `problems` are told with what is found.

    Raises:
        InvalidFileError: With every error of every file.
    """
    wrong = list(problems)
    jobs: list[Located] = []
    calendars: dict[tuple[str, str], Calendar] = {}
    digest = hashlib.sha256()
    for name, text in texts:
        digest.update(hashlib.sha256(text).digest())
        try:
            document = read_yaml(name, text)
        except InvalidFileError as error:
            wrong.extend(error.problems)
            continue
        found, problems_here = _read_document(document, calendars)
        jobs.extend(found)
        wrong.extend(problems_here)
    wrong.extend(_twice(jobs))
    if wrong:
        raise InvalidFileError(wrong)
    return FileSet(source, tuple(jobs), calendars, digest.digest())


def _files(paths: Iterable[FilePath], problems: list[FileProblem]) -> list[FilePath]:
    found: list[FilePath] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix in _ENDINGS and p.is_file())
            if not inside:
                problems.append(_whole(path, "this folder holds no .yaml file"))
            found += [file for file in inside if file not in found]
        elif path not in found:
            found.append(path)
    if len(found) > FILES_MAX:
        problems.append(_whole(found[FILES_MAX], f"at most {FILES_MAX:,} files are read at once"))
        return found[:FILES_MAX]
    return found


def _read(file: FilePath) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}"
        raise InvalidFileError([_whole(file, reason)]) from None
    except ValueError:
        raise InvalidFileError([_whole(file, "this is not a file's name")]) from None


def _whole(file: FilePath, message: str) -> FileProblem:
    return FileProblem(str(file), Place(1, 1), "", message)


def _read_document(
    document: Document, calendars: dict[tuple[str, str], Calendar]
) -> tuple[list[Located], list[FileProblem]]:
    problems: list[Problem] = []
    if document.data is None:
        return [], []
    fields = Fields(document.data, (), problems, what="a job file: a mapping with `jobs:`")
    tenant = fields.take("tenant", _tenant, "default")
    own = _calendars(fields)
    calendars.update({(tenant, name): calendar for name, calendar in own.items()})
    defaults: dict[str, Any] = fields.take("defaults", _mapping, {})
    fields.later("dags", "a DAG")
    raw = fields.raw("jobs")
    fields.close()
    if "job_id" in defaults:
        fields.refuse(("defaults", "job_id"), "each job has an id of its own")
    if raw is not None and not isinstance(raw, list):
        fields.refuse(("jobs",), "jobs are a list")
        raw = None
    jobs = []
    for i, one in enumerate(raw or []):
        path: Path = ("jobs", i)
        found: list[Problem] = []
        spec = read_job(one, path, found, tenant=tenant, defaults=defaults, calendars=own)
        problems += [_at_home(problem, one, defaults) for problem in found]
        if spec is not None:
            jobs.append(Located(spec, document, path))
    return jobs, [document.locate(problem) for problem in dict.fromkeys(problems)]


def _at_home(problem: Problem, job: object, defaults: Mapping[str, Any]) -> Problem:
    """What is wrong with a default is told where it stands, and so only once for all jobs."""
    match problem.path:
        case (_, _, str(field), *_) if (
            field in defaults and isinstance(job, dict) and field not in job
        ):
            return msgspec.structs.replace(problem, path=("defaults", *problem.path[2:]))
        case _:
            return problem


def _calendars(fields: Fields) -> dict[str, Calendar]:
    raw: dict[str, Any] = fields.take("calendars", _mapping, {})
    found = {}
    for name, value in raw.items():
        try:
            found[name] = parse_calendar(value, path=("calendars", name))
        except InvalidError as error:
            fields.problems.extend(error.problems)
    return found


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refused("this is not a mapping")
    return value


def _twice(jobs: Iterable[Located]) -> list[FileProblem]:
    seen: dict[tuple[str, str], Located] = {}
    problems = []
    for job in jobs:
        key = (job.spec.tenant, job.spec.job_id)
        first = seen.setdefault(key, job)
        if first is not job:
            place = first.document.place((*first.path, "job_id"))
            at = f"{first.document.file}:{place.line}:{place.column}"
            message = f'"{job.spec.job_id}" stands at {at} already'
            problems.append(job.problem(("job_id",), message))
    return problems
