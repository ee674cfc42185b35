"""A host of its own for one attempt at a time: the task has the main thread, the node another."""

import asyncio
import contextlib
import os
import queue
import socket
import sys
import threading
import time
from concurrent.futures import Future
from typing import Any

import msgspec
import uvloop

from runtime.hosts import processes
from runtime.hosts.child.attempt import Attempt
from runtime.hosts.child.calls import (
    Target,
    UnimportableError,
    encode_result,
    exited,
    load,
    short,
    trace,
)
from runtime.hosts.child.capture import log_to
from runtime.hosts.child.contexts import SyncContext, TaskContext
from runtime.hosts.child.locks import Pulse
from runtime.hosts.environment import task_values
from runtime.hosts.frames import FrameBuffer, frame
from runtime.hosts.wire import (
    BOARD_STARTED,
    CANCELLED,
    FAILED,
    SUCCEEDED,
    UNIMPORTABLE,
    UNSTARTED,
    Ask,
    Done,
    Feed,
    Hello,
    Said,
    Spec,
)

USES_MAX = 200
"""A process that ran this many attempts is replaced: what user code leaks ends with it."""


class ProcessHost:
    """Runs what it is fed in the main thread; prints go to the guardian's pipe by themselves."""

    def __init__(
        self, node: socket.socket, frames: FrameBuffer, board: memoryview, hello: Hello
    ) -> None:
        self._node = node
        self._frames = frames
        self._board = board
        self._pulse = Pulse(board)
        self.begin_pulse, self.end_pulse = self._pulse.begin, self._pulse.end
        self._hello = hello
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(Feed)
        self._specs: dict[int, Spec] = {}
        self._targets: dict[int, Target] = {}
        self._attempts: dict[int, Attempt] = {}
        self._queue: queue.SimpleQueue[Attempt] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._asked = 0
        self._futures: dict[int, Future[Any]] = {}
        self._environ = dict(os.environ)
        self._uses = 0

    def run(self, bodies: list[bytes]) -> None:
        """Serve until the node closes the socket; then end at once, with whatever runs."""
        for stream in (sys.stdout, sys.stderr):
            # Lines in the order they were printed, the last ones of a killed process too.
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        log_to(sys.stderr)
        for body in bodies:
            self._take(body)
        threading.Thread(target=self._listen, name="node", daemon=True).start()
        self._say(Said())
        while True:
            try:
                self._attempt(self._queue.get())
            except KeyboardInterrupt:
                continue

    def ask(self, token: int, kind: str, value: bytes | None) -> "Future[Any]":
        """Put a question to the node; from any thread."""
        future: Future[Any] = Future()
        with self._lock:
            self._asked += 1
            number = self._asked
            self._futures[number] = future
        self._say(Said(asks=[Ask(number, token, kind, value)]))  # type: ignore[arg-type]
        return future

    def _say(self, said: Said) -> None:
        data = frame(self._encoder.encode(said))
        with self._lock:
            try:
                self._node.sendall(data)
            except OSError:
                os._exit(0)

    def _listen(self) -> None:
        while True:
            try:
                piece = self._node.recv(1024 * 1024)
            except InterruptedError:
                continue
            except OSError:
                piece = b""
            if not piece:
                os._exit(0)
            for body in self._frames.feed(piece):
                self._take(body)

    def _take(self, body: bytes) -> None:
        feed = self._decoder.decode(body)
        if feed.forget:
            self._specs.clear()
            self._targets.clear()
        for spec in feed.specs:
            self._specs[spec.number] = spec
        for run in feed.runs:
            attempt = Attempt(self._specs[run.spec], run, self, self._hello.output_bytes_max)
            self._attempts[run.token] = attempt
            self._queue.put(attempt)
        for token in feed.cancels:
            self._cancel(token)
        for answer in feed.answers:
            future = self._futures.pop(answer.number, None)
            if future is None or not future.set_running_or_notify_cancel():
                continue
            if answer.error is not None:
                future.set_exception(RuntimeError(answer.error))
            else:
                future.set_result(answer.value)

    def _cancel(self, token: int) -> None:
        attempt = self._attempts.get(token)
        if attempt is None:
            return
        attempt.cancelled = True
        if attempt.task is not None:
            # Its loop may have closed in this very moment: then it has ended anyway.
            with contextlib.suppress(RuntimeError):
                attempt.task()

    def _attempt(self, attempt: Attempt) -> None:
        run = attempt.run
        self._uses += 1
        if attempt.cancelled:
            self._attempts.pop(run.token, None)
            self._say(Said(done=[Done(run.token, UNSTARTED, 0, 0)]))
            return
        self._board[BOARD_STARTED] = self._uses
        started_ns = time.monotonic_ns()
        state, result, error, exit_code = SUCCEEDED, None, None, None
        try:
            self._say(Said(started=[(run.token, started_ns)]))
            self._dress(attempt)
            target = self._targets.get(run.spec) or self._load(attempt)
            value = self._call(attempt, target)
            if value is not None:
                result, error = encode_result(value, self._hello.result_bytes_max)
                state = SUCCEEDED if error is None else FAILED
        except UnimportableError as problem:
            state, error = UNIMPORTABLE, str(problem)
        except asyncio.CancelledError as problem:
            state, error = FAILED, short(problem)
        except SystemExit as problem:
            state, error, exit_code = exited(problem)
        except BaseException as problem:  # noqa: BLE001 - whatever a task raises is its failure
            state, error = FAILED, short(problem)
            with contextlib.suppress(Exception):
                sys.stderr.write(trace(problem, skip=2).decode(errors="replace"))
        if attempt.told_to_end() and state != UNIMPORTABLE:
            state, result = CANCELLED, None
        for stream in (sys.stdout, sys.stderr):
            # A task may have closed or replaced them.
            with contextlib.suppress(Exception):
                stream.flush()
        self._attempts.pop(run.token, None)
        self._pulse.forget(run.token)
        finished_ns = time.monotonic_ns()
        done = Done(run.token, state, started_ns, finished_ns, result, error, exit_code)
        self._say(Said(done=[done], spent=not self._undress()))

    def _call(self, attempt: Attempt, target: Target) -> Any:
        spec = attempt.spec
        if not target.is_async:
            if target.takes_context:
                return target.function(SyncContext(attempt), *spec.args, **spec.kwargs)
            return target.function(*spec.args, **spec.kwargs)

        async def call() -> Any:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            assert task is not None
            attempt.task = lambda: loop.call_soon_threadsafe(task.cancel)
            if attempt.cancelled:
                raise asyncio.CancelledError
            if target.takes_context:
                return await target.function(TaskContext(attempt), *spec.args, **spec.kwargs)
            return await target.function(*spec.args, **spec.kwargs)

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(call())

    def _load(self, attempt: Attempt) -> Target:
        target = self._targets[attempt.run.spec] = load(attempt.spec.target)
        return target

    def _dress(self, attempt: Attempt) -> None:
        """The attempt's `RUNTIME_` values: what it starts inherits them, and is known by them."""
        run = attempt.run
        values, _ = task_values(
            execution_id=run.execution_id,
            token=run.token,
            tenant=attempt.spec.tenant,
            job_id=attempt.spec.job_id,
            attempt=run.attempt,
            scheduled_for_ns=run.scheduled_for_ns,
            url=self._hello.url,
            given=run.input,
            checkpoint=run.checkpoint,
            dag=run.dag,
        )
        # ctx.input has no bound but the node's own; a variable cannot hold NUL bytes.
        os.environ.update({name: value for name, value in values.items() if "\0" not in value})

    def _undress(self) -> bool:
        """Undo what an attempt did to the process; False if that cannot be done."""
        try:
            os.environ.clear()
            os.environ.update(self._environ)
            os.chdir(self._hello.cwd)
        except OSError:
            return False
        alone = threading.active_count() <= 2  # noqa: PLR2004 - the main thread and the node's
        return alone and not processes.children_now() and self._uses < USES_MAX
