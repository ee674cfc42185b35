"""`runtime check`: job files validated without a node, and when each job would fire."""

from datetime import datetime
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import anyio
import click
import msgspec

from actors.timer.schedule import compile_schedule
from protocols.dags import DagTask, is_hidden
from protocols.errors import InvalidError, Problem
from protocols.jobs import JobSpec
from runtime.cli.arguments import json_option, now
from runtime.cli.failures import FAILED
from runtime.cli.next import due_after
from runtime.cli.show import note, print_json, say, table
from runtime.files.callables import resolve_files
from runtime.files.load import FileSet, Located, load_files
from runtime.files.places import FileProblem, InvalidFileError
from runtime.postgres.definitions.calendars import resolve
from runtime.postgres.definitions.dags import sub_dag_cycle, sub_dag_problems, sub_dags
from runtime.postgres.definitions.dependencies import cycle_problem, find_cycle, unknown_names

_FIRES: Final = 3


@click.command()
@click.argument(
    "paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--known",
    metavar="JOB",
    multiple=True,
    help="A job that is applied already, and may be depended on.",
)
@json_option
def check_command(paths: tuple[Path, ...], known: tuple[str, ...], as_json: bool) -> int:  # noqa: FBT001
    """Validate job files, or folders of them, without a node.

    Every error is told with its place, FILE:LINE:COLUMN; python callables are imported in a child
    process. Without errors it prints when each job fires next.
    """
    try:
        files = _checked(paths, frozenset(known))
    except InvalidFileError as error:
        if as_json:
            print_json({"jobs": [], "errors": [_error(one) for one in error.problems]})
        else:
            for problem in error.problems:
                note(str(problem))
            count = len(error.problems)
            note(f"{count} {'error' if count == 1 else 'errors'}")
        return FAILED
    start = now()
    jobs = [_job(job.spec, start) for job in files.jobs if not is_hidden(job.spec.job_id)]
    if as_json:
        print_json({"jobs": jobs, "errors": []})
        return 0
    table(
        ("job", "schedule", "next fires"),
        [(_name(job), job["schedule"], _fires(job)) for job in jobs],
        empty="these files hold no jobs",
    )
    say(f"{len(jobs)} {'job' if len(jobs) == 1 else 'jobs'}, no errors")
    return 0


def _checked(paths: tuple[Path, ...], known: frozenset[str]) -> FileSet:
    """The files, with callables looked up and dependencies followed.

    Raises:
        InvalidFileError: With every error that was found.
    """
    files = load_files(paths)
    problems: list[FileProblem] = []
    ready: list[Located] = []
    for tenant in files.tenants:
        located = [job for job in files.jobs if job.spec.tenant == tenant]
        found = _dependency_problems([job.spec for job in located], known)
        own = {name: one for (of, name), one in files.calendars.items() if of == tenant}
        try:
            specs = resolve([job.spec for job in located], own)
        except InvalidError as error:
            found += error.problems
        else:
            pairs = zip(located, specs, strict=True)
            ready += [msgspec.structs.replace(job, spec=spec) for job, spec in pairs]
        problems += [_placed(located, problem) for problem in found]
    if not problems:
        files = msgspec.structs.replace(files, jobs=tuple(ready))
    answer = _looked_up(files)
    if isinstance(answer, InvalidFileError):
        raise InvalidFileError([*problems, *answer.problems])
    if problems:
        raise InvalidFileError(problems)
    return answer


def _looked_up(files: FileSet) -> FileSet | InvalidFileError:
    """The files with their callables looked up, or what is wrong with these."""
    answers: list[FileSet | InvalidFileError] = []

    async def look_up() -> None:
        # Nothing is returned: asyncio spells out what its main task has come to (through
        # signal.getsignal), which takes minutes and gigabytes where that is 10,000 tasks.
        try:
            answers.append(await resolve_files(files, cwd=Path.cwd()))
        except InvalidFileError as error:
            answers.append(error)

    anyio.run(look_up)
    return answers[0]


def _dependency_problems(specs: list[JobSpec], known: frozenset[str]) -> list[Problem]:
    ids = {spec.job_id for spec in specs if not is_hidden(spec.job_id)}
    problems = [
        Problem(p.path, f"{p.message} in these files (--known JOB, if it is applied already)")
        for p in [
            *unknown_names(specs, ids | known, ids),
            *sub_dag_problems(specs, {*known, *_dags(specs)}),
        ]
    ]
    cycle = find_cycle({spec.job_id: spec.dependencies for spec in specs})
    if cycle is not None:
        problems.append(cycle_problem(specs, cycle))
    circle = sub_dag_cycle(specs, sub_dags(specs))
    return problems if circle is None else [*problems, circle]


def _dags(specs: list[JobSpec]) -> set[str]:
    return {spec.job_id for spec in specs if isinstance(spec.task, DagTask)}


def _placed(located: list[Located], problem: Problem) -> FileProblem:
    _, number, *rest = problem.path
    assert isinstance(number, int), "a problem's path names its job by number"
    return located[number].problem(tuple(rest), problem.message)


def _job(spec: JobSpec, start: datetime) -> dict[str, Any]:
    schedule = spec.schedule
    fires: list[datetime] = []
    if schedule is not None and spec.enabled:
        compiled = compile_schedule(schedule, anchor=start, salt=b"", calendars=spec.calendars)
        first = compiled.first_after_apply(start) if schedule.kind == "after" else None
        fires = [first] if first is not None else due_after(compiled, start, _FIRES)
    return {
        "tenant": spec.tenant,
        "job_id": spec.job_id,
        "tasks": len(spec.task.tasks) if isinstance(spec.task, DagTask) else None,
        "schedule": None if schedule is None else schedule.text,
        "timezone": None if schedule is None else schedule.timezone,
        "next": [fire.isoformat() for fire in fires],
    }


def _name(job: dict[str, Any]) -> str:
    tasks = job["tasks"]
    if tasks is None:
        return str(job["job_id"])
    return f"{job['job_id']} (a DAG of {tasks:,} {'task' if tasks == 1 else 'tasks'})"


def _fires(job: dict[str, Any]) -> str:
    if job["schedule"] is None:
        return "by trigger, event or dependency"
    return "  ".join(_wall(text, job["timezone"]) for text in job["next"]) or "never"


def _wall(text: str, timezone: str) -> str:
    """An instant on the wall clock of the job's zone, which is what its author thinks in."""
    return datetime.fromisoformat(text).astimezone(ZoneInfo(timezone)).isoformat(timespec="seconds")


def _error(problem: FileProblem) -> dict[str, Any]:
    return {
        "file": problem.file,
        "line": problem.place.line,
        "column": problem.place.column,
        "path": problem.path,
        "message": problem.message,
    }
