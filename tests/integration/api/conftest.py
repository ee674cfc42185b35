"""A served API over a real database, with the least of a node around it."""

import asyncio
import socket
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx
import pytest_asyncio

from protocols.actor import Props
from runtime.api.server import ApiServer
from runtime.clock import DatabaseClock
from runtime.health import Health
from runtime.hosts.lateness import Lateness
from runtime.hosts.locks import LockKeeper
from runtime.kernel.system import ActorSystem
from runtime.postgres.store import PostgresStore
from runtime.settings import load_settings
from tests.integration.operations.conftest import world_of

TOKEN = "a-token-of-the-tests-only"


class Beats:
    """Stands where a pool's executor does, and keeps the beats it was told of."""

    def __init__(self):
        self.beats = []
        self.lateness = Lateness()
        self.lateness.add(3_000_000)

    def beat(self, id, fencing_token):  # noqa: A002 - the port's
        self.beats.append((id, fencing_token))

    def statistics(self):
        return {"held": 1, "held_loops": 0, "hosts_killed": 0, "finished_succeeded": 2}


class Sent:
    """Keeps the hints that were sent."""

    def __init__(self):
        self.hints = []

    def send(self, hint):
        self.hints.append(hint)


class Site:
    """A node as its API sees it, and a client of it."""

    def __init__(self, world, folder, url, system):
        self.world = world
        self.settings = load_settings(
            config=None, environment={}, options={"data_dir": str(folder)}, cwd=folder
        )
        self.clock = DatabaseClock()
        self.health = Health(self.clock)
        self.token = TOKEN
        self.url = url
        self.store = PostgresStore(hot=world.node, keeping=world.node)
        self.api = world.api
        self.keeping = world.node
        self.hints = Sent()
        self.incarnation = 1
        self.executors = {"default": Beats()}
        self.locks = LockKeeper(store=self.store.locks, now=self.clock.now)
        self.outbox = self.member = None
        self.leads = {0: 1}
        self.system = system
        self.folder = Path(__file__).parents[3]
        self.http: httpx.AsyncClient

    def shut_down(self):
        raise AssertionError("no request ends a node")

    async def get(self, path, status=200, **options):
        return await self._ask("GET", path, status, **options)

    async def post(self, path, body=None, status=201, **options):
        return await self._ask("POST", path, status, json=body or {}, **options)

    async def _ask(self, method, path, status, **options):
        answer = await self.http.request(method, f"/api/v1/{path}", **options)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    async def job(self, job_id, **fields):
        return await self.post("jobs", {"job_id": job_id, "command": "true", **fields})


def bound():
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    return listening, f"http://127.0.0.1:{listening.getsockname()[1]}"


@asynccontextmanager
async def _closed(listening):
    with listening:
        yield


@asynccontextmanager
async def site_of(server, folder: Path):
    listening, url = bound()
    clock = DatabaseClock()
    async with (
        _closed(listening),
        world_of(server) as world,
        ActorSystem(clock=clock, tree=Props(name="node")) as system,
        httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=20
        ) as http,
        anyio.create_task_group() as group,
    ):
        site = Site(world, folder, url, system)
        site.http = http
        api = ApiServer(site, listening)
        await group.start(api.run)
        site.server = api
        try:
            yield site
        finally:
            with anyio.CancelScope(shield=True):
                await api.stop()


@pytest_asyncio.fixture
async def site(postgres_server, tmp_path):
    """The site lives in one task of its own: a fixture's two halves are run by two."""
    loop = asyncio.get_running_loop()
    opened, over = loop.create_future(), asyncio.Event()

    async def live():
        try:
            async with site_of(postgres_server, tmp_path) as made:
                opened.set_result(made)
                await over.wait()
        except BaseException as error:
            if opened.done():
                raise
            opened.set_exception(error)

    living = loop.create_task(live())
    try:
        yield await opened
    finally:
        over.set()
        await living


async def followed(site):
    """Return once somebody waits for news."""
    async with asyncio.timeout(20):
        await site.server.wait_followed()
