"""PostgreSQL, etcd and Kafka of a run, by `scripts/services`, and a guardian that outlives us."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

ROOT: Final = Path(__file__).resolve().parents[2]
SCRIPT: Final = ROOT / "scripts" / "services"
UP_S: Final = 240.0
ACT_S: Final = 120.0
_BROKEN_ETCD: Final = ((3, 5, 0), (3, 5, 2))
"""These can lose what they acknowledged when they are killed under load."""

# If the harness is killed, its end of the pipe closes, and what it started is ended all the same.
_GUARDIAN: Final = """
read -r never
for file in "$1"/node-*/pid; do
    [ -f "$file" ] && kill -9 "$(cat "$file")" 2>/dev/null
done
"$2" down --purge --dir "$1/services" >/dev/null 2>&1
rm -rf -- "$1"
"""


class ServerError(Exception):
    """A server cannot be had, or does not do as it is told; the message says which and why."""


class Servers:
    """The servers under one folder."""

    def __init__(self, folder: Path, kinds: tuple[str, ...], counts: dict[str, int]) -> None:
        self.folder = folder / "services"
        self.kinds = kinds
        self.settings: dict[str, str] = {}
        """`RUNTIME_...` names and their values, as the nodes would have them."""
        self._counts = counts
        self._guardian: subprocess.Popen[bytes] | None = None
        self._land = folder

    async def up(self) -> None:
        """Start all, and keep the settings that they print.

        Raises:
            ServerError: one of them does not come up, or is an etcd that cannot be trusted.
        """
        self._guardian = subprocess.Popen(  # noqa: ASYNC220 - it is not waited for
            ["/bin/sh", "-c", _GUARDIAN, "guardian", self._land, SCRIPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
        counts = [f"--{kind}={count}" for kind, count in self._counts.items() if kind in self.kinds]
        said, progress = await self._run("up", *self.kinds, *counts, within_s=UP_S)
        refuse_bad_etcd(progress)
        for line in said.splitlines():
            name, _, value = line.removeprefix("export ").partition("=")
            self.settings[name] = shlex.split(value)[0]

    async def act(self, verb: str, *names: str) -> None:
        """`kill`, `pause`, `resume` or `restart` a server, or `promote`; the last two wait."""
        await self._run(verb, *names, within_s=ACT_S)

    async def status(self) -> list[dict[str, Any]]:
        """What `scripts/services status` says."""
        said, _ = await self._run("status", "--json", within_s=ACT_S)
        found: list[dict[str, Any]] = json.loads(said)
        return found

    async def down(self) -> None:
        """End all and forget their data."""
        if self._guardian is None:
            return
        try:
            await self._run("down", "--purge", within_s=ACT_S)
        finally:
            self._guardian.kill()
            self._guardian.wait()
            assert self._guardian.stdin is not None
            self._guardian.stdin.close()
            self._guardian = None

    async def _run(self, *words: str, within_s: float) -> tuple[str, str]:
        process = await asyncio.create_subprocess_exec(
            str(SCRIPT), *words, "--dir", str(self.folder),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(within_s):
                said, progress = await process.communicate()
        except BaseException:
            if process.returncode is None:
                process.kill()
                await process.wait()
            raise
        if process.returncode:
            what = progress.decode(errors="replace").strip()
            raise ServerError(f"scripts/services {' '.join(words)}: {what}")
        return said.decode(), progress.decode(errors="replace")


def refuse_bad_etcd(progress: str) -> None:
    """Print nothing, and refuse an etcd that may lose data by itself.

    Raises:
        ServerError: it is 3.5.0 to 3.5.2.
    """
    for found in re.finditer(r"etcd(?:-\d+)? (\d+)\.(\d+)\.(\d+)", progress):
        version = tuple(map(int, found.groups()))
        if _BROKEN_ETCD[0] <= version <= _BROKEN_ETCD[1]:
            raise ServerError(
                f"{found.group()} can lose data when it is killed under load, and would be blamed "
                "on us: install Debian's etcd-server, or an etcd from 3.5.6 on"
            )


def address(url: str) -> tuple[str, int]:
    """Host and port of a URL."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    assert parts.hostname is not None
    assert parts.port is not None, url
    return parts.hostname, parts.port


def at_port(url: str, port: int) -> str:
    """The same URL, at a port of 127.0.0.1."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    who, at, _ = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{who}{at}127.0.0.1:{port}").geturl()
