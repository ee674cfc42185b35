"""The node's side of one job host: feeds it, hears it, and settles what it held when it ends."""

import asyncio
import contextlib
import mmap
import os
import tempfile
import time
import uuid
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, Protocol

import msgspec
import psutil
import structlog

from protocols.jobs import PythonTask
from runtime.hosts.channel import Channel, pair
from runtime.hosts.environment import base_environment
from runtime.hosts.guardian import Guardian, GuardianLost, UnitEvent, boot
from runtime.hosts.output import OUTPUT_BYTES_MAX
from runtime.hosts.settings import HostSettings
from runtime.hosts.wire import (
    BOARD_BYTES,
    BOARD_PULSE,
    BOARD_REVOKED,
    BOARD_STARTED,
    NEVER,
    Answer,
    Ask,
    Began,
    Done,
    Ended,
    Feed,
    Hello,
    Refused,
    Run,
    Said,
    Spec,
)
from runtime.hosts.wire import Held as HeldLoop
from runtime.hosts.work import Work

SPECS_MAX = 10_000
"""Callables a host is told of before it forgets all: a bound on its memory."""
CLOSED_S = 1.0
"""What has closed its socket has this long to end by itself."""
FEED_BYTES_MAX = 4 * 1024 * 1024
"""Inputs and checkpoints of one frame; a batch may hold more than a frame may."""
LAST_WORDS_BYTES = 2000
READY_S = 30.0
"""A host that has not spoken by then is replaced."""

log = structlog.get_logger("runtime.hosts")


class HostOwner(Protocol):
    """Who feeds a host, and takes what it says."""

    def on_begun(self, work: Work, at_ns: int) -> None:
        """It runs."""

    def on_done(self, host: "PythonHost", work: Work, done: Done) -> None:
        """It ended."""

    def on_ask(self, host: "PythonHost", work: Work, ask: Ask) -> None:
        """It asks the node."""

    def on_held(self, work: Work | None, held: HeldLoop) -> None:
        """It holds the host's loop."""

    def on_ended(self, host: "PythonHost", why: str, status: int | None, event: UnitEvent) -> None:
        """The host's whole tree is gone; `host.works` are those it had not finished."""


