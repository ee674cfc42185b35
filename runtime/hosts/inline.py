"""Inline tasks: functions of the very program that embeds the runtime, on its own loop."""

import asyncio
import contextvars
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import anyio

from protocols.jobs import PythonTask
from protocols.ports.executor import OutcomeState
from runtime.hosts.child.attempt import Attempt
from runtime.hosts.child.calls import (
    UnimportableError,
    describe,
    encode_result,
    exited,
    short,
    trace,
)
from runtime.hosts.child.capture import LogLines, current
from runtime.hosts.child.contexts import SyncContext, TaskContext
from runtime.hosts.owned import OwnedTasks
from runtime.hosts.settings import HostSettings
from runtime.hosts.wire import SUCCEEDED, Run, Spec
from runtime.hosts.work import ENDED_AS, Desk, Work, output_of, withdrawn_as

PLAIN_THREADS = 64
"""Plain functions side by side; in threads that nothing else of the node waits for."""


class InlineRunner:
    """Coroutines as tasks, plain functions in threads.

    Nothing here can be killed: what does not end when it is asked to is reported as ended after
    the grace, and left to itself.
    """

    def __init__(
        self,
        *,
        settings: HostSettings,
        desk: Desk,
        functions: Mapping[str, Callable[..., Any]],
    ) -> None:
        self._settings = settings
        self._desk = desk
        self._functions = functions
        self._tasks = OwnedTasks(self._attempt)
        self._loop = asyncio.get_running_loop()
        self._scopes: dict[int, anyio.CancelScope] = {}
        self._attempts: dict[int, Attempt] = {}
        self._futures: dict[int, Future[Any]] = {}
        self._works: dict[int, Work] = {}
        self._asked = 0
        self._threads = anyio.CapacityLimiter(PLAIN_THREADS)

    async def run(self) -> None:
        """Own the functions under way, until cancelled."""
        with LogLines():
            await self._tasks.run()

    def start(self, works: list[Work]) -> None:
        """Call these."""
        for work in works:
            task = work.assignment.task
            assert isinstance(task, PythonTask)
            if task.target not in self._functions:
                error = f"this program has no function {task.target!r}"
                self._desk.finish(work, "unstarted", unimportable=True, error=error)
                continue
            self._tasks.start(work)

    def begun_ns(self, work: Work) -> int:
        """When the function was called."""
        return work.begun_ns

    def end(self, work: Work) -> None:
        """Set `ctx.cancelled` and cancel at the next await."""
        if self._tasks.withdraw(work):
            self._desk.finish(work, withdrawn_as(work), error=work.why())
            return
        attempt, scope = self._attempts.get(work.token), self._scopes.get(work.token)
        if attempt is not None:
            attempt.cancelled = True
        if scope is not None:
            scope.cancel()
        self._loop.call_later(self._settings.kill_grace_s, self._abandon, work)

    async def close(self) -> None:
        """Nothing is kept between calls."""

    def ask(self, token: int, kind: str, value: bytes | None) -> "Future[Any]":
        """Put a question to the node; from any thread."""
        future: Future[Any] = Future()
        self._loop.call_soon_threadsafe(self._ask, token, kind, value, future)
        return future

    def begin_pulse(self, token: int) -> None:
        """Nothing to show: this is the node's own process."""

    def end_pulse(self, token: int) -> None:
        """Nothing was shown."""

    def pulse(self) -> int:
        """It lives as long as whoever asks."""
        return time.monotonic_ns()

    def answer(self, number: int, value: Any, error: str | None) -> None:
        """The node's answer."""
        future = self._futures.pop(number, None)
        if future is None or not future.set_running_or_notify_cancel():
            return
        if error is not None:
            future.set_exception(RuntimeError(error))
        else:
            future.set_result(value)

    def _ask(self, token: int, kind: str, value: bytes | None, future: "Future[Any]") -> None:
        work = self._works.get(token)
        if work is None:
            future.set_exception(RuntimeError("the attempt has ended"))
            return
        self._asked += 1
        self._futures[self._asked] = future
        self._desk.ask(work, self, self._asked, kind, value)

    async def _attempt(self, work: Work) -> None:
        given, task = work.assignment, work.assignment.task
        assert isinstance(task, PythonTask)
        if work.is_ending():
            self._desk.finish(work, withdrawn_as(work), error=work.why())
            return
        spec = Spec(0, given.tenant, given.job_id, task.target, task.args, task.kwargs)
        run = Run(
            work.token, 0, given.execution_id, given.attempt, given.scheduled_for_ns,
            given.input, given.checkpoint, given.dag,
        )  # fmt: skip
        attempt = Attempt(spec, run, self, self._settings.output_bytes_max)
        self._attempts[work.token], self._works[work.token] = attempt, work
        current.set(attempt)
        self._desk.begun(work, time.monotonic_ns())
        scope = self._scopes[work.token] = anyio.CancelScope()
        state: OutcomeState = "lost"
        error: str | None = "the program ended"
        exit_code, result, unimportable = None, None, False
        try:
            with scope:
                value = await self._call(attempt)
                result, error = encode_result(value, self._settings.result_bytes_max)
                state = "succeeded" if error is None else "failed"
        except UnimportableError as problem:
            state, error, unimportable = "unstarted", str(problem), True
        except SystemExit as problem:
            code, error, exit_code = exited(problem)
            state = "succeeded" if code == SUCCEEDED else "failed"
        except Exception as problem:  # noqa: BLE001 - whatever a function raises is its failure
            state, error = "failed", short(problem)
            attempt.print(trace(problem, skip=2))
        finally:
            self._works.pop(work.token, None)
            self._attempts.pop(work.token, None)
            self._scopes.pop(work.token, None)
            if work.reason is not None and not unimportable:
                state, error, result = ENDED_AS[work.reason], work.why(), None
            parts = attempt.output.parts() if attempt.output is not None else (None, b"", 0)
            self._desk.finish(
                work, state, error=error, exit_code=exit_code, result=result,
                output=output_of(*parts), unimportable=unimportable,
            )  # fmt: skip

    async def _call(self, attempt: Attempt) -> Any:
        spec = attempt.spec
        target = describe(self._functions[spec.target], spec.target)
        if target.is_async:
            arguments = [TaskContext(attempt), *spec.args] if target.takes_context else spec.args
            return await target.function(*arguments, **spec.kwargs)
        arguments = [SyncContext(attempt), *spec.args] if target.takes_context else spec.args
        context = contextvars.copy_context()

        def call() -> Any:
            return context.run(target.function, *arguments, **spec.kwargs)

        # Not abandoned when cancelled: an attempt has not ended before its thread has.
        return await anyio.to_thread.run_sync(call, limiter=self._threads)

    def _abandon(self, work: Work) -> None:
        if work.token in self._works:
            self._works.pop(work.token)
            self._desk.finish(work, ENDED_AS[work.reason or "cancel"], error=work.why())
