"""A real etcd of a test's own, to restart, freeze, kill and empty, and a wire to it to cut."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Self
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import pytest

_UP_WITHIN_S = 20.0
_LOOK_S = 0.05


def program() -> str:
    """Give the path of etcd; where there is none, skip, or fail in CI."""
    found = shutil.which("etcd") or shutil.which("etcd", path="/usr/bin:/usr/local/bin")
    if found is None:
        message = "no etcd here; this gets one: apt-get install etcd-server"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Etcd:
    """One member, on loopback, from `with` to its end."""

    def __init__(self, *options: str, scheme: str = "http") -> None:
        self.program = program()
        self.port = free_port()
        self.endpoint = f"{scheme}://127.0.0.1:{self.port}"
        self._scheme = scheme
        self._options = options
        self._folder = Path(tempfile.mkdtemp(prefix="tickwright-etcd-"))
        self._peer = f"http://127.0.0.1:{free_port()}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Start it, and wait until it takes connections and, over HTTP, has a leader."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self.program,
                    "--name=m",
                    f"--data-dir={self._folder / 'data'}",
                    f"--listen-client-urls={self.endpoint}",
                    f"--advertise-client-urls={self.endpoint}",
                    f"--listen-peer-urls={self._peer}",
                    f"--initial-advertise-peer-urls={self._peer}",
                    f"--initial-cluster=m={self._peer}",
                    "--heartbeat-interval=20",
                    "--election-timeout=200",
                    "--unsafe-no-fsync",
                    *self._options,
                ],
                stdout=log,
                stderr=log,
                env={"PATH": "/usr/bin:/bin", "ETCD_UNSUPPORTED_ARCH": os.uname().machine},
            )
        until = time.monotonic() + _UP_WITHIN_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                text = (self._folder / "log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"etcd does not start:\n{text}")
            time.sleep(_LOOK_S)

    def _answers(self) -> bool:
        with suppress(OSError, URLError):
            if self._scheme == "https":
                with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                    return True
            opener = build_opener(ProxyHandler({}))
            with opener.open(f"{self.endpoint}/health", timeout=1) as answer:
                return b"true" in answer.read()
        return False

    def _signal(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once, frozen or not."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def restart(self) -> None:
        self.kill()
        self.start()

    def save(self) -> None:
        """Keep a copy of what it holds, while it is down."""
        shutil.copytree(self._folder / "data", self._folder / "copy")

    def restore(self) -> None:
        """Go back to the copy, while it is down."""
        self.empty()
        shutil.copytree(self._folder / "copy", self._folder / "data")

    def empty(self) -> None:
        """Forget all it held, while it is down."""
        shutil.rmtree(self._folder / "data")


class Wire:
    """A connection from one node to etcd, which a test may cut, or let go dead with nobody told."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self._to = port
        self._up = True
        self._flows = asyncio.Event()
        self._flows.set()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.heal()
        self.cut()
        if self._tasks:
            await asyncio.wait(self._tasks)

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Reset what is open, and whatever is opened from here on."""
        self._up = False
        for writer in self._writers:
            writer.transport.abort()

    def hold(self) -> None:
        """Take everything and pass nothing on, in either direction."""
        self._flows.clear()

    def heal(self) -> None:
        self._up = True
        self._flows.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        far = None
        try:
            if not self._up:
                return
            back, far = await asyncio.open_connection("127.0.0.1", self._to)
            self._writers.add(far)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, far))
                group.create_task(self._pass(back, writer))
        except (OSError, asyncio.CancelledError):
            pass  # a cancel comes from the loop's end: the streams' own callback would choke on it
        finally:
            self._tasks.discard(task)
            for one in (writer, far):
                if one is not None:
                    self._writers.discard(one)
                    one.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(65536):
                await self._flows.wait()
                writer.write(piece)
                await writer.drain()
        writer.transport.abort()