class PythonHost:
    """One process; warm from its making, and put to use by `adopt`."""

    def __init__(self, guardian: Guardian, settings: HostSettings) -> None:
        """Have it started.

        Raises:
            OSError: no descriptor is to be had.
        """
        self._guardian = guardian
        self._settings = settings
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(Said)
        self._owner: HostOwner | None = None
        self._specs: dict[tuple[str, str, int], Spec] = {}
        self._spec_tasks: dict[tuple[str, str, int], PythonTask] = {}
        self._spec_number = 0
        self._specs_told = 0
        self._ready_timer: asyncio.TimerHandle | None = None
        self._pid: int | None = None
        self.works: dict[int, Work] = {}
        self.fed = 0
        self.ready_ns = 0
        self.spent = False
        self.ended = False
        self.killed_for: str | None = None
        self.name = uuid.uuid4().hex
        mark = {"RUNTIME_HOST": self.name}
        with contextlib.ExitStack() as opened:
            ours, theirs = pair()
            with theirs:
                opened.callback(ours.close)
                passed = os.dup(theirs.fileno())
            opened.callback(os.close, passed)
            board = _new_board()
            opened.callback(os.close, board)
            self._mapped = mmap.mmap(board, BOARD_BYTES)
            self._board: memoryview | list[int] = memoryview(self._mapped).cast("Q")
            opened.pop_all()
        self._board[BOARD_REVOKED] = NEVER
        self._channel = Channel(ours, on_frames=self._on_frames, on_closed=self._on_closed)
        self.unit = guardian.start(
            argv=boot("runtime.hosts.child.main"),
            env={**base_environment(), **mark},
            cwd="/",
            marks=mark,
            on_event=self._on_unit,
            output_bytes_max=OUTPUT_BYTES_MAX,
            fds=(passed, board),
        )

    @property
    def started(self) -> int:
        """How many of those fed have begun."""
        return self._board[BOARD_STARTED]

    def adopt(self, owner: HostOwner, mode: Literal["shared", "process"]) -> None:
        """Put the process to use."""
        self._owner = owner
        settings = self._settings
        hello = Hello(
            mode,
            settings.cwd,
            settings.python_path,
            settings.output_bytes_max,
            settings.result_bytes_max,
            settings.held_s,
            settings.url,
            self.name,
        )
        self._channel.send(self._encoder.encode(hello))
        loop = asyncio.get_running_loop()
        self._ready_timer = loop.call_later(READY_S, self.kill, f"not ready in {READY_S:g} s")

    def feed(self, works: Sequence[Work]) -> None:
        """Have these run, in this order."""
        specs: list[Spec] = []
        runs: list[Run] = []
        forget, size = self._specs_told > SPECS_MAX, 0
        if forget:
            self._specs.clear()
            self._spec_tasks.clear()
            self._specs_told = 0
        number, now_ns = self.fed, time.monotonic_ns()
        for work in works:
            number += 1
            work.number = number
            work.place = self
            work.fed_ns = now_ns
            given = work.assignment
            key = (given.tenant, given.job_id, given.version)
            task = self._spec_tasks.get(key)
            if task is not given.task and task != given.task:
                spec = self._learn(key, given.task)
                specs.append(spec)
                size += len(self._encoder.encode(spec))
            self.works[work.token] = work
            runs.append(
                Run(
                    work.token,
                    self._specs[key].number,
                    given.execution_id,
                    given.attempt,
                    given.scheduled_for_ns,
                    given.input,
                    given.checkpoint,
                    given.dag,
                )
            )
            size += len(given.input or b"") + len(given.checkpoint or b"")
            if size > FEED_BYTES_MAX:
                self._channel.send(self._encoder.encode(Feed(specs, runs, forget=forget)))
                specs, runs, forget, size = [], [], False, 0
        self.fed = number
        if runs:
            self._channel.send(self._encoder.encode(Feed(specs, runs, forget=forget)))

    def cancel(self, work: Work) -> None:
        """Have an attempt cancelled at its next await."""
        self._channel.send(self._encoder.encode(Feed(cancels=(work.token,))))

    def answer(self, number: int, value: Any, error: str | None) -> None:
        """Answer what one of its attempts asked."""
        self._channel.send(self._encoder.encode(Feed(answers=(Answer(number, value, error),))))

    def pulse(self) -> int:
        """Changes while the process lives and is not stopped: its beats, and the CPU it uses.

        A thread beats while attempts have to do with locks; a call that lets no thread run, and is
        not stopped, uses the CPU.
        """
        used_ms = 0
        if self._pid is not None:
            with contextlib.suppress(psutil.Error):
                times = psutil.Process(self._pid).cpu_times()
                used_ms = int((times.user + times.system) * 1000)
        return self._board[BOARD_PULSE] + used_ms

    def revoke(self) -> None:
        """Take back whatever it has not begun; look at `revoked` a moment later."""
        if self._board[BOARD_REVOKED] == NEVER:
            self._board[BOARD_REVOKED] = self.started + 1

    def revoked(self) -> list[Work]:
        """Those that it will not begin any more, taken from it.

        The host says how far it is before it looks what was taken back. So what it has begun in
        spite of `revoke` shows on the board by now.
        """
        begun = self.started
        back = [work for work in self.works.values() if work.number > begun]
        for work in back:
            del self.works[work.token]
        return back

    def kill(self, why: str) -> None:
        """End the process and all below it, now; `on_ended` follows."""
        if self.killed_for is None:
            self.killed_for = why
            self._guardian.end(self.unit, grace_s=0.0)

    def retire(self) -> None:
        """Let the process end by itself; `on_ended` follows once nothing below it lives."""
        self._channel.close()
        # It ends at the end of its socket; what its tasks left behind does not.
        self._guardian.end(self.unit, grace_s=CLOSED_S)

    def close(self) -> None:
        """Let an idle process end by itself, and hear no more of it."""
        self._owner = None
        self.retire()

    def _learn(self, key: tuple[str, str, int], task: Any) -> Spec:
        assert isinstance(task, PythonTask)
        # Never a number twice: what was fed before all was forgotten may not have begun yet.
        self._spec_number += 1
        self._specs_told += 1
        spec = Spec(self._spec_number, key[0], key[1], task.target, task.args, task.kwargs)
        self._specs[key] = spec
        self._spec_tasks[key] = task
        return spec

    def _on_frames(self, bodies: list[bytes]) -> None:
        owner = self._owner
        if owner is None:
            return
        for body in bodies:
            try:
                said = self._decoder.decode(body)
            except msgspec.DecodeError:
                # A task found the socket and wrote to it: nothing it says can be believed now.
                self.kill("it sent what is not a report")
                return
            if self.ready_ns == 0:
                self._on_ready()
            self.spent = self.spent or said.spent
            works = self.works
            for token, at_ns in said.started:
                begun = works.get(token)
                if begun is not None:
                    owner.on_begun(begun, at_ns)
            for done in said.done:
                work = works.pop(done.token, None)
                if work is not None:
                    owner.on_done(self, work, done)
            for ask in said.asks:
                asking = works.get(ask.token)
                if asking is not None:
                    owner.on_ask(self, asking, ask)
            for held in said.held:
                owner.on_held(works.get(held.token), held)

    def _on_ready(self) -> None:
        self.ready_ns = time.monotonic_ns()
        if self._ready_timer is not None:
            self._ready_timer.cancel()

    def _on_closed(self) -> None:
        # Mostly its end, of which the guardian tells next; else a task closed our descriptor.
        loop = asyncio.get_running_loop()
        loop.call_later(CLOSED_S, partial(self._guardian.end, self.unit, grace_s=0.0))

    def _on_unit(self, event: UnitEvent) -> None:
        status = None
        match event:
            case Began(pid=pid):
                self._pid = pid
                return
            case Ended():
                status = event.status
                why = self.killed_for or how_it_ended(event.status)
                self._channel.drain()
            case Refused():
                why = f"its host could not be started: {event.error}"
            case GuardianLost():
                why = "its host ended with the guardian"
                self._channel.drain()
        self.ended = True
        self._put_board_away()
        if isinstance(event, Ended) and event.status != 0 and self.killed_for is None:
            printed = (event.tail or event.head)[-LAST_WORDS_BYTES:]
            log.warning("host.ended", why=why, printed=printed.decode(errors="replace"))
        self._channel.close()
        if self._ready_timer is not None:
            self._ready_timer.cancel()
        if self._owner is not None:
            self._owner.on_ended(self, why, status, event)

    def _put_board_away(self) -> None:
        """Keep what the board says last, and give back its memory and the descriptor behind it."""
        if isinstance(self._board, memoryview):
            board, self._board = self._board, self._board.tolist()
            board.release()
            self._mapped.close()


