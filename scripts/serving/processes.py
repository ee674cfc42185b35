"""Servers as processes: found by what their command line names, so never mistaken for another.

No number is remembered. A pid written down may be somebody else's by the time it is read; the
path of a server's own folder on a command line cannot be.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from runtime.postgres.embedded.process import ENVIRONMENT, Account, spawn

# Whose command lines are looked at: an editor or a `tail` on a server's log is not the server.
PROGRAMS = {"postgres", "initdb", "pg_basebackup", "etcd", "java"}
# In the first words of who prepares a server's folder; an `up` that was killed may have left one.
_HELPERS = {"initdb", "pg_basebackup", "kafka.tools.StorageTool", "--boot", "--single", "--check"}
KILL_PATIENCE_S = 20.0
_POLL_S = 0.02
_LOG_BYTES_MAX = 16 * 2**20


class ServiceError(Exception):
    """A verb cannot be done; the message is for the user, as it stands."""


class MissingError(ServiceError):
    """A program is not on this machine; the message has the line that gets it."""


def mains(home: Path) -> list[psutil.Process]:
    """Find the processes that run on `home`, without those that one of them has started."""
    found = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = process.cmdline()
            if words and Path(words[0]).name in PROGRAMS and _names(words, home):
                found[process.pid] = process
    own = []
    for process in found.values():
        with suppress(psutil.Error):
            if process.ppid() not in found and runs(process):
                own.append(process)
    return own


def _names(words: Sequence[str], home: Path) -> bool:
    below = f"{home}{os.sep}"
    return any(word.partition("=")[2].startswith(below) or word.startswith(below) for word in words)


def main(home: Path) -> psutil.Process | None:
    """The server that runs on `home`, if there is one."""
    return next((process for process in mains(home) if not _helps(process)), None)


def end_helpers(home: Path) -> None:
    """Kill what an `up` that was killed itself has left preparing this folder."""
    for process in mains(home):
        if _helps(process):
            _kill([process], home)


def _helps(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        first, *more = process.cmdline()
        return bool(_HELPERS & {Path(first).name, *more})
    return False


def runs(process: psutil.Process) -> bool:
    """Tell whether it still runs; one that only waits to be reaped does not.

    The first thread of a dying process may wait for the others, which hold its files until then.
    """
    try:
        zombie = process.status() == psutil.STATUS_ZOMBIE
        return process.is_running() and (not zombie or process.num_threads() > 1)
    except psutil.Error:
        return False


def paused(process: psutil.Process) -> bool:
    """Tell whether it is stopped by SIGSTOP."""
    try:
        return process.status() == psutil.STATUS_STOPPED
    except psutil.NoSuchProcess:
        return False


def launch(command: Sequence[str], *, log: Path, account: Account | None = None) -> None:
    """Start a server that outlives us and holds nothing of ours; its output goes to `log`."""
    with suppress(FileNotFoundError):
        if log.stat().st_size > _LOG_BYTES_MAX:
            log.replace(log.with_name(f"{log.name}.1"))
    with log.open("ab") as output:
        spawn(command, account=account, output=output.fileno())


def finish(
    command: Sequence[str], *, log: Path, what: str, env: Mapping[str, str] = ENVIRONMENT
) -> None:
    """Run a program to its end, and end it with us.

    Raises:
        ServiceError: It failed; the message has the last of what it said.
    """
    with log.open("ab") as output:
        begin = log.stat().st_size
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=env,
            start_new_session=True,
        )
        try:
            code = process.wait()
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    if code != 0:
        raise ServiceError(f"{what} failed (code {code}): {last_words(log, begin)}")


def last_words(log: Path, begin: int = 0, lines: int = 6) -> str:
    """The last lines of a log from `begin` on."""
    try:
        with log.open("rb") as file:
            file.seek(max(begin, log.stat().st_size - 4096))
            said = file.read().decode(errors="replace").strip().splitlines()
    except FileNotFoundError:
        said = []
    return "\n  ".join([*said[-lines:], f"(log: {log})"])


def end(home: Path, steps: Iterable[tuple[signal.Signals, float]]) -> bool:
    """Ask what runs on `home` to end, more firmly each time; whether anything ran.

    Args:
        home: The server's own folder.
        steps: A signal, and the seconds it is given.

    Raises:
        ServiceError: It does not even end by SIGKILL.
    """
    roots = mains(home)
    family = _family(roots)
    for number, patience_s in steps:
        for process in roots:
            _send(process, number)
        for process in reversed(family):  # one that is paused hears nothing
            _send(process, signal.SIGCONT)
        if wait(lambda: not any(runs(process) for process in family), patience_s):
            break
    else:
        _kill(family, home)
    return bool(roots)


def kill(home: Path) -> bool:
    """Kill -9 the server and all it has started; whether it ran."""
    roots = mains(home)
    _kill(roots, home)
    return bool(roots)


def _kill(roots: Sequence[psutil.Process], home: Path) -> None:
    family = _family(roots)
    for process in family:
        _send(process, signal.SIGKILL)
    if not wait(lambda: not any(runs(process) for process in family), KILL_PATIENCE_S):
        raise ServiceError(f"what runs on {home} does not end by SIGKILL: {family}")


def pause(home: Path) -> bool:
    """SIGSTOP the server and all it has started; whether it ran.

    The first process goes first, so that it starts no other one behind our back.
    """
    roots = mains(home)
    for root in roots:
        _send(root, signal.SIGSTOP)
    while awake := [one for one in _family(roots) if runs(one) and not paused(one)]:
        for process in awake:
            _send(process, signal.SIGSTOP)
        time.sleep(_POLL_S)
    return bool(roots)


def resume(home: Path) -> bool:
    """SIGCONT, the children first; whether it ran."""
    roots = mains(home)
    for process in reversed(_family(roots)):
        _send(process, signal.SIGCONT)
    return bool(roots)


def wait(condition: Callable[[], bool], patience_s: float, *, pause_s: float = _POLL_S) -> bool:
    """Wait for a condition of processes that can tell nobody of it; whether it came true."""
    deadline_s = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(pause_s)
    return True


def _family(roots: Iterable[psutil.Process]) -> list[psutil.Process]:
    family = []
    for root in roots:
        family.append(root)
        with suppress(psutil.Error):
            family += root.children(recursive=True)
    return family


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(psutil.Error):  # gone meanwhile; psutil looks that the pid is still the same one
        process.send_signal(number)
