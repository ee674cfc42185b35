"""Runs a pool's attempts where each belongs, and reports what becomes of them in batches."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

import anyio
import structlog

from protocols.jobs import CommandTask, HttpTask, PythonTask
from protocols.ports.executor import (
    Assignment,
    Outcome,
    OutcomeState,
    Output,
    Report,
    Request,
    Sink,
    Started,
)
from runtime.hosts.command import CommandRunner
from runtime.hosts.deadlines import Deadlines
from runtime.hosts.gate import Gate
from runtime.hosts.guardian import Guardian
from runtime.hosts.http import HttpRunner
from runtime.hosts.inline import InlineRunner
from runtime.hosts.lateness import Lateness
from runtime.hosts.locks import LockDesk
from runtime.hosts.output import plain
from runtime.hosts.process import ProcessRunner
from runtime.hosts.python_host import PythonHost, Reserve
from runtime.hosts.settings import HostSettings
from runtime.hosts.shared import SharedRunner
from runtime.hosts.work import Reason, Runner, Work, withdrawn_as

BEATS_MISSED = 3

log = structlog.get_logger("runtime.hosts")


class HostExecutor:
    """The Executor port of one pool.

    Made on the loop it is used on. `run` must be under way for `http` and `inline` tasks; `stop`
    ends everything. All methods are for the loop's own thread.
    """

    def __init__(
        self,
        *,
        pool: str,
        guardian: Guardian,
        reserve: Reserve,
        settings: HostSettings,
        now_ns: Callable[[], int],
        sink: Sink,
        locks: LockDesk,
        sure: Callable[[], bool],
        functions: Mapping[str, Callable[..., Any]] | None = None,
    ) -> None:
        """Wire the runners.

        Args:
            pool: the pool's name, for log lines.
            guardian: the node's guardian, running.
            reserve: the node's warm processes.
            settings: limits and places.
            now_ns: the Clock port's epoch nanoseconds.
            sink: takes reports.
            locks: keeps what attempts lock.
            sure: whether nobody can have declared this node dead; else nothing begins.
            functions: what `isolation: inline` may call, by target; only in embedding programs.
        """
        self._pool = pool
        self._settings = settings
        self._now_ns = now_ns
        self._sink = sink
        self._locks = locks
        self._loop = asyncio.get_running_loop()
        self._works: dict[int, Work] = {}
        self._deadlines = Deadlines(self._on_due)
        self._reports: list[Report] = []
        self._asked: dict[int, tuple[PythonHost, int]] = {}
        self._ask_number = 0
        self._offset_ns = 0
        self._stopping = False
        self._empty = anyio.Event()
        self._held_loops = 0
        self._finished: dict[str, int] = {}
        self.lateness = Lateness()
        self._commands = CommandRunner(guardian=guardian, settings=settings, desk=self)
        self._shared = SharedRunner(reserve=reserve, settings=settings, desk=self)
        self._process = ProcessRunner(
            guardian=guardian, reserve=reserve, settings=settings, desk=self
        )
        self._http = HttpRunner(settings=settings, desk=self)
        self._inline = InlineRunner(
            settings=settings, desk=self, functions=functions if functions is not None else {}
        )

        self._gate = Gate(sure=sure, withdraw=self._withdraw)
        self._of_isolation: dict[str | None, Runner] = {
            "shared": self._shared,
            "inline": self._inline,
        }

    async def run(self) -> None:
        """Own the tasks that run in the node itself, until cancelled."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._http.run)
            group.start_soon(self._inline.run)

    def start(self, assignments: Sequence[Assignment]) -> None:
        """Begin these; never blocks. Outcomes go to the sink, whatever happens to a host."""
        batches: dict[Runner, list[Work]] = {}
        works, now = self._works, self._loop.time()
        for assignment in assignments:
            if assignment.fencing_token in works:
                continue  # handed over twice: it is under way
            runner = self._runner(assignment)
            work = Work(assignment, runner)
            works[work.token] = work
            if self._stopping:
                work.reason = "shutdown"
                self.finish(work, "unstarted", error=work.why())
                continue
            self._deadlines.add(work, assignment.timeout_s, now)
            batch = batches.get(runner)
            if batch is None:
                batches[runner] = [work]
            else:
                batch.append(work)
        for runner, batch in batches.items():
            self._gate.pass_on(runner, batch)

    def cancel(self, id: int, fencing_token: int) -> None:  # noqa: A002, ARG002 - the port's
        """Ask one attempt to stop: cancelled at its next await or SIGTERM, killed after grace."""
        work = self._works.get(fencing_token)
        if work is not None:
            self._end(work, "cancel")

    def beat(self, id: int, fencing_token: int) -> None:  # noqa: A002, ARG002 - the port's
        """A command's heartbeat reached the node by its API."""
        work = self._works.get(fencing_token)
        if work is not None:
            work.beat_ns = time.monotonic_ns()

    def answer(self, number: int, *, value: Any = None, error: str | None = None) -> None:
        """Answer a `Request`."""
        asked = self._asked.pop(number, None)
        if asked is not None:
            host, host_number = asked
            host.answer(host_number, value, error)

    def holds(self) -> Sequence[tuple[int, int]]:
        """The (id, fencing token) of everything assigned and not yet reported."""
        untold = (report for report in self._reports if isinstance(report, Outcome))
        return [
            *((work.assignment.id, token) for token, work in self._works.items()),
            *((report.id, report.fencing_token) for report in untold),
        ]

    def statistics(self) -> dict[str, int]:
        """Counters for metrics: what is held, what ended how, loops held, hosts killed."""
        return {
            "held": len(self._works),
            "held_loops": self._held_loops,
            "hosts_killed": self._shared.hosts_killed + self._process.hosts_killed,
            **{f"finished_{state}": count for state, count in sorted(self._finished.items())},
        }

    async def wait_empty(self) -> None:
        """Return once nothing is held."""
        while self._works:
            if self._empty.is_set():
                self._empty = anyio.Event()  # one for all who wait
            await self._empty.wait()

    async def stop(self, grace_s: float) -> None:
        """Take no more; let work finish within `grace_s`, then end it, `lost` or `unstarted`."""
        self._stopping = True
        with anyio.move_on_after(grace_s):
            await self.wait_empty()
        for work in list(self._works.values()):
            self._end(work, "shutdown")
        await self.wait_empty()
        self._flush()
        self._deadlines.close()
        for runner in (self._commands, self._shared, self._process, self._http, self._inline):
            await runner.close()

    # What the runners call.

    def begun(self, work: Work, at_ns: int) -> None:
        """The attempt's first line is about to run."""
        work.begun_ns = at_ns
        given = work.assignment
        if not self._reports:
            self._schedule()
        self._reports.append(Started(given.id, work.token, at_ns + self._offset_ns))
        if given.heartbeat_s is not None:
            work.beat_ns = time.monotonic_ns()
            self._loop.call_later(given.heartbeat_s * BEATS_MISSED, self._check_beat, work)

    def finish(
        self,
        work: Work,
        state: OutcomeState,
        *,
        at_ns: int | None = None,
        error: str | None = None,
        exit_code: int | None = None,
        result: bytes | None = None,
        output: Output | None = None,
        unimportable: bool = False,
        bystander: bool = False,
    ) -> None:
        """The attempt has ended, and nothing of it lives on."""
        if self._works.pop(work.token, None) is None:
            return
        self._locks.ended(work.token)
        self._deadlines.discard(work)
        self._finished[state] = self._finished.get(state, 0) + 1
        if not self._reports:
            self._schedule()
        offset, given = self._offset_ns, work.assignment
        ended_ns = at_ns or time.monotonic_ns()
        if work.begun_ns and given.attempt == 1:
            self.lateness.add(work.begun_ns + offset - given.scheduled_for_ns)
        self._reports.append(
            Outcome(
                id=given.id,
                fencing_token=work.token,
                state=state,
                started_ns=(work.begun_ns or ended_ns) + offset,
                finished_ns=ended_ns + offset,
                exit_code=exit_code,
                error=None if error is None else plain(error),
                result=result,
                output=output,
                unimportable=unimportable,
                bystander=bystander or (state == "lost" and work.reason == "shutdown"),
            )
        )
        if not self._works:
            self._empty.set()

    def ask(self, work: Work, host: Any, number: int, kind: str, value: bytes | None) -> None:
        """The attempt asks the node."""
        if kind in {"lock", "unlock"}:
            self._locks.ask(work, host, number, kind, value, self._lose)
            return
        if kind == "heartbeat":
            work.beat_ns = time.monotonic_ns()
        self._ask_number += 1
        self._asked[self._ask_number] = (host, number)
        if not self._reports:
            self._schedule()
        self._reports.append(
            Request(
                number=self._ask_number,
                id=work.assignment.id,
                fencing_token=work.token,
                kind=cast("Literal['checkpoint', 'heartbeat', 'once', 'emit']", kind),
                value=value,
            )
        )

    def held(self, work: Work | None, for_s: float, stack: str) -> None:
        """An attempt has held its host's loop, and so everything else that runs there."""
        self._held_loops += 1
        log.warning(
            "host.loop_held",
            pool=self._pool,
            job_id=work.assignment.job_id if work is not None else None,
            execution_id=work.assignment.execution_id if work is not None else None,
            for_s=round(for_s, 1),
            stack=stack,
        )

    # Its own.

    def _runner(self, assignment: Assignment) -> Runner:
        # The many come first, and a type that matches exactly is known without asking its class.
        match assignment.task:
            case PythonTask(isolation=isolation):
                return self._of_isolation.get(isolation, self._process)
            case CommandTask():
                return self._commands
            case HttpTask():
                return self._http

    def _on_due(self, work: Work, now: float) -> None:
        """A deadline has come: of the attempt, or only of the wait for its start."""
        if work.token not in self._works or work.reason is not None:
            return
        timeout_s = work.assignment.timeout_s
        begun_ns = work.runner.begun_ns(work)
        left_s = timeout_s - (time.monotonic_ns() - begun_ns) / 1e9 if begun_ns else timeout_s
        if left_s > 0.001:  # noqa: PLR2004 - a loop's timer may come a little early
            self._loop.call_later(left_s, self._on_due, work, now)
            return
        self._end(work, "timeout")

    def _check_beat(self, work: Work) -> None:
        if self._works.get(work.token) is not work or work.reason is not None:
            return
        assert work.assignment.heartbeat_s is not None
        silent_s = (time.monotonic_ns() - work.beat_ns) / 1e9
        left_s = work.assignment.heartbeat_s * BEATS_MISSED - silent_s
        if left_s > 0:
            self._loop.call_later(left_s, self._check_beat, work)
        else:
            self._end(work, "heartbeat")

    def _end(self, work: Work, reason: Reason) -> None:
        if work.reason is None:
            work.reason = reason
            if self._gate.keeps(work):
                return  # it has not begun, and will not
            work.runner.end(work)
            self._locks.ending(work.token)  # behind the news that it is to end

    def _withdraw(self, work: Work) -> None:
        self.finish(work, withdrawn_as(work), error=work.why())

    def _lose(self, work: Work, why: str) -> None:
        """A lock that the attempt relies on is not its own any more."""
        if work.token in self._works and work.reason is None:
            work.told = why
            self._end(work, "lock")

    def _schedule(self) -> None:
        self._offset_ns = self._now_ns() - time.monotonic_ns()
        self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        reports, self._reports = self._reports, []
        if reports:
            self._sink(reports)
