"""One server process of a cluster: launched, waited for through its recovery, watched and ended."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import anyio

from runtime.postgres.embedded import cluster, postmaster
from runtime.postgres.embedded.diagnosis import explain
from runtime.postgres.embedded.errors import StartFailedError, unusable
from runtime.postgres.embedded.log import ServerLog
from runtime.postgres.embedded.place import Place
from runtime.postgres.embedded.process import Watchdog, kill_session, spawn, wait_exit

# Recovery that takes longer than this is told of, and again as often.
TELL_EVERY_S = 5.0
LOG_CHECK_S = 60.0
_POLL_S = 0.01
_SAMPLE_S = 0.5
# Backends of a postmaster killed by force hold its shared memory until they notice, in moments.
_SHARED_MEMORY_PATIENCE_S = 30.0
_SHARED_MEMORY_PAUSE_S = 0.1
_SHARED_MEMORY_IN_USE = "pre-existing shared memory block"


class Launcher:
    """Runs the server of one place; at most one at a time.

    Args:
        place: where the cluster is.
        installation: whose programs run it.
        stall_s: how long a start may stand still before it is given up.
        tell: takes an event's name and its facts.
    """

    def __init__(
        self, place: Place, installation: Path, *, stall_s: float, tell: Callable[..., None]
    ) -> None:
        self._place = place
        self._installation = installation
        self._stall_s = stall_s
        self._tell = tell
        self._log = ServerLog(place.log)
        self._log_offset = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog = Watchdog(place.account)
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    async def launch(self) -> None:
        """Start the server and wait until it takes connections, however long it recovers.

        What a dead node left running on the cluster is ended first.

        Raises:
            StartFailedError: it ended, or stood still; nothing is left running.
            DataDirUnusableError: its folders cannot be used.
        """
        try:
            orphan = await postmaster.stop_orphan(self._place.data)
            # Nobody serves it now. A socket's lock file names a process too, and after a power cut
            # that number may be any program's, which PostgreSQL would wait for in vain.
            for leftover in self._place.run.glob(".s.PGSQL.*"):
                leftover.unlink(missing_ok=True)
        except OSError as error:
            raise unusable(self._place.data, error) from error
        if orphan is not None:
            self._tell("postgres_orphan_stopped", pid=orphan)
        cluster.configure(self._place)
        give_up_s = anyio.current_time() + _SHARED_MEMORY_PATIENCE_S
        while True:
            try:
                await self._launch_once()
            except StartFailedError:
                in_use = _SHARED_MEMORY_IN_USE in self._said()
                if not in_use or self._closed or anyio.current_time() > give_up_s:
                    raise
                await anyio.sleep(_SHARED_MEMORY_PAUSE_S)
            else:
                return

    async def _launch_once(self) -> None:
        if self._closed:
            raise StartFailedError("PostgreSQL was told to stop while it was to be started")
        place, log = self._place, self._log
        try:
            log.bound()
            self._log_offset = log.size()
            output = log.open()
        except OSError as error:
            raise unusable(place.log, error) from error
        try:
            self._watchdog.start()
            command = cluster.command(place, self._installation)
            process = spawn(command, account=place.account, output=output)
        except OSError as error:
            raise StartFailedError(f"PostgreSQL cannot be executed: {error}") from error
        finally:
            os.close(output)
        self._watchdog.guard(process.pid)
        self._process = process
        try:
            await self._wait_ready(process)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._end(process, at_once=True)
            raise

    async def _wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        started_s = told_s = sampled_s = anyio.current_time()
        progress = postmaster.Progress(patience_s=self._stall_s, now_s=started_s)
        while True:
            code = process.poll()
            if code is not None:
                said = explain(self._said(), log=self._log.path)
                raise StartFailedError(f"PostgreSQL did not start (code {code}): {said}")
            state = postmaster.read(self._place.data)
            if state is not None and state.pid == process.pid and state.status == postmaster.READY:
                return
            now_s = anyio.current_time()
            if now_s - sampled_s > _SAMPLE_S:
                sampled_s = now_s
                seen = (self._log.size(), postmaster.work_done(process.pid))
                if progress.stalled(seen, now_s=now_s):
                    raise StartFailedError(
                        f"PostgreSQL has stood still for {self._stall_s:.0f} s while starting: "
                        f"its log is {self._log.path}"
                    )
            if now_s - told_s > TELL_EVERY_S:
                told_s = now_s
                said = self.last_words()
                self._tell("postgres_recovering", elapsed_s=round(now_s - started_s, 1), said=said)
            await anyio.sleep(_POLL_S)

    async def watch(self) -> int:
        """Wait for the server's end, keeping its log within bounds meanwhile.

        Returns:
            Its return code, negative for a signal.
        """
        process = self._process
        assert process is not None, "launch() comes first"
        while True:
            with anyio.move_on_after(LOG_CHECK_S):
                code = await wait_exit(process)
                self._watchdog.guard(None)
                return code
            with suppress(OSError):  # a full disk: PostgreSQL itself will say so
                self._log.bound()

    async def close(self, *, at_once: bool) -> bool:
        """End the server for good; may be called again, from another task, to hurry it.

        Args:
            at_once: without the checkpoint; the next start recovers.

        Returns:
            Whether one was running.
        """
        self._closed = True
        process = self._process
        running = process is not None and process.poll() is None
        if process is not None and running:
            await self._end(process, at_once=at_once)
        self._watchdog.stop()
        return running

    async def _end(self, process: subprocess.Popen[bytes], *, at_once: bool) -> None:
        steps = (
            (signal.SIGINT, postmaster.FAST_PATIENCE_S),
            (signal.SIGQUIT, postmaster.IMMEDIATE_PATIENCE_S),
        )
        for number, patience_s in steps[1:] if at_once else steps:
            if process.poll() is None:
                process.send_signal(number)
            with anyio.move_on_after(patience_s):
                await wait_exit(process)
                break
        kill_session(process)
        self._watchdog.guard(None)

    def _said(self) -> str:
        return self._log.since(self._log_offset)

    def last_words(self) -> str:
        """Return the last line it wrote since it was launched."""
        return (self._said().strip().splitlines() or [""])[-1]
