"""Loads job files: every path given, every file whole, every error at once."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any, Final

import msgspec

from protocols.dags import is_hidden
from protocols.errors import InvalidError, Problem
from protocols.jobs import JobSpec
from protocols.schedule_text import parse_calendar
from protocols.schedules import Calendar
from runtime.files.dags import read_dag
from runtime.files.fields import NAME, Fields, Refused, matching
from runtime.files.jobs import read_job
from runtime.files.places import Document, FileProblem, InvalidFileError, Path, Place
from runtime.files.yaml import FILE_BYTES_MAX, read_yaml

CALENDAR_NAME_CHARS_MAX: Final = 200
FILES_MAX: Final = 10_000
_ENDINGS: Final = frozenset({".yaml", ".yml"})
_tenant = matching(NAME, "a tenant's name")


class Located(msgspec.Struct, frozen=True):
    """A job, a DAG or a task of one, and where it stands: later errors are told with a place."""

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
    return load_texts(read_texts(paths), source=source or source_of(paths))


def source_of(paths: Sequence[FilePath]) -> str:
    """Whose jobs these paths hold, unless it is said: the names of the paths."""
    return "+".join(path.name or str(path) for path in paths)


def read_texts(paths: Sequence[FilePath]) -> list[tuple[str, bytes]]:
    """All job files below `paths`, each once, as (name, text).

    Raises:
        InvalidFileError: With every one that cannot be read; none is passed over.
    """
    problems: list[FileProblem] = []
    texts: list[tuple[str, bytes]] = []
    for file in _files(paths, problems):
        try:
            texts.append((str(file), _read(file)))
        except InvalidFileError as error:
            problems.extend(error.problems)
    if problems:
        # What can be read may be wrong as well, and a user would hear of it only after.
        load_texts(texts, source="", problems=problems)
    return texts


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
            document = read_yaml(name, text, as_written=_is_text)
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
    found: dict[FilePath, None] = {}
    for path in paths:
        try:
            is_folder = path.is_dir()
        except OSError as error:
            problems.append(_unreadable(error, path))
            continue
        found |= dict.fromkeys(_inside(path, problems) if is_folder else [path])
    files = list(found)
    if len(files) > FILES_MAX:
        problems.append(_whole(files[FILES_MAX], f"at most {FILES_MAX:,} files are read at once"))
    return files[:FILES_MAX]


def _inside(folder: FilePath, problems: list[FileProblem]) -> list[FilePath]:
    """The job files below a folder, sorted; what cannot be looked into is a problem."""
    found: list[FilePath] = []
    before = len(problems)
    walk = os.walk(folder, onerror=lambda error: problems.append(_unreadable(error, folder)))
    for here, _, names in walk:
        for file in (FilePath(here, name) for name in names):
            if file.suffix not in _ENDINGS:
                continue
            if file.is_file() or not file.exists():
                found.append(file)  # a link that leads nowhere is told when it is read
            else:
                problems.append(_whole(file, "this is not a file"))
    if not found and len(problems) == before:
        problems.append(_whole(folder, "this folder holds no .yaml file"))
    return sorted(found)


def _unreadable(error: OSError, path: FilePath) -> FileProblem:
    return _whole(FilePath(error.filename or path), f"cannot be read: {error.strerror or error}")


def _read(file: FilePath) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise InvalidFileError([_unreadable(error, file)]) from None
    except ValueError:
        raise InvalidFileError([_whole(file, "this is not a file's name")]) from None


def _is_text(path: Path) -> bool:
    """Whether a value is text by its place: `VERSION: 1.10` is no number in an environment."""
    match path:
        case ("dags", int(), "tasks", int(), *rest) | ("dags", int(), "defaults", *rest):
            pass
        case ("jobs", int(), *rest) | ("defaults", *rest):
            pass
        case _:
            return False
    match rest:
        case ("env", _) | ("http", "headers", _):
            return True
    return False


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
    dags = fields.raw("dags")
    raw = fields.raw("jobs")
    fields.close()
    if "job_id" in defaults:
        fields.refuse(("defaults", "job_id"), "each job has an id of its own")
    if raw is not None and not isinstance(raw, list):
        fields.refuse(("jobs",), "jobs are a list")
        raw = None
    jobs = []
    if dags is not None and not isinstance(dags, list):
        fields.refuse(("dags",), "DAGs are a list")
        dags = None
    for i, one in enumerate(dags or []):
        parts = read_dag(one, ("dags", i), problems, tenant=tenant, calendars=own)
        jobs += [Located(part, document, at) for part, at in parts]
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
        if not 0 < len(name) <= CALENDAR_NAME_CHARS_MAX or not name.isprintable():
            text = f"a calendar's name has 1 to {CALENDAR_NAME_CHARS_MAX} printable characters"
            fields.refuse(("calendars", name), text, of_key=True)
            continue
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
        if is_hidden(job.spec.job_id):
            continue
        key = (job.spec.tenant, job.spec.job_id)
        first = seen.setdefault(key, job)
        if first is not job:
            place = first.document.place((*first.path, _id_of(first)))
            at = f"{first.document.file}:{place.line}:{place.column}"
            message = f'"{job.spec.job_id}" stands at {at} already'
            problems.append(job.problem((_id_of(job),), message))
    return problems


def _id_of(job: Located) -> str:
    return "dag_id" if job.path[0] == "dags" else "job_id"
