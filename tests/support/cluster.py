"""Nodes of one cluster, each a process, on the session's PostgreSQL, etcd and Kafka.

    async with cluster(folder, servers) as house:
        a, b = house.node("a"), house.node("b", pools__default__slots="1")

Each cluster has a database and a name of its own, so that tests share servers and nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import anyio
import asyncpg
import pytest

from tests.support.node import NodeProcess, run
from tests.support.services import Server

TTL_S = 3.0
WITHIN_S = 60.0
TOKEN = "a-token-that-all-nodes-of-a-test-share"


LEFT = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)
"""What a session says whose server was restarted."""


class Servers(NamedTuple):
    """What a cluster needs."""

    database: Server
    etcd: Server
    kafka: Server


@pytest.fixture
def servers(database_server: Server, etcd_server: Server, kafka_server: Server) -> Servers:
    """Give the session's servers, for clusters."""
    return Servers(database_server, etcd_server, kafka_server)


class ClusterHouse:
    """The nodes of one cluster, and a look into its books."""

    def __init__(self, folder: Path, env: dict[str, str], books: asyncpg.Pool) -> None:
        self.folder = folder
        self.env = env
        self.books = books
        self.nodes: dict[str, NodeProcess] = {}

    def node(self, name: str, **settings: str) -> NodeProcess:
        """A node of that name, not started; settings by path, `__` for each dot."""
        own = {f"RUNTIME_{path.upper()}": value for path, value in settings.items()}
        node = NodeProcess(
            self.folder / name, options=["--node", name], env={**self.env, **own}, cwd=self.folder
        )
        self.nodes[name] = node
        return node

    def up(self, *names: str, **settings: str) -> list[NodeProcess]:
        """Start nodes side by side, and return once each is ready."""
        nodes = [self.node(name, **settings) for name in names]
        for node in nodes:
            node.launch()
        for node in nodes:
            node.wait_ready()
        return nodes

    def apply(self, node: NodeProcess, text: str) -> None:
        """Apply a job file by a node."""
        file = self.folder / "jobs.yaml"
        file.write_text(text)
        node.run("apply", str(file), RUNTIME_TOKEN=TOKEN).ok()

    async def rows(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        """Ask the books as their owner; again, where the server was restarted since."""
        for _ in range(self.books.get_max_size()):
            try:
                return await self.books.fetch(query, *arguments)
            except LEFT:
                await self.books.expire_connections()
        return await self.books.fetch(query, *arguments)

    async def value(self, query: str, *arguments: Any) -> Any:
        """One value of the books."""
        rows = await self.rows(query, *arguments)
        return rows[0][0] if rows else None

    async def until(self, condition: Callable[[], Awaitable[object]], what: str) -> None:
        """Wait for something that only the nodes can bring about."""
        with anyio.move_on_after(WITHIN_S):
            while not await condition():  # noqa: ASYNC110 - other processes, which can tell nobody
                await anyio.sleep(0.05)
            return
        stories = "\n".join(f"--- {name}\n{node.story()}" for name, node in self.nodes.items())
        pytest.fail(f"waited {WITHIN_S:.0f} s in vain until {what}\n{stories}")

    async def leaders(self) -> dict[int, str]:
        """Who leads what, by the beats of those that live."""
        rows = await self.rows(
            "SELECT name, k.number::int AS number FROM nodes,"
            " LATERAL jsonb_object_keys(leads) AS k (number) WHERE state IN ('up', 'draining')"
        )
        return {row["number"]: row["name"] for row in rows}

    def end(self) -> None:
        """End every node, however."""
        for node in self.nodes.values():
            if node.code is None:
                node.kill()


@asynccontextmanager
async def cluster(folder: Path, servers: Servers, **settings: str) -> AsyncIterator[ClusterHouse]:
    """A cluster of a database and a name of its own; its nodes end with the block."""
    name = f"t{uuid4().hex[:12]}"
    url = urlunsplit(urlsplit(servers.database.url)._replace(path=f"/{name}"))
    env = {
        "RUNTIME_DATABASE__URL": url,
        "RUNTIME_ETCD__ENDPOINTS": servers.etcd.endpoint,
        "RUNTIME_KAFKA__BOOTSTRAP_SERVERS": servers.kafka.bootstrap,
        "RUNTIME_CLUSTER__NAME": name,
        "RUNTIME_LEASE__TTL_S": str(TTL_S),
        "RUNTIME_API__TOKEN": TOKEN,
        **{f"RUNTIME_{path.upper()}": value for path, value in settings.items()},
    }
    await administer(servers, f"CREATE DATABASE {name}")
    run("migrate", env=env).ok()
    books = await asyncpg.create_pool(url, min_size=0, max_size=2)
    house = ClusterHouse(folder, env, books)
    try:
        yield house
    finally:
        house.end()
        books.terminate()
        await administer(servers, f"DROP DATABASE {name} WITH (FORCE)")


async def administer(servers: Servers, statement: str) -> None:
    """Run a statement as the superuser, on a session of its own: the server may be restarted."""
    session = await asyncpg.connect(servers.database.url)
    try:
        await session.execute(statement)
    finally:
        await session.close()


def evenly(leaders: dict[int, str], names: Iterable[str], count: int) -> bool:
    """Whether so many leaderships are spread over these nodes, as evenly as can be."""
    held = [list(leaders.values()).count(name) for name in names]
    return sum(held) == len(leaders) == count and max(held) - min(held) <= 1
