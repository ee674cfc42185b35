"""One process tree under the guardian: its start, its output, and its end to the last process."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from runtime.hosts import processes
from runtime.hosts.output import BoundedOutput
from runtime.hosts.wire import StartUnit

READ_BYTES = 64 * 1024
CHECK_S = 0.02
"""How often a tree that is ending is looked at."""


class Unit:
    """A started process, in a session of its own, and everything it starts."""

    __slots__ = (
        "check_at",
        "ended_ns",
        "kill_at",
        "marks",
        "number",
        "output",
        "output_bytes_max",
        "pid",
        "reader",
        "spilled",
        "status",
    )

    def __init__(self, order: StartUnit, pid: int, reader: int, spilled: Sequence[Path]) -> None:
        self.number = order.unit
        self.pid = pid
        self.reader = reader
        self.marks = processes.marks_of(order.marks)
        self.output_bytes_max = order.output_bytes_max
        self.output = BoundedOutput(order.output_bytes_max)
        self.spilled = tuple(spilled)
        self.status: int | None = None
        self.ended_ns = 0
        self.kill_at: float | None = None
        self.check_at: float | None = None

    def marked(self, environment: frozenset[bytes]) -> bool:
        """Whether a process with this environment is of this tree."""
        return self.marks <= environment

    def read(self) -> int | None:
        """Take what was printed, one piece: its size, 0 at the end, None where none is ready."""
        try:
            piece = os.read(self.reader, READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return None
        self.output.write(piece)
        return len(piece)

    def drain(self) -> None:
        """Take all that is ready; for a tree that writes no more, or a moment's picture."""
        for _ in range(64):
            if not self.read():
                return

    def family(self) -> set[int]:
        """Every living process of this tree."""
        return processes.family(self.pid, self.marked)

    def terminate(self, grace_s: float) -> None:
        """SIGTERM to the tree now, SIGKILL from `grace_s` on until nothing of it lives."""
        now = time.monotonic()
        kill_at = now + grace_s
        self.kill_at = kill_at if self.kill_at is None else min(self.kill_at, kill_at)
        self.check_at = now
        if grace_s > 0:
            members = self.family()
            processes.signal_all(members, signal.SIGTERM)
            # A stopped process would sleep through its own SIGTERM.
            processes.signal_all(members, signal.SIGCONT)

    def release(self) -> None:
        """Give back what the unit held of this process."""
        os.close(self.reader)
        for path in self.spilled:
            path.unlink(missing_ok=True)


def launch(order: StartUnit, fds: Sequence[int], spill_dir: Path | None) -> Unit:
    """Start a unit's process.

    Raises:
        OSError: no such program or folder, no permission, no process to be had.
        ValueError: a NUL byte in an argument or a variable.
    """
    reader, writer = os.pipe()
    env, spilled = dict(order.env), []
    try:
        os.set_blocking(reader, False)
        for name, content in order.spill.items():
            assert spill_dir is not None
            path = spill_dir / f"{order.unit}-{name.lower()}"
            path.touch(mode=0o600)
            path.write_bytes(content)
            spilled.append(path)
            env[name] = str(path)
        process = subprocess.Popen(  # noqa: S603 - running what users ask for is what this is for
            [*order.argv, *(str(fd) for fd in fds)],
            env=env,
            cwd=order.cwd,
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=writer,
            pass_fds=fds,
            start_new_session=True,
        )
    except BaseException:
        os.close(reader)
        for path in spilled:
            path.unlink(missing_ok=True)
        raise
    finally:
        os.close(writer)
    # This process reaps by waitpid(-1), so the Popen object must not wait for it as well.
    process.returncode = 0
    return Unit(order, process.pid, reader, spilled)


def why_not(order: StartUnit, error: Exception) -> str:
    """What a person reads when a process could not be started."""
    if isinstance(error, FileNotFoundError | NotADirectoryError) and not Path(order.cwd).is_dir():
        return f"the folder {order.cwd!r} to run in does not exist"
    if isinstance(error, FileNotFoundError):
        return f"no program {order.argv[0]!r} on the PATH"
    if isinstance(error, PermissionError):
        return f"{order.argv[0]!r} may not be run: {error.strerror}"
    if isinstance(error, ValueError):
        return f"the command cannot be run: {error}"
    return f"the command cannot be run: {getattr(error, 'strerror', None) or error}"


class Strays:
    """Whose are the children that only the subreaper has: their own parents ended before them."""

    def __init__(self) -> None:
        self._owners: dict[int, int | None] = {}

    def owners(self, units: Mapping[int, Unit]) -> set[int]:
        """The numbers of the units that have strays now; `units` by process number."""
        children = processes.children_now()
        if children is None:
            return set()
        unknown = children - units.keys()
        for pid in self._owners.keys() - unknown:
            del self._owners[pid]
        for pid in unknown - self._owners.keys():
            self._owners[pid] = self._owner(pid, units)
        return {number for number in self._owners.values() if number is not None}

    def forget(self, pid: int) -> None:
        """This process was reaped; its number may come again."""
        self._owners.pop(pid, None)

    def _owner(self, pid: int, units: Mapping[int, Unit]) -> int | None:
        try:
            session = os.getsid(pid)
        except ProcessLookupError:
            return None
        marks = processes.environment(pid)
        for unit in units.values():
            if session == unit.pid or unit.marked(marks):
                return unit.number
        return None
