"""The guardian's process: starts all that a node runs, reaps it, and ends it with the node.

It is small and runs no user code, so that starting a process from it is cheap and it outlives
whatever goes wrong. It ends, killing everything below it, when its socket to the node closes.
"""

import contextlib
import ctypes
import os
import resource
import selectors
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

import msgspec

from runtime.hosts import cgroup, processes
from runtime.hosts.frames import FrameBuffer, FrameError, frame
from runtime.hosts.units import CHECK_S, Strays, Unit, launch, why_not
from runtime.hosts.wire import (
    Began,
    Ended,
    EndUnit,
    FromGuardian,
    Ready,
    Refused,
    StartUnit,
    Taken,
    TakeOutput,
    ToGuardian,
)

PR_SET_CHILD_SUBREAPER = 36
FDS_MAX = 64
LINGER_S = 0.5
"""What a command left running after its own end has this long to end by itself (a `tee` that
still has lines to write), before it is killed."""
SWEEP_S = 10.0


class Guarding:
    """The guardian's loop over its socket, its children's output, and their deaths."""

    def __init__(self, node: socket.socket, *, owner: str, incarnation: str) -> None:
        self._node = node
        self._owner = owner
        self._incarnation = incarnation
        self._frames = FrameBuffer()
        self._decoder = msgspec.msgpack.Decoder(ToGuardian)
        self._encoder = msgspec.msgpack.Encoder()
        self._selector = selectors.DefaultSelector()
        self._orders: deque[tuple[StartUnit, list[int]]] = deque()
        self._fds: deque[int] = deque()
        self._units: dict[int, Unit] = {}
        self._by_pid: dict[int, Unit] = {}
        self._ending: dict[int, Unit] = {}
        self._strays = Strays()
        self._spill: Path | None = None
        self._group: str | None = None
        self._open = True
        self._files = resource.getrlimit(resource.RLIMIT_NOFILE)

    def run(self) -> None:
        """Serve until the node is gone, then leave nothing behind."""
        wake_r, wake_w = os.pipe()
        for fd in (wake_r, wake_w):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # A service manager's SIGTERM goes to every process at once; the node decides when to end.
        # Handlers, not SIG_IGN: what is ignored stays ignored in every child.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        _become_subreaper()
        self._group = cgroup.join()
        # One pipe per running command, and the usual soft limit is 1024.
        resource.setrlimit(resource.RLIMIT_NOFILE, (self._files[1], self._files[1]))
        self._selector.register(wake_r, selectors.EVENT_READ, lambda: _empty(wake_r))
        self._selector.register(self._node, selectors.EVENT_READ, self._on_node)
        self._watch_node()
        try:
            swept = self._sweep()
            self._send(Ready(os.getpid(), swept, self._group))
            while self._open:
                self._turn()
        finally:
            self._end_all()

    def _turn(self) -> None:
        for key, _ in self._selector.select(self._timeout()):
            key.data()
        self._reap()
        if self._orders and self._open:
            # One at a time: a burst of starts must not keep a flood of output waiting.
            self._start(*self._orders.popleft())
        if self._ending:
            now = time.monotonic()
            for unit in list(self._ending.values()):
                if unit.check_at is not None and unit.check_at <= now:
                    self._check(unit, now)

    def _timeout(self) -> float | None:
        if self._orders:
            return 0.0
        checks = [unit.check_at for unit in self._ending.values() if unit.check_at is not None]
        return max(0.0, min(checks) - time.monotonic()) if checks else None

    def _on_node(self) -> None:
        try:
            piece, fds, _, _ = socket.recv_fds(self._node, 256 * 1024, FDS_MAX)
            self._fds.extend(fds)
            orders = [self._decoder.decode(body) for body in self._frames.feed(piece)]
        except (OSError, FrameError, msgspec.DecodeError):
            self._open = False
            return
        if not piece:
            self._open = False
            return
        for order in orders:
            self._obey(order)

    def _obey(self, order: ToGuardian) -> None:
        match order:
            case StartUnit():
                self._orders.append((order, [self._fds.popleft() for _ in range(order.fds)]))
            case EndUnit():
                self._end(order)
            case TakeOutput():
                unit = self._units.get(order.unit)
                if unit is None:  # its end, with its output, is on its way
                    self._send(Taken(order.number, b"", b"", 0))
                    return
                unit.drain()
                self._send(Taken(order.number, *unit.output.parts()))
                unit.output = type(unit.output)(unit.output_bytes_max)

    def _start(self, order: StartUnit, fds: list[int]) -> None:
        if order.spill and self._spill is None:
            self._spill = Path(tempfile.mkdtemp(prefix="tickwright-"))
        try:
            unit = launch(order, fds, self._spill)
        except (OSError, ValueError) as error:
            self._send(Refused(order.unit, why_not(order, error), time.monotonic_ns()))
            return
        finally:
            for fd in fds:
                os.close(fd)
        if processes.LINUX:
            with contextlib.suppress(OSError):  # it may have ended already
                resource.prlimit(unit.pid, resource.RLIMIT_NOFILE, self._files)
        self._units[order.unit] = unit
        self._by_pid[unit.pid] = unit
        self._selector.register(unit.reader, selectors.EVENT_READ, lambda: self._on_output(unit))
        self._send(Began(order.unit, unit.pid, time.monotonic_ns()))

    def _on_output(self, unit: Unit) -> None:
        # At the end of it a pipe is ready for ever. Nothing there is not the end: it may have been
        # taken a moment ago, and who is not read any more would wait in its next print for ever.
        if unit.read() == 0:
            self._selector.unregister(unit.reader)

    def _end(self, order: EndUnit) -> None:
        unit = self._units.get(order.unit)
        if unit is not None:
            unit.terminate(order.grace_s)
            self._ending[unit.number] = unit
            return
        for at, (waiting, fds) in enumerate(self._orders):
            if waiting.unit == order.unit:
                for fd in fds:
                    os.close(fd)
                del self._orders[at]
                self._send(Refused(order.unit, "withdrawn before its start", time.monotonic_ns()))
                return

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._strays.forget(pid)
            unit = self._by_pid.pop(pid, None)
            if unit is None:
                continue
            unit.status = os.waitstatus_to_exitcode(status)
            unit.ended_ns = time.monotonic_ns()
            now = time.monotonic()
            if unit.kill_at is None:
                unit.kill_at = now + LINGER_S
            self._ending[unit.number] = unit
            self._check(unit, now)

    def _check(self, unit: Unit, now: float) -> None:
        """Look whether a tree has ended, and kill what is left of it when its time is over."""
        assert unit.kill_at is not None
        if unit.status is not None and not self._left(unit):
            self._finish(unit)
            return
        if now < unit.kill_at:
            unit.check_at = (
                min(unit.kill_at, now + CHECK_S) if unit.status is not None else (unit.kill_at)
            )
            return
        processes.signal_all(unit.family(), signal.SIGKILL)
        unit.check_at = now + CHECK_S

    def _left(self, unit: Unit) -> bool:
        """Whether anything of a tree lives, its first process having been reaped.

        Whatever lost its parent became a child of this process (PR_SET_CHILD_SUBREAPER), so two
        cheap questions answer for most trees; only a doubt is worth reading the process table.
        """
        if not processes.group_lives(unit.pid):
            owners = self._strays.owners({**self._by_pid, unit.pid: unit})
            if unit.number not in owners:
                return False
        return bool(unit.family())

    def _finish(self, unit: Unit) -> None:
        assert unit.status is not None
        unit.drain()
        if unit.reader in self._selector.get_map():
            self._selector.unregister(unit.reader)
        del self._units[unit.number]
        self._ending.pop(unit.number, None)
        unit.release()
        self._send(Ended(unit.number, unit.status, unit.ended_ns, *unit.output.parts()))

    def _send(self, message: FromGuardian) -> None:
        try:
            self._node.sendall(frame(self._encoder.encode(message)))
        except OSError:
            self._open = False

    def _watch_node(self) -> None:
        """A fork of the node may keep the socket open for it: its process number may not."""
        if hasattr(os, "pidfd_open"):
            try:
                node = os.pidfd_open(int(self._incarnation.partition("-")[0]))
            except OSError:
                self._open = False
                return
            self._selector.register(node, selectors.EVENT_READ, self._close)

    def _close(self) -> None:
        self._open = False

    def _sweep(self) -> int:
        """Kill what guardians of this owner left, whose node is gone or is ours; how many."""
        prefix = f"RUNTIME_GUARDIAN={self._owner}/".encode()

        def ours(marks: frozenset[bytes]) -> bool:
            for mark in marks:
                if mark.startswith(prefix):
                    incarnation = mark[len(prefix) :].decode(errors="replace")
                    return incarnation == self._incarnation or not node_lives(incarnation)
            return False

        return len(_kill_until_none(lambda: processes.family(None, ours)))

    def _end_all(self) -> None:
        def everything() -> set[int]:
            inside = cgroup.members(self._group) if self._group is not None else set()
            return (processes.descendants() | inside) - {os.getpid()}

        _kill_until_none(everything)
        if self._spill is not None:
            shutil.rmtree(self._spill, ignore_errors=True)
        if self._group is not None:
            cgroup.leave(self._group)


def incarnation_of(pid: int) -> str:
    """A process's name that its number's next holder does not share."""
    return f"{pid}-{processes.started(pid)}"


def node_lives(incarnation: str) -> bool:
    """Whether the node of that name still runs."""
    pid = incarnation.partition("-")[0]
    return pid.isdigit() and incarnation_of(int(pid)) == incarnation


def _kill_until_none(find: "processes.Finder") -> set[int]:
    killed: set[int] = set()
    give_up = time.monotonic() + SWEEP_S
    while found := find():
        killed |= found
        processes.signal_all(found, signal.SIGKILL)
        if time.monotonic() > give_up:
            break
        time.sleep(0.002)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass
    return killed


def _become_subreaper() -> None:
    if processes.LINUX:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _empty(fd: int) -> None:
    try:
        while os.read(fd, 4096):
            pass
    except BlockingIOError:
        pass


def main() -> None:
    """Entry: the socket's number, the owner's name and the node's incarnation are arguments."""
    fd, owner, incarnation = sys.argv[-3:]
    with socket.socket(fileno=int(fd)) as node:
        node.set_inheritable(False)
        Guarding(node, owner=owner, incarnation=incarnation).run()
