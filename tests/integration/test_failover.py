"""A database of several hosts: its primary is found, followed, and nothing acknowledged is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import anyio
import pytest

from protocols.errors import UnavailableError
from runtime.cli.checks_of_database import check_database
from runtime.clock import DatabaseClock
from runtime.database import Database, connect
from runtime.health import Health, Level
from runtime.postgres.hosts import Hosts
from runtime.postgres.pool import Pool
from runtime.settings import load_settings
from runtime.timekeeping import Timekeeper
from tests.support.cluster import TOKEN, Servers, cluster
from tests.support.folders import walkable_folder
from tests.support.services import Server, Services

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]

WITHIN_S = 60.0
JOBS = """
jobs:
  - {job_id: often, schedule: "* * * * * *", command: "true", overlap: allow}
  - {job_id: asked, command: "true", overlap: allow}
"""
CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'vital'"
ROWS = """
WITH rows AS (
    SELECT scheduled_for, instants FROM execution_history WHERE job_id = 'often'
    UNION ALL SELECT scheduled_for, 1 FROM executions WHERE job_id = 'often' AND origin = 0
)
SELECT count(*) AS rows, sum(instants) AS instants,
    extract(epoch FROM max(scheduled_for) - min(scheduled_for))::int + 1 AS due
FROM rows
"""


class Road:
    """A host that leads to the server, until it is blocked: it takes what comes, and is silent."""

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self.open = asyncio.Event()
        self.open.set()
        self.port = 0

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(*self._to)
        async with anyio.create_task_group() as group:
            group.start_soon(self._pump, reader, there_writer)
            group.start_soon(self._pump, there_reader, writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                await self.open.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            return
        finally:
            writer.close()


@asynccontextmanager
async def road_to(url: str) -> AsyncIterator[Road]:
    parts = urlsplit(url)
    road = Road(parts.hostname, parts.port)
    server = await asyncio.start_server(road.carry, "127.0.0.1", 0)
    road.port = server.sockets[0].getsockname()[1]
    try:
        yield road
    finally:
        road.open.set()
        server.close()


def over(url: str, *hosts: str) -> str:
    """The same database by other hosts."""
    parts = urlsplit(url)
    login = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{login}@{','.join(hosts)}"))


def host_of(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


async def test_a_host_that_is_silent_holds_nobody_up(database_server: Server):
    url = database_server.url
    async with road_to(url) as road:
        road.open.clear()
        hosts = Hosts({"dsn": over(url, f"127.0.0.1:{road.port}", host_of(url))})
        with anyio.fail_after(WITHIN_S):
            session = await connect(hosts)
        assert await session.fetchval("SELECT 1") == 1
        await session.close()
        assert hosts.primary == host_of(url)


async def test_statements_on_dead_connections_end_when_the_primary_is_found_elsewhere(
    database_server: Server,
):
    url = database_server.url
    async with road_to(url) as road:
        hosts = Hosts({"dsn": over(url, f"127.0.0.1:{road.port}", host_of(url))})
        async with Pool(hosts, name="one", size=2) as pool, Pool(hosts, name="two", size=2) as two:
            assert hosts.primary == f"127.0.0.1:{road.port}"
            road.open.clear()
            ended = anyio.Event()

            async def wait_in_vain() -> None:
                with pytest.raises(UnavailableError):
                    await two.fetch("SELECT 1")
                ended.set()

            async with anyio.create_task_group() as group:
                group.start_soon(wait_in_vain)
                with pytest.raises(UnavailableError, match="no answer in time"):
                    await pool.fetch("SELECT 1", within_s=0.5)
                assert not ended.is_set()
                assert (await pool.fetch("SELECT 2"))[0][0] == 2
                assert hosts.primary == host_of(url)
                await ended.wait()
            assert (await two.fetch("SELECT 3"))[0][0] == 3


class Told(Health):
    """Keeps each trouble that it was told of."""

    def __init__(self, clock: DatabaseClock) -> None:
        super().__init__(clock)
        self.parts: list[str] = []

    def trouble(self, part: str, reason: str, *, level: Level = "degraded") -> bool:
        self.parts.append(part)
        return super().trouble(part, reason, level=level)


async def test_a_connection_that_broke_is_no_outage_and_a_silent_server_is(
    database_server: Server,
):
    url = database_server.url
    samples: list[bool] = []
    clock = DatabaseClock()
    health = Told(clock)
    async with road_to(url) as road:
        hosts = Hosts({"dsn": over(url, f"127.0.0.1:{road.port}")})
        async with Pool(hosts, name="vital", size=2) as pool:
            database = Database(hot=pool, keeping=pool, vital=pool, api=pool, embedded=False)
            time = Timekeeper(
                database, clock=clock, health=health, ttl_s=0.0, reached=samples.append
            )
            await time.begin()

            async def sampled(as_it_should: bool) -> None:
                samples.clear()
                with anyio.fail_after(WITHIN_S):
                    while as_it_should not in samples:  # noqa: ASYNC110 - a list tells nobody
                        await anyio.sleep(0.05)

            async with anyio.create_task_group() as group:
                group.start_soon(time.run)
                await sampled(True)
                cut = await connect(Hosts({"dsn": url}))
                await cut.execute(CUT)
                await cut.close()
                await sampled(True)
                assert "database" not in health.parts
                road.open.clear()
                await sampled(False)
                assert "database" in health.troubles
                road.open.set()
                await sampled(True)
                assert "database" not in health.troubles
                group.cancel_scope.cancel()


@pytest.fixture(scope="module")
def pair() -> Iterator[Services]:
    """Give two PostgreSQL of which each commit is on both."""
    with walkable_folder() as folder, Services(folder / "pair") as services:
        yield services


@pytest.fixture
def servers(pair: Services, etcd_server: Server, kafka_server: Server) -> Servers:
    url = pair.up("postgres", "--postgres", "2")["RUNTIME_DATABASE__URL"]
    return Servers(Server(pair, "postgres-1", url), etcd_server, kafka_server)


async def doctor_says(url: str) -> dict[str, list[tuple[str, str]]]:
    settings = load_settings(
        config=None, environment={"RUNTIME_DATABASE__URL": url}, options={}, cwd=Path("/")
    )
    found: dict[str, list[tuple[str, str]]] = {}
    for check in await check_database(settings):
        assert "password" not in check.said
        assert urlsplit(url).password not in check.said + check.mend
        found.setdefault(check.name, []).append((check.state, check.said))
    return found


async def primary_of(pair: Services, url: str) -> str:
    """The name of the server that takes writes."""
    (said,) = [said for _, said in (await doctor_says(url))["database"] if "the primary" in said]
    return next(name for name, row in pair.rows().items() if f":{row['port']}:" in said)


@pytest.mark.parametrize("how", ["kill", pytest.param("pause", marks=pytest.mark.slow)])
async def test_a_promotion_is_followed_and_nothing_acknowledged_is_gone(
    land, pair, servers, how: str
):
    url = servers.database.url
    async with cluster(land, servers, timer__shards="2") as house:
        nodes = house.up("a", "b")
        house.apply(nodes[0], JOBS)
        acknowledged: list[str] = []

        def ask() -> None:
            for node in nodes:
                done = node.run("trigger", "asked", "--json", RUNTIME_TOKEN=TOKEN).ok()
                acknowledged.append(done.json()["execution_id"])

        async def fired(more: int) -> None:
            query = "SELECT count(*) FROM execution_history WHERE job_id = 'often'"
            before = await house.value(query)

            async def went_on() -> bool:
                return await house.value(query) >= before + more

            await house.until(went_on, "it fires")

        await fired(2)
        before = dict(await house.rows("SELECT number, epoch FROM leaderships"))
        ask()
        primary = await primary_of(pair, url)
        pair.ok(how, primary)
        assert [state for state, _ in (await doctor_says(url))["primary"]] == ["wrong"]
        pair.ok("promote")
        await fired(2)
        ask()
        after = dict(await house.rows("SELECT number, epoch FROM leaderships"))
        assert all(after[number] >= epoch for number, epoch in before.items())
        pair.ok("restart", primary)
        said = await doctor_says(url)
        assert [state for state, _ in said["primary"] + said["standbys"]] == ["ok", "ok"], said

        async def all_ran() -> bool:
            query = (
                "SELECT count(*) FROM execution_history"
                " WHERE job_id = 'asked' AND state = 'succeeded'"
            )
            return await house.value(query) == len(acknowledged)

        await house.until(all_ran, "what was acknowledged has run, once")
        (row,) = await house.rows(ROWS)
        assert row["rows"] == row["instants"] == row["due"], dict(row)
        for node in nodes:
            assert node.stop() == 0
