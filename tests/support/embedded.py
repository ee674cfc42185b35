"""What the tests of the embedded PostgreSQL share: building one, watching it, killing its node."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import asyncpg
import psutil
import pytest

from runtime.postgres.embedded import ConnectionSettings, EmbeddedPostgres

ROOT = Path(__file__).resolve().parents[2]
NODE = Path(__file__).with_name("embedded_node.py")
WAIT_S = 60.0

as_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root has another user to run PostgreSQL as"
)


class Told:
    """Collects a server's events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict]] = []

    def __call__(self, name: str, facts: dict) -> None:
        self.events.append((name, dict(facts)))

    def names(self) -> list[str]:
        return [name for name, _ in self.events]

    def facts(self, name: str) -> dict:
        return next(facts for told, facts in self.events if told == name)


def embedded(land: Path, *, data: Path | None = None, told: Told | None = None, **options):
    """Build a server on LAND/data, whose other place is LAND/outside."""
    options.setdefault("node_name", "n1")
    options.setdefault("incarnation", "i1")
    return EmbeddedPostgres(
        data or land / "data", on_event=told, outside=land / "outside", **options
    )


async def ask(settings: ConnectionSettings, question: str, *values: object) -> object:
    """Ask one question on a connection of its own."""
    session = await asyncpg.connect(**settings.arguments())
    try:
        return await session.fetchval(question, *values)
    finally:
        await session.close()


def wait_until(condition: Callable[[], object], what: str, within_s: float = WAIT_S) -> None:
    """Wait for a condition of another process, which can tell nobody of it."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {within_s:.0f} s in vain until {what}"
        time.sleep(0.01)


def gone(pid: int) -> bool:
    """Tell whether a process has ended; one that only waits to be reaped has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def server_processes(folder: Path) -> list[psutil.Process]:
    """Find every process that works in, or was started on, a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [process.cwd(), *process.cmdline()]
        except psutil.Error:
            continue
        if any(str(folder) in word for word in words) and process.pid != os.getpid():
            found.append(process)
    return found


class Node:
    """A node in a process of its own: it commits 1, 2, 3, ... and prints what was acknowledged."""

    def __init__(self, land: Path, *, prefix: Sequence[str] = ()) -> None:
        self._process = subprocess.Popen(
            [*prefix, sys.executable, NODE, land / "data", land / "outside"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.pid = self._process.pid
        self.acknowledged: list[int] = []
        self.server_pid = 0

    def read_until(self, acknowledged: int) -> None:
        """Read until that many numbers were acknowledged."""
        while len(self.acknowledged) < acknowledged:
            line = self._process.stdout.readline()
            assert line, f"the node ended with {self._process.wait()}"
            self._take(line)

    def kill(self) -> None:
        """Kill -9, and take what it had printed by then."""
        self._process.send_signal(signal.SIGKILL)
        for line in self._process.stdout:
            if line.endswith("\n"):
                self._take(line)
        self.close()

    def close(self) -> None:
        """Make sure that it is gone."""
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def _take(self, line: str) -> None:
        word, value = line.split()
        if word == "server":
            self.server_pid = int(value)
        elif word == "ack":
            self.acknowledged.append(int(value))
