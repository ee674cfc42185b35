"""A shared job host: runs many coroutines side by side, fed and acknowledged in batches."""

import asyncio
import contextlib
import contextvars
import os
import socket
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import msgspec
import uvloop

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
from runtime.hosts.child.capture import current, route
from runtime.hosts.child.contexts import SyncContext, TaskContext
from runtime.hosts.child.locks import Pulse
from runtime.hosts.child.watchdog import Watchdog
from runtime.hosts.frames import FrameBuffer, frame
from runtime.hosts.wire import (
    BOARD_REVOKED,
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

PLAIN_THREADS = 64
"""A plain `def` that asks for `isolation: shared` runs in a thread: this many side by side."""
FLUSH_BYTES = 1024 * 1024


class SharedHost:
    """The host's loop: attempts are its tasks, the socket its only source of work."""

    def __init__(
        self, node: socket.socket, frames: FrameBuffer, board: memoryview, hello: Hello
    ) -> None:
        self._node = node
        self._frames = frames
        self._board = board
        self._pulse = Pulse(board)
        self.begin_pulse, self.end_pulse = self._pulse.begin, self._pulse.end
        self._hello = hello
        self._loop = uvloop.new_event_loop()
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(Feed)
        self._specs: dict[int, Spec] = {}
        self._targets: dict[int, Target] = {}
        self._attempts: dict[int, Attempt] = {}
        self._fed = 0
        self._started: dict[int, int] = {}
        self._done: list[Done] = []
        self._unsaid_bytes = 0
        self._asks: list[Ask] = []
        self._futures: dict[int, Future[Any]] = {}
        self._asked = 0
        self._flushing = False
        self._sending = threading.Lock()
        self._unsent = bytearray()
        self._writing = False
        self._threads = ThreadPoolExecutor(PLAIN_THREADS, thread_name_prefix="task")
        self._watchdog = Watchdog(self._loop, self._attempts, hello.held_s, self._say_held)

    def run(self, bodies: list[bytes]) -> None:
        """Serve until the node closes the socket; then end at once, with whatever runs."""
        route()
        asyncio.set_event_loop(self._loop)
        self._node.setblocking(False)
        self._loop.add_reader(self._node, self._on_readable)
        self._loop.set_exception_handler(_on_stray_exception)
        self._watchdog.start()
        for body in bodies:
            self._take(body)
        self._unsent += frame(self._encoder.encode(Said()))
        self._send()
        while True:
            # A task that an attempt left behind may raise SystemExit through the loop.
            with contextlib.suppress(SystemExit, KeyboardInterrupt):
                self._loop.run_forever()

    def ask(self, token: int, kind: str, value: bytes | None) -> "Future[Any]":
        """Put a question to the node; from any thread."""
        future: Future[Any] = Future()

        def put() -> None:
            self._asked += 1
            self._futures[self._asked] = future
            self._asks.append(Ask(self._asked, token, kind, value))  # type: ignore[arg-type]
            self._unsaid_bytes += len(value or b"")
            if self._unsaid_bytes > FLUSH_BYTES:
                self._flush()
            else:
                self._flush_soon()

        if threading.current_thread() is threading.main_thread():
            put()
        else:
            self._loop.call_soon_threadsafe(put)
        return future

    def _on_readable(self) -> None:
        try:
            piece = self._node.recv(1024 * 1024)
        except (BlockingIOError, InterruptedError):
            return
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
        create_task, attempts, most = (
            self._loop.create_task,
            self._attempts,
            self._hello.output_bytes_max,
        )
        for run in feed.runs:
            attempt = Attempt(self._specs[run.spec], run, self, most)
            attempts[run.token] = attempt
            self._fed += 1
            attempt.task = create_task(self._attempt(attempt, self._fed))
        if feed.runs:
            self._watchdog.wake()
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
        if attempt is not None and not attempt.cancelled:
            attempt.cancelled = True
            # A task cancelled before its first step would never get to say so.
            if attempt.begun:
                attempt.task.cancel()

    async def _attempt(self, attempt: Attempt, number: int) -> None:
        run = attempt.run
        board = self._board
        if attempt.cancelled or number >= board[BOARD_REVOKED]:
            self._finish(attempt, 0, UNSTARTED)
            return
        # In this order, and asked again: the node first takes back, then looks how far this is.
        board[BOARD_STARTED] = number
        if number >= board[BOARD_REVOKED]:
            self._finish(attempt, 0, UNSTARTED)
            return
        attempt.begun = True
        current.set(attempt)
        started_ns = time.monotonic_ns()
        state, result, error, exit_code = SUCCEEDED, None, None, None
        self._started[run.token] = started_ns
        self._flush_soon()
        try:
            target = self._targets.get(run.spec) or self._load(attempt)
            value = await self._call(attempt, target)
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
            attempt.print(trace(problem, skip=2))
        if attempt.told_to_end() and state != UNIMPORTABLE:
            state, result = CANCELLED, None
        self._finish(attempt, started_ns, state, result, error, exit_code)

    async def _call(self, attempt: Attempt, target: Target) -> Any:
        spec = attempt.spec
        if target.is_async:
            if target.takes_context:
                return await target.function(TaskContext(attempt), *spec.args, **spec.kwargs)
            return await target.function(*spec.args, **spec.kwargs)
        arguments = [SyncContext(attempt), *spec.args] if target.takes_context else spec.args
        context = contextvars.copy_context()

        def call() -> Any:
            try:
                return context.run(target.function, *arguments, **spec.kwargs)
            except StopIteration as error:  # which no asyncio future holds
                raise RuntimeError("the function raised StopIteration") from error

        thread = self._threads.submit(call)
        running = asyncio.wrap_future(thread)
        while not running.done():
            # A thread cannot be cancelled once it has begun, and an attempt has not ended before
            # its thread has.
            try:
                await asyncio.wait([running])
            except asyncio.CancelledError:
                if thread.cancel():
                    raise
        return running.result()

    def _load(self, attempt: Attempt) -> Target:
        target = self._targets[attempt.run.spec] = load(attempt.spec.target)
        return target

    def _finish(
        self,
        attempt: Attempt,
        started_ns: int,
        state: int,
        result: bytes | None = None,
        error: str | None = None,
        exit_code: int | None = None,
    ) -> None:
        token = attempt.run.token
        del self._attempts[token]
        self._pulse.forget(token)
        self._started.pop(token, None)
        if attempt.output is None:
            done = Done(token, state, started_ns, time.monotonic_ns(), result, error, exit_code)
        else:
            head, tail, omitted = attempt.output.parts()
            done = Done(
                token, state, started_ns, time.monotonic_ns(), result, error, exit_code,
                head, tail, omitted,
            )  # fmt: skip
            self._unsaid_bytes += len(head) + len(tail)
        if result is not None:
            self._unsaid_bytes += len(result)
        self._done.append(done)
        if self._unsaid_bytes > FLUSH_BYTES:
            self._flush()
        elif not self._flushing:
            self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Say what has gathered since the last time: one frame for all of it."""
        self._flushing = False
        if not (self._done or self._started or self._asks):
            return
        said = Said(list(self._started.items()), self._done, self._asks)
        body = self._encoder.encode(said)
        self._started, self._done, self._asks, self._unsaid_bytes = {}, [], [], 0
        with self._sending:
            self._unsent += frame(body)
        self._send()

    def _send(self) -> None:
        with self._sending:
            try:
                sent = self._node.send(self._unsent)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError:
                os._exit(0)
            del self._unsent[:sent]
            left = bool(self._unsent)
        if left and not self._writing:
            self._loop.add_writer(self._node, self._send)
        elif self._writing and not left:
            self._loop.remove_writer(self._node)
        self._writing = left

    def _say_held(self, said: Said) -> None:
        """From the watchdog's thread, while the loop is held and cannot send itself."""
        with self._sending:
            if not self._unsent:
                self._unsent += frame(self._encoder.encode(said))
                with contextlib.suppress(OSError):
                    del self._unsent[: self._node.send(self._unsent)]
        self._loop.call_soon_threadsafe(self._send)


def _on_stray_exception(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What a task left behind raises goes to its attempt's output while that runs, else nowhere."""
    attempt = current.get()
    error = context.get("exception")
    if attempt is not None and error is not None:
        attempt.print(trace(error, skip=0))
