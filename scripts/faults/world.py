"""Everything a run stands on: a folder, servers, nodes with links of their own, books, a load."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from scripts.faults import witness
from scripts.faults.books import Books
from scripts.faults.jobs import Work, write_work
from scripts.faults.load import Load
from scripts.faults.nodes import NodeError, NodeProcess
from scripts.faults.plan import Shape
from scripts.faults.proxy import Link
from scripts.faults.servers import ROOT, Servers, address, at_port
from scripts.faults.story import Disturbance

TOKEN: Final = "chaos-chaos-chaos-chaos"
HINTED_NODE: Final = "n1"
"""The one node that has slots of the pool `hinted`."""
_DATABASE: Final = "RUNTIME_DATABASE__URL"
_ETCD: Final = "RUNTIME_ETCD__ENDPOINTS"
_CLUSTER: Final = ROOT / "config" / "cluster.yaml"
_STALL_S: Final = 0.3
_LOOK_S: Final = 0.05
_FAKETIME: Final = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
)


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What to build: the shape, and how much is asked of it."""

    shape: Shape
    rate: float
    every_second: int
    shards: int = 1
    slots: int = 64
    periodics: Path | None = None
    without: str | None = None
    counts: dict[str, int] = msgspec.field(default_factory=dict)
    """Of each kind of server, where it is more than one."""
    stepped: bool = False
    """Whether nodes run under libfaketime."""


class World:
    """What runs, and what is known of it."""

    def __init__(
        self, wanted: Wanted, land: Path, servers: Servers, books: Books, work: Work
    ) -> None:
        self.wanted = wanted
        self.land = land
        self.servers = servers
        self.books = books
        self.work = work
        self.nodes: dict[str, NodeProcess] = {}
        self.disturbances: list[Disturbance] = []
        self.until_us = 0
        """Instants up to here are judged; set when the run is over."""
        self.load = Load(self.urls, token=TOKEN, rate=wanted.rate)

    @property
    def database_url(self) -> str:
        """Of the database itself, past every link."""
        return self.servers.settings[_DATABASE]

    def urls(self) -> Sequence[str]:
        """Of the nodes that may answer."""
        return [n.url for n in self.nodes.values() if n.url and n.alive and not n.stopped]

    async def leader(self) -> NodeProcess:
        """Who leads the lowest group of shards that is led."""
        for name, _ in (await self.books.leaders()).values():
            if name in self.nodes:
                return self.nodes[name]
        return next(iter(self.nodes.values()))

    async def command(self, *words: str, check: bool = True) -> str:
        """Run a `runtime` command against the first node that lives; what it prints.

        Raises:
            NodeError: it fails, unless that is not checked.
        """
        urls = self.urls()
        kept = {n: v for n, v in os.environ.items() if not n.startswith("RUNTIME_")}
        own = {"PYTHONPATH": str(ROOT), "RUNTIME_TOKEN": TOKEN}
        if urls:
            own["RUNTIME_URL"] = urls[0]
        if words[0] == "migrate":
            own[_DATABASE] = self.database_url
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "runtime.cli.main", *words,
            cwd=self.work.folder, env={**kept, **own},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        said, wrong = await process.communicate()
        if check and process.returncode:
            raise NodeError(f"runtime {' '.join(words)}: {wrong.decode(errors='replace').strip()}")
        return said.decode()

    async def watch_the_machine(self) -> None:
        """Write down when this machine stood still: that is nobody's fault who runs on it."""
        while True:
            began_s = time.monotonic()
            await asyncio.sleep(_LOOK_S)
            stalled_s = time.monotonic() - began_s - _LOOK_S
            if stalled_s > _STALL_S:
                self.disturb("machine", "stalled", now_us() - int(stalled_s * 1e6), now_us())

    def disturb(self, kind: str, what: str, begin_us: int, end_us: int, node: str = "") -> None:
        """Remember a span in which promises of time are eased."""
        self.disturbances.append(
            Disturbance(kind=kind, what=what, begin_us=begin_us, end_us=end_us, node=node)
        )


