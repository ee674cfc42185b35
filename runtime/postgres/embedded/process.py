"""Children that run as the right user, with a clean environment, and are awaited without a poll."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress

import anyio
import msgspec

# Nothing of the node's environment reaches PostgreSQL: no secret, and no PG* variable that would
# point it elsewhere.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
_POLL_WITHOUT_PIDFD_S = 0.05


class Account(msgspec.Struct, frozen=True):
    """An unprivileged user of this machine."""

    name: str
    uid: int
    gid: int


def spawn(
    command: Sequence[str],
    *,
    account: Account | None,
    output: int,
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own, out of reach of the terminal's Ctrl-C.

    As `account` it has that user's id and group and no other group: none of root's is left.

    Args:
        command: the program's absolute path and its arguments.
        account: whom to become; None stays who we are.
        output: a descriptor for stdout and stderr.
        stdin: a descriptor for stdin.

    Raises:
        OSError: it cannot be executed, or we may not become `account`.
    """
    if account is None:
        return subprocess.Popen(  # noqa: S603 - a path we located ourselves, and no shell
            command,
            stdin=stdin,
            stdout=output,
            stderr=output,
            cwd="/",
            env=ENVIRONMENT,
            start_new_session=True,
            umask=0o077,
        )
    return subprocess.Popen(  # noqa: S603 - a path we located ourselves, and no shell
        command,
        stdin=stdin,
        stdout=output,
        stderr=output,
        cwd="/",
        env=ENVIRONMENT,
        start_new_session=True,
        umask=0o077,
        user=account.uid,
        group=account.gid,
        extra_groups=[],
    )


async def wait_exit(process: subprocess.Popen[bytes]) -> int:
    """Wait until `process` has ended; several tasks may wait for one.

    A pidfd, unlike a child watcher, works the same under every event loop and needs no thread.

    Returns:
        Its return code, negative for a signal.
    """
    code = process.poll()
    if code is not None:
        return code
    if hasattr(os, "pidfd_open"):
        with suppress(ProcessLookupError):  # reaped by another waiter in between
            descriptor = os.pidfd_open(process.pid)
            try:
                await anyio.wait_readable(descriptor)
            finally:
                os.close(descriptor)
        return process.wait()
    while (code := process.poll()) is None:  # noqa: ASYNC110 - the kernel has no event for it
        await anyio.sleep(_POLL_WITHOUT_PIDFD_S)
    return code


def kill_session(process: subprocess.Popen[bytes]) -> None:
    """Kill a child that `spawn` started, with what it started, and reap it."""
    if process.poll() is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Watchdog:
    """Stops PostgreSQL when the node is gone, however it went: `kill -9` included.

    A shell waits on a pipe whose other end only this process has. The kernel closes that end when
    we end, and the shell then asks the last PostgreSQL it was told of for a fast shutdown. Unlike
    PR_SET_PDEATHSIG this does not depend on which thread forked, and it works outside Linux.
    """

    _SCRIPT = (
        "pid=; while read -r line; do pid=$line; done; "
        'case "$pid" in [1-9]*) kill -INT "$pid";; esac'
    )

    def __init__(self, account: Account | None) -> None:
        self._account = account
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: int | None = None

    def start(self) -> None:
        """Make sure the shell runs; before PostgreSQL does, so that there is no gap to die in."""
        if self._process is not None and self._process.poll() is None:
            return
        self.stop()
        reading, self._pipe = os.pipe()
        try:
            self._process = spawn(
                ["/bin/sh", "-c", self._SCRIPT],
                account=self._account,
                output=subprocess.DEVNULL,
                stdin=reading,
            )
        finally:
            os.close(reading)

    def guard(self, pid: int | None) -> None:
        """Name the process to stop after our end; None for none."""
        if self._pipe is not None:
            with suppress(BrokenPipeError):  # somebody killed it: the next start makes another
                os.write(self._pipe, b"-\n" if pid is None else b"%d\n" % pid)

    def stop(self) -> None:
        """End the shell without its doing anything."""
        self.guard(None)
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None
        if self._process is not None:
            kill_session(self._process)
            self._process = None
