"""A guardian, its hosts and one executor, with what tests ask of them."""

import contextlib
import itertools
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import msgspec
import psutil

from protocols.jobs import CommandTask, PythonTask, Task
from protocols.ports.executor import Assignment, Outcome, Report, Request, Started
from runtime.hosts.executor import HostExecutor
from runtime.hosts.guardian import Guardian
from runtime.hosts.python_host import Reserve
from runtime.hosts.settings import HostSettings

PATIENCE_S = 60.0
_tokens = itertools.count(1_000)


async def eventually(condition: Callable[[], Any]) -> Any:
    """What the condition gives once it gives something true; fails when patience is over."""
    with anyio.fail_after(PATIENCE_S):
        while not (found := condition()):  # noqa: ASYNC110 - what it asks about tells nobody
            await anyio.sleep(0.01)
        return found


class NoLocks:
    """A keeper that has none, for tests of what has nothing to do with locks."""

    def ask(self, work: Any, host: Any, number: int, *_: Any) -> None:
        host.answer(number, None, "there are no locks here")

    def ending(self, token: int) -> None:
        pass

    def ended(self, token: int) -> None:
        pass


class House:
    """Everything between an assignment and its outcome, on real processes."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        functions, locks = options.pop("functions", None), options.pop("locks", None)
        self.settings = HostSettings(cwd=str(folder), **{"kill_grace_s": 0.5, **options})
        self.owner = f"test-{uuid.uuid4().hex}"
        self.guardian = Guardian(owner=self.owner)
        self.reserve = Reserve(self.guardian, self.settings)
        self.reports: list[Report] = []
        self.answers: dict[str, Callable[[Any], Any]] = {}
        self.batches = 0
        self.sure = True
        self.executor = HostExecutor(
            pool="default",
            guardian=self.guardian,
            reserve=self.reserve,
            settings=self.settings,
            now_ns=time.time_ns,
            sink=self._sink,
            sure=lambda: self.sure,
            locks=locks or NoLocks(),
            functions=functions,
        )

    def _sink(self, reports: Sequence[Report]) -> None:
        self.batches += 1
        self.reports += reports
        for report in reports:
            if isinstance(report, Request):
                value = None if report.value is None else msgspec.json.decode(report.value)
                answer = self.answers.get(report.kind, lambda _: None)
                try:
                    given = answer(value)
                except ValueError as error:
                    self.executor.answer(report.number, error=str(error))
                else:
                    self.executor.answer(report.number, value=given)

    def assignment(self, task: Task, **fields: Any) -> Assignment:
        token = next(_tokens)
        given = {
            "id": token,
            "execution_id": f"0199-{token}-{self.owner[-8:]}",
            "tenant": "default",
            "job_id": f"job_{token}",
            "version": 1,
            "attempt": 1,
            "fencing_token": token,
            "scheduled_for_ns": 1_767_225_600_123_456_000,
            "timeout_s": 30.0,
        }
        return Assignment(task=task, **{**given, **fields})

    def begin(self, task: Task, **fields: Any) -> Assignment:
        assignment = self.assignment(task, **fields)
        self.executor.start([assignment])
        return assignment

    def outcome(self, assignment: Assignment) -> Outcome | None:
        for report in self.reports:
            if isinstance(report, Outcome) and report.fencing_token == assignment.fencing_token:
                return report
        return None

    def started(self, assignment: Assignment) -> bool:
        return any(
            isinstance(report, Started) and report.fencing_token == assignment.fencing_token
            for report in self.reports
        )

    async def outcome_of(self, assignment: Assignment) -> Outcome:
        return await eventually(lambda: self.outcome(assignment))

    async def run(self, task: Task, **fields: Any) -> Outcome:
        return await self.outcome_of(self.begin(task, **fields))

    async def file(self, name: str) -> str:
        """The content of a file in the tasks' folder, once it has some."""
        path = self.folder / name
        return await eventually(lambda: path.exists() and path.read_text())

    def module(self, source: str, name: str = "tasks_of_test") -> None:
        (self.folder / f"{name}.py").write_text(source)

    def processes(self) -> set[int]:
        """All that runs for this house, however it detached."""
        return marked(f"RUNTIME_GUARDIAN={self.owner}/")


def marked(prefix: str) -> set[int]:
    """The living processes with a variable that begins like this."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            environ = (folder / "environ").read_bytes().split(b"\0")
            if any(variable.startswith(prefix.encode()) for variable in environ):
                found.add(int(folder.name))
    return found


def lives(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def text(outcome: Outcome) -> str:
    """What an attempt printed."""
    output = outcome.output
    return "" if output is None else (output.head + output.tail).decode()


def shell(line: str, **fields: Any) -> CommandTask:
    return CommandTask(shell=line, **fields)


def shared(function: str, *args: Any, **kwargs: Any) -> PythonTask:
    return PythonTask(
        target=f"tasks_of_test:{function}", args=args, kwargs=kwargs, isolation="shared"
    )


def process(function: str, *args: Any, **kwargs: Any) -> PythonTask:
    return PythonTask(
        target=f"tasks_of_test:{function}", args=args, kwargs=kwargs, isolation="process"
    )


@contextlib.asynccontextmanager
async def open_house(folder: Path, **options: Any) -> AsyncIterator[House]:
    """A house that leaves no process behind."""
    house = House(folder, **options)
    async with anyio.create_task_group() as group:
        group.start_soon(house.guardian.run)
        with anyio.fail_after(PATIENCE_S):
            await house.guardian.wait_up()
        group.start_soon(house.executor.run)
        try:
            yield house
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(PATIENCE_S):
                await house.executor.stop(0.0)
                house.reserve.close()
            group.cancel_scope.cancel()
    assert not house.processes()