@asynccontextmanager
async def world(wanted: Wanted) -> AsyncIterator[World]:
    """Build a world, and leave no process, folder or port of it behind."""
    land = new_folder()
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, land, ignore_errors=True)
        folder = land / "work"
        folder.mkdir(mode=0o755)
        work = write_work(folder, periodics=wanted.periodics, every_second=wanted.every_second)
        servers = Servers(land, wanted.shape.servers, wanted.counts)
        stack.push_async_callback(servers.down)
        await servers.up()
        books = Books(servers.settings[_DATABASE])
        stack.callback(books.drop)
        built = World(wanted, land, servers, books, work)
        await built.command("migrate")
        await witness.install(await books.session(), without=wanted.without)
        for number in range(wanted.shape.nodes):
            await _add_node(built, f"n{number}", stack)
        await _start_all(built)
        for file in work.files:
            await built.command("apply", str(file), "--source", file.stem)
        yield built


def new_folder() -> Path:
    """A folder that every user can walk through, as the servers' own users must."""
    land = Path(tempfile.mkdtemp(prefix="tickwright-chaos-")).resolve()
    land.chmod(0o711)
    return land


async def _add_node(built: World, name: str, stack: AsyncExitStack) -> None:
    """A node with a link of its own to each server of PostgreSQL and etcd."""
    links: dict[str, Link] = {}
    settings = dict(built.servers.settings)

    async def link(called: str, url: str, *, postgres: bool = False) -> int:
        links[called] = one = Link(*address(url), postgres=postgres)
        await one.open()
        stack.push_async_callback(one.close)
        return one.port

    given = settings[_DATABASE]
    parts = urlsplit(given)
    who, at, hosts = parts.netloc.rpartition("@")
    ports = [
        await link("postgres" if n == 0 else f"postgres-{n + 1}", host, postgres=True)
        for n, host in enumerate(hosts.split(","))
    ]
    through = ",".join(f"127.0.0.1:{port}" for port in ports)
    settings[_DATABASE] = parts._replace(netloc=f"{who}{at}{through}").geturl()
    if _ETCD in settings:
        settings[_ETCD] = ",".join(
            [
                at_port(one, await link("etcd" if n == 0 else f"etcd-{n + 1}", one))
                for n, one in enumerate(settings[_ETCD].split(","))
            ]
        )
    shape, wanted = built.wanted.shape, built.wanted
    settings |= {
        "RUNTIME_API__TOKEN": TOKEN,
        "RUNTIME_LEASE__TTL_S": str(shape.ttl_s),
        "RUNTIME_TASKS__CWD": str(built.work.folder),
        "RUNTIME_POOLS__DEFAULT__SLOTS": str(wanted.slots),
        "RUNTIME_TIMER__SHARDS": str(wanted.shards),
    }
    if name == HINTED_NODE:
        settings["RUNTIME_POOLS__HINTED__SLOTS"] = "4"
    node = NodeProcess(
        name,
        land=built.land,
        links=links,
        environment=settings,
        token=TOKEN,
        config=_CLUSTER if not shape.alone and _CLUSTER.exists() else None,
        without=wanted.without,
        faketime=find_faketime() if wanted.stepped else None,
    )
    built.nodes[name] = node
    stack.push_async_callback(node.end)


async def _start_all(built: World) -> None:
    for node in built.nodes.values():
        node.launch()
    for node in built.nodes.values():
        await node.ready()


def find_faketime() -> Path | None:
    """libfaketime, where it is installed."""
    found = [Path(place) for place in _FAKETIME if Path(place).exists()]
    return found[0] if found else None


def now_us() -> int:
    """The wall clock, which the servers and the ledger go by as well."""
    return time.time_ns() // 1000


def interruptible() -> None:
    """Let SIGTERM and SIGHUP end the harness as Ctrl-C does, by way of every `finally`."""
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