class Reserve:
    """Warm processes for all pools of a node: what is taken is at once made anew."""

    def __init__(self, guardian: Guardian, settings: HostSettings, *, spares: int = 1) -> None:
        self._guardian = guardian
        self._settings = settings
        self._spares = spares
        self._warm: list[PythonHost] = []

    def prepare(self) -> None:
        """Have the spares start now; without it they start at the first use."""
        self._warm = [host for host in self._warm if not host.ended]
        with contextlib.suppress(OSError):  # no spare, then: who needs a process is told
            while len(self._warm) < self._spares:
                self._warm.append(PythonHost(self._guardian, self._settings))

    def take(self, owner: HostOwner, mode: Literal["shared", "process"]) -> PythonHost:
        """A process for `owner`, warm where there is one.

        Raises:
            OSError: there is none, and none can be started.
        """
        self.prepare()
        host = self._warm.pop(0) if self._warm else PythonHost(self._guardian, self._settings)
        host.adopt(owner, mode)
        self.prepare()
        return host

    def close(self) -> None:
        """End the spares."""
        for host in self._warm:
            host.close()
        self._warm.clear()


def how_it_ended(status: int) -> str:
    """An exit status, in words."""
    if status >= 0:
        return f"exit code {status}"
    import signal  # noqa: PLC0415

    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


def _new_board() -> int:
    """A descriptor of a page that no folder names."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("tickwright-board")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, BOARD_BYTES)
    return fd
