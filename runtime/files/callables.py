"""Finds out, in a child process, whether python callables exist and what kind each is."""

import json
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath
from subprocess import DEVNULL, PIPE
from typing import Final

import anyio
import msgspec

from protocols.errors import TickwrightError
from protocols.jobs import Isolation, JobSpec, PythonTask
from runtime.files.load import FileSet, Located
from runtime.files.places import FileProblem, InvalidFileError
from runtime.hosts.guardian import boot

IMPORT_WITHIN_S: Final = 60.0
_PASSED_ON: Final = ("PATH", "HOME", "LANG", "TZ", "TMPDIR")


class Callable(msgspec.Struct, frozen=True):
    """How a callable is run unless its job says otherwise, or why it cannot be had."""

    isolation: Isolation | None
    error: str = ""


async def look_up(
    targets: Sequence[str], *, cwd: FilePath, python_path: Sequence[str] = ()
) -> dict[str, Callable]:
    """What each of these `package.module:function` is, imported as its job's host would do it.

    Raises:
        TickwrightError: The child could not be started, or was killed.
    """
    wanted = sorted(set(targets))
    if not wanted:
        return {}
    env = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    env["PYTHONPATH"] = os.pathsep.join((str(cwd), *python_path))
    try:
        output = await _run(json.dumps(wanted).encode(), env, cwd)
    except TimeoutError:
        reason = f"importing took longer than {IMPORT_WITHIN_S:g} s"
        return dict.fromkeys(wanted, Callable(None, reason))
    except OSError as error:
        raise TickwrightError(f"no process to import callables in: {error.strerror}") from error
    try:
        answers = msgspec.json.decode(output, type=list[tuple[str, str]])
    except msgspec.DecodeError:
        return dict.fromkeys(wanted, Callable(None, "importing it ended the process"))
    kinds: Mapping[str, Isolation] = {"async": "shared", "sync": "process"}
    return {
        target: Callable(kinds.get(kind), reason)
        for target, (kind, reason) in zip(wanted, answers, strict=True)
    }


async def _run(questions: bytes, env: Mapping[str, str], cwd: FilePath) -> bytes:
    command = boot("runtime.files.callables_child")
    process = await anyio.open_process(
        command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=env, cwd=cwd, start_new_session=True
    )
    try:
        with anyio.fail_after(IMPORT_WITHIN_S):
            assert process.stdin is not None
            assert process.stdout is not None
            await process.stdin.send(questions)
            await process.stdin.aclose()
            output = b"".join([chunk async for chunk in process.stdout])
            await process.wait()
            return output
    finally:
        with anyio.CancelScope(shield=True):
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            await process.aclose()


def resolved(spec: JobSpec, found: Mapping[str, Callable]) -> JobSpec:
    """The job with its callable's isolation filled in."""
    task = spec.task
    if not isinstance(task, PythonTask) or task.isolation is not None:
        return spec
    isolation = found[task.target].isolation
    return msgspec.structs.replace(spec, task=msgspec.structs.replace(task, isolation=isolation))


async def resolve_files(
    files: FileSet, *, cwd: FilePath, python_path: Sequence[str] = ()
) -> FileSet:
    """The same files with every callable looked up.

    Raises:
        InvalidFileError: One is missing; each is told with its place.
    """
    targets = [job.spec.task.target for job in files.jobs if isinstance(job.spec.task, PythonTask)]
    found = await look_up(targets, cwd=cwd, python_path=python_path)
    problems: list[FileProblem] = []
    jobs: list[Located] = []
    for job in files.jobs:
        task = job.spec.task
        if isinstance(task, PythonTask) and found[task.target].isolation is None:
            message = f'"{task.target}" cannot be imported: {found[task.target].error}'
            problems.append(job.problem(("python",), message))
        else:
            jobs.append(msgspec.structs.replace(job, spec=resolved(job.spec, found)))
    if problems:
        raise InvalidFileError(problems)
    return msgspec.structs.replace(files, jobs=tuple(jobs))
