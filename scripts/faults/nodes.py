"""A node as a process of its own: its data folder, its log, its ways to the servers."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import psutil

from scripts.faults.asking import AskError, Caller
from scripts.faults.node import TASKS
from scripts.faults.proxy import Link
from scripts.faults.servers import ROOT

READY_S: Final = 90.0
STOP_S: Final = 60.0
CLOCK_FILE: Final = "clock"
_API: Final = re.compile(r"API\s+(http://\S+)")


class NodeError(Exception):
    """A node does not do what it has to; the message names its log."""


class NodeProcess:
    """One node, under the same name and folder through all its lives."""

    def __init__(
        self,
        name: str,
        *,
        land: Path,
        links: Mapping[str, Link],
        environment: Mapping[str, str],
        token: str,
        config: Path | None,
        without: str | None,
        faketime: Path | None = None,
    ) -> None:
        self.name = name
        self.folder = land / f"node-{name}"
        self.links = dict(links)
        self.url = ""
        self.lives = 0
        self.stopped = False
        """Whether it stands still, by SIGSTOP."""
        self._land = land
        self._environment = dict(environment)
        self._caller = Caller(token)
        self._config = config
        self._without = without
        self._faketime = faketime
        self._process: subprocess.Popen[bytes] | None = None
        self._log_from = 0
        self.folder.mkdir()
        (self.folder / CLOCK_FILE).write_text("+0")

    @property
    def pid(self) -> int:
        """Of the living process."""
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether there is a process."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> Path:
        """What it says, through all its lives."""
        return self.folder / "log"

    def launch(self) -> None:
        """Start the process."""
        assert not self.alive
        self.url = ""
        self.lives += 1
        arguments = ["start", "--node", self.name, "--port", "0"]
        arguments += ["--data-dir", str(self.folder / "data")]
        if self._config is not None:
            arguments += ["--config", str(self._config)]
        guard = ["--without", self._without] if self._without else []
        with self.log.open("ab") as log:
            self._log_from = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "scripts.faults.node", *guard, *arguments],
                cwd=self._land,
                env=self._env(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        (self.folder / "pid").write_text(str(self._process.pid))

    async def start(self) -> None:
        """Start it, and return when it is ready.

        Raises:
            NodeError: it ends, or is not ready in time.
        """
        self.launch()
        await self.ready()

    async def ready(self, within_s: float = READY_S) -> None:
        """Return when it says that ticks and dispatch advance."""
        until_s = time.monotonic() + within_s
        while not await self.is_ready():
            if not self.alive:
                assert self._process is not None
                code = self._process.returncode
                raise NodeError(f"node {self.name} ended with {code}: {self.last_words()}")
            if time.monotonic() > until_s:
                raise NodeError(f"node {self.name} is not ready: {self.last_words()}")
            await asyncio.sleep(0.05)

    async def is_ready(self) -> bool:
        """Whether it answers so now."""
        if not self.alive or not self._found_url():
            return False
        try:
            status, _ = await self._caller.get(self.url, "/health/ready", within_s=2.0)
        except AskError:
            return False
        return status == 200

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it lives."""
        if self.alive:
            os.kill(self.pid, number)
            if number in {signal.SIGSTOP, signal.SIGCONT}:
                self.stopped = number == signal.SIGSTOP

    async def kill(self) -> None:
        """Kill -9, and reap it."""
        self.signal(signal.SIGKILL)
        await self._ended(STOP_S)

    async def stop(self) -> int:
        """SIGTERM; its exit code.

        Raises:
            NodeError: it does not end.
        """
        self.signal(signal.SIGTERM)
        if not await self._ended(STOP_S):
            raise NodeError(f"node {self.name} does not end: {self.last_words()}")
        assert self._process is not None
        return self._process.returncode

    async def end(self) -> None:
        """Make sure that it is gone."""
        if self.alive:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            if not await self._ended(20.0):
                await self.kill()
        self._caller.close()

    async def tasks(self) -> int:
        """How many tasks its loop has."""
        place = self.folder / "tasks"
        place.unlink(missing_ok=True)
        self.signal(signal.SIGUSR2)
        for _ in range(200):
            if place.exists():
                return int(place.read_text())
            await asyncio.sleep(0.02)
        raise NodeError(f"node {self.name} does not tell its tasks: {self.last_words()}")

    def family(self) -> list[psutil.Process]:
        """It and all that it has started."""
        own = psutil.Process(self.pid)
        return [own, *own.children(recursive=True)]

    def step_clock(self, by_s: float) -> None:
        """Let its wall clock jump, where it was started under libfaketime."""
        place = self.folder / CLOCK_FILE
        new = place.with_suffix(".new")
        new.write_text(f"{by_s:+.0f}")  # looked at with every look at the clock: never half of it
        new.replace(place)

    def last_words(self) -> str:
        """The end of its log."""
        lines = self.log.read_text(errors="replace").splitlines()[-4:]
        return f"{' | '.join(lines)} (all of it: {self.log})"

    async def _ended(self, within_s: float) -> bool:
        until_s = time.monotonic() + within_s
        while self.alive:
            if time.monotonic() > until_s:
                return False
            await asyncio.sleep(0.02)
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self.stopped = False
        return True

    def _found_url(self) -> bool:
        if not self.url:
            with self.log.open("rb") as log:
                log.seek(self._log_from)
                found = _API.search(log.read().decode(errors="replace"))
            self.url = found.group(1) if found else ""
        return bool(self.url)

    def _env(self) -> dict[str, str]:
        kept = {n: v for n, v in os.environ.items() if not n.startswith("RUNTIME_")}
        own = {"PYTHONPATH": str(ROOT), TASKS: str(self.folder / "tasks")}
        if self._faketime is not None:
            own |= {
                "LD_PRELOAD": str(self._faketime),
                "FAKETIME_TIMESTAMP_FILE": str(self.folder / CLOCK_FILE),
                "FAKETIME_CACHE_DURATION": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        return {**kept, **self._environment, **own}
