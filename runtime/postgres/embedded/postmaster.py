"""What a cluster's postmaster.pid says, and the end of a server that outlived its node."""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path

import anyio
import msgspec
import psutil

from runtime.postgres.embedded.errors import StartFailedError

READY = "ready"
# A fast shutdown writes a checkpoint, at most a GB of it; then without one; then by force.
FAST_PATIENCE_S = 60.0
IMMEDIATE_PATIENCE_S = 20.0
KILL_PATIENCE_S = 10.0
_POLL_S = 0.02
_BYTES_MAX = 4096


class PidFile(msgspec.Struct, frozen=True):
    """The two lines of postmaster.pid that matter to us."""

    pid: int
    status: str


def read(data: Path) -> PidFile | None:
    """Read postmaster.pid; None where there is none, or it is not complete yet."""
    try:
        with (data / "postmaster.pid").open("rb") as file:
            lines = file.read(_BYTES_MAX).decode("ascii", errors="replace").splitlines()
        return PidFile(int(lines[0]), lines[7].strip() if len(lines) > 7 else "")  # noqa: PLR2004
    except (FileNotFoundError, ValueError, IndexError):
        return None


async def stop_orphan(data: Path) -> int | None:
    """End the server that a dead node left on `data`; the caller holds the data directory's lock.

    A postmaster.pid whose number now belongs to some other program is removed: after a reboot
    PostgreSQL would take that program for its predecessor, and refuse to start.

    Returns:
        The pid of the server that was ended, None where there was none.

    Raises:
        StartFailedError: it does not end.
    """
    found = read(data)
    if found is None or found.pid <= 0:
        return None
    try:
        process = psutil.Process(found.pid)
        ours = _is_postmaster_of(process, data)
    except psutil.ZombieProcess:
        ours = False  # it has ended, but nobody has reaped it: PostgreSQL would take it for alive
    except psutil.NoSuchProcess:
        return None
    if not ours:
        (data / "postmaster.pid").unlink(missing_ok=True)
        return None
    for number, patience_s in (
        (signal.SIGINT, FAST_PATIENCE_S),
        (signal.SIGQUIT, IMMEDIATE_PATIENCE_S),
        (signal.SIGKILL, KILL_PATIENCE_S),
    ):
        with suppress(psutil.Error):
            process.send_signal(number)  # psutil looks twice that the pid is still the same one
        with anyio.move_on_after(patience_s):
            while _runs(process):  # noqa: ASYNC110 - not our child: the kernel tells nobody
                await anyio.sleep(_POLL_S)
            return found.pid
    raise StartFailedError(
        f"the PostgreSQL of an earlier node (pid {found.pid}) on {data} does not end: "
        "end it by hand, start again"
    )


def _is_postmaster_of(process: psutil.Process, data: Path) -> bool:
    """Tell our postmaster from whatever has its number now; its folder may have been moved."""
    try:
        words = process.cmdline()
    except psutil.AccessDenied:
        return False  # another user's, and therefore not the one that wrote into our folder
    if not words or Path(words[0]).name != "postgres":
        return False
    if str(data) in words[1:]:
        return True
    try:
        return Path(process.cwd()).samefile(data)
    except psutil.AccessDenied as error:
        # Never guess: two servers on one cluster would ruin it.
        raise StartFailedError(
            f"{data}/postmaster.pid names process {process.pid}, a PostgreSQL whose folder "
            "cannot be read here: end it, or remove that file if it serves another folder"
        ) from error
    except OSError:
        return False


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Progress:
    """Tells a long recovery from a standstill: by the log's growth, and by work done.

    The clock is handed in, so that the rule can be tested without one.
    """

    def __init__(self, *, patience_s: float, now_s: float) -> None:
        self._patience_s = patience_s
        self._seen: object = None
        self._since_s = now_s

    def stalled(self, seen: object, *, now_s: float) -> bool:
        """Take a new sample; true once nothing has changed for longer than the patience."""
        if seen != self._seen:
            self._seen = seen
            self._since_s = now_s
        return now_s - self._since_s > self._patience_s


def work_done(pid: int) -> tuple[float, int]:
    """Sum what the server's processes have done: CPU seconds, and bytes read and written."""
    seconds, moved = 0.0, 0
    with suppress(psutil.Error):
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.Error):
                times = child.cpu_times()
                seconds += times.user + times.system
                if hasattr(child, "io_counters"):
                    counters = child.io_counters()
                    moved += counters.read_bytes + counters.write_bytes
    return round(seconds, 2), moved
