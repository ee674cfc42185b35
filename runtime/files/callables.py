"""Finds out, in a child process, whether python callables exist and what kind each is."""

import json
import os
import signal
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path as FilePath
from subprocess import DEVNULL, PIPE
from typing import Final, Literal

import anyio
import msgspec

from protocols.dags import DagTask, DagTaskSpec
from protocols.errors import TickwrightError
from protocols.jobs import Isolation, JobSpec, PythonTask
from runtime.files.load import FileSet
from runtime.files.places import FileProblem, InvalidFileError
from runtime.hosts.environment import base_environment, node_python_path
from runtime.hosts.guardian import boot

IMPORT_WITHIN_S: Final = 60.0
"""For all callables of one look-up together."""
OUTPUT_BYTES_MAX: Final = 64 * 1024**2
_ANSWER: Final = tuple[Literal["async", "sync", "error"], str]
_KINDS: Final[Mapping[str, Isolation]] = {"async": "shared", "sync": "process"}


class Callable(msgspec.Struct, frozen=True):
    """How a callable is run unless its job says otherwise, or why it cannot be had."""

    isolation: Isolation | None
    error: str = ""


async def look_up(targets: Sequence[str], *, cwd: FilePath) -> dict[str, Callable]:
    """What each of these `package.module:function` is, imported as its job's host would do it.

    A module that ends the process, or never returns, is told by its own target's error.

    Raises:
        TickwrightError: The child could not be started.
    """
    found: dict[str, Callable] = {}
    wanted = deque(sorted(set(targets)))
    until = anyio.current_time() + IMPORT_WITHIN_S
    while wanted:
        answers = await _ask(tuple(wanted), cwd, until)
        for kind, reason in answers:
            found[wanted.popleft()] = Callable(_KINDS.get(kind), reason)
        if not wanted:
            break
        if anyio.current_time() < until:
            found[wanted.popleft()] = Callable(None, "importing it ended the process")
            continue
        stuck = wanted.popleft()
        late = f"importing took longer than {IMPORT_WITHIN_S:g} s"
        found[stuck] = Callable(None, late)
        found |= dict.fromkeys(wanted, Callable(None, f"not looked at: {stuck}: {late}"))
        break
    return found


async def _ask(
    targets: Sequence[str], cwd: FilePath, until: float
) -> list[tuple[Literal["async", "sync", "error"], str]]:
    """The answers of one child: fewer than targets where one of them ended or held it."""
    questions = json.dumps(((str(cwd), *node_python_path()), targets)).encode()
    output = bytearray()
    try:
        with anyio.move_on_at(until):
            await _run(questions, cwd, output)
    except OSError as error:
        raise TickwrightError(f"no process to import callables in: {error.strerror}") from error
    answers = []
    for line in bytes(output).split(b"\n")[:-1]:
        try:
            answers.append(msgspec.json.decode(line, type=_ANSWER))
        except msgspec.DecodeError:
            break
    return answers[: len(targets)]


async def _run(questions: bytes, cwd: FilePath, output: bytearray) -> None:
    process = await anyio.open_process(
        boot("runtime.files.callables_child"),
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        env=base_environment(),
        cwd=cwd,
        start_new_session=True,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(anyio.BrokenResourceError):  # it ended before it had read all
            await process.stdin.send(questions)
            await process.stdin.aclose()
        async for chunk in process.stdout:
            output += chunk
            if len(output) > OUTPUT_BYTES_MAX:
                return
    finally:
        with anyio.CancelScope(shield=True):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.aclose()


def resolved(spec: JobSpec, found: Mapping[str, Callable]) -> JobSpec:
    """The job, or the DAG, with the isolation of its callables filled in."""
    task = spec.task
    if isinstance(task, DagTask):
        parts = tuple(_resolved_task(part, found) for part in task.tasks)
        return msgspec.structs.replace(spec, task=msgspec.structs.replace(task, tasks=parts))
    if not isinstance(task, PythonTask) or task.isolation is not None:
        return spec
    isolation = found[task.target].isolation
    return msgspec.structs.replace(spec, task=msgspec.structs.replace(task, isolation=isolation))


def _resolved_task(part: DagTaskSpec, found: Mapping[str, Callable]) -> DagTaskSpec:
    task = part.task
    if not isinstance(task, PythonTask) or task.isolation is not None:
        return part
    task = msgspec.structs.replace(task, isolation=found[task.target].isolation)
    return msgspec.structs.replace(part, task=task)


async def resolve_files(files: FileSet, *, cwd: FilePath) -> FileSet:
    """The same files with every callable looked up.

    Raises:
        InvalidFileError: One is missing; each is told with its place.
    """
    targets = [job.spec.task.target for job in files.jobs if isinstance(job.spec.task, PythonTask)]
    found = await look_up(targets, cwd=cwd)
    problems: list[FileProblem] = []
    for job in files.jobs:
        task = job.spec.task
        if isinstance(task, PythonTask) and found[task.target].isolation is None:
            message = f'"{task.target}" cannot be imported: {found[task.target].error}'
            problems.append(job.problem(("python",), message))
    if problems:
        raise InvalidFileError(problems)
    jobs = [msgspec.structs.replace(job, spec=resolved(job.spec, found)) for job in files.jobs]
    return msgspec.structs.replace(files, jobs=tuple(jobs))
