"""A house whose tasks may lock: real processes, and the locks of a real PostgreSQL."""

import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import anyio

from protocols.errors import UnavailableError
from protocols.ports.locks import LockClaim, LockHold
from runtime.hosts.locks import LockKeeper
from runtime.postgres.locks import PostgresLocks
from tests.integration.hosts.house import House, open_house
from tests.integration.operations.conftest import World

_RUNS = """
INSERT INTO executions (created_at, tenant, job_id, job_key, version, origin, scheduled_for, pool,
    priority, state, overlap, run_at, attempt, fencing_token, incarnation, started_at)
VALUES ($1, $2, $3, 1, 1, 1, $1, 'default', 1, 'running', 'allow', $1, 1,
    nextval('fencing_tokens'), 1, $1)
RETURNING id, fencing_token
"""
NOW = datetime(2026, 12, 1, 8, tzinfo=UTC)
_seconds = itertools.count()

TASKS = """
import asyncio, os, pathlib, signal, time

def note(*words):
    line = " ".join(map(str, words)) + "\\n"
    ledger = os.open("ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(ledger, line.encode())
    os.fsync(ledger)
    os.close(ledger)

async def contend(ctx):
    async with ctx.lock("till", "5s") as lock:
        note("in", lock.token)
        await asyncio.sleep(0.002)
        note("out", lock.token)

def contend_plain(ctx):
    with ctx.lock("till", "5s") as lock:
        note("in", lock.token)
        time.sleep(0.002)
        note("out", lock.token)

async def hold(ctx, name="till", ttl="30s", wait=None):
    async with ctx.lock(name, ttl, wait) as lock:
        note("in", lock.token, os.getpid())
        try:
            while not os.path.exists("go"):
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            note("cancelled", lock.token)
            raise
        note("out", lock.token)
        return lock.token

def hold_plain(ctx, name="till", ttl="30s", wait=None):
    with ctx.lock(name, ttl, wait) as lock:
        note("in", lock.token, os.getpid())
        while not os.path.exists("go"):
            time.sleep(0.01)
            if ctx.cancelled:
                note("cancelled", lock.token)
                return
        note("out", lock.token)
        return lock.token

def hold_the_interpreter(ctx):
    with ctx.lock("till", "3s") as lock:
        note("in", lock.token, os.getpid())
        began = time.process_time()
        pow(7, 8_000_000)  # seconds in which no other thread has a turn
        return time.process_time() - began

async def hold_the_loop(ctx):
    async with ctx.lock("till", "3s") as lock:
        note("in", lock.token, os.getpid())
        while not os.path.exists("go"):
            time.sleep(0.01)
        return lock.token

async def swallow(ctx):
    async with ctx.lock("till", "30s") as lock:
        note("in", lock.token, os.getpid())
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "as if nothing had been"

async def abandon(ctx):
    lock = ctx.lock("till", "1h")
    await lock.__aenter__()
    note("in", lock.token)

async def twice(ctx):
    async with ctx.lock("till", "30s"):
        try:
            async with ctx.lock("till", "30s"):
                return "twice"
        except RuntimeError as error:
            first = str(error)
        async with ctx.lock("another", "30s"):
            return first

async def try_once(ctx, wait=0):
    try:
        async with ctx.lock("till", "30s", wait=wait):
            return "in"
    except TimeoutError as error:
        return str(error)

async def refused(ctx, name, ttl):
    async with ctx.lock(name, ttl):
        return "in"
"""


class Cut:
    """The locks of a database behind a line that a test cuts; and what was asked of it."""

    def __init__(self, books: PostgresLocks) -> None:
        self.books = books
        self.away = False
        self.hangs = False
        self.taken: list[LockClaim] = []

    async def _pass(self) -> PostgresLocks:
        if self.hangs:
            await anyio.sleep_forever()
        if self.away:
            raise UnavailableError("the line is cut")
        return self.books

    async def take(self, claim: LockClaim) -> int | None:
        self.taken.append(claim)
        return await (await self._pass()).take(claim)

    async def renew(self, holds):
        return await (await self._pass()).renew(holds)

    async def release(self, holds):
        return await (await self._pass()).release(holds)

    async def leave(self, claims):
        await (await self._pass()).leave(claims)


class Locked:
    """A house, its keeper of locks and the database under it."""

    def __init__(self, world: World, house: House, keeper: LockKeeper, line: Cut) -> None:
        self.world = world
        self.house = house
        self.keeper = keeper
        self.line = line

    async def begin(self, task, **fields):
        """Run it by a row of the books, as a claim would."""
        id_, token = await runs(self.world)
        return self.house.begin(task, id=id_, fencing_token=token, **fields)

    async def run(self, task, **fields):
        return await self.house.outcome_of(await self.begin(task, **fields))

    def ledger(self) -> list[list[str]]:
        path = self.house.folder / "ledger"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def go(self) -> None:
        (self.house.folder / "go").touch()

    async def row(self, name: str = "till"):
        return await self.world.one("SELECT * FROM locks WHERE name = $1", name)


async def runs(world: World, tenant: str = "default") -> tuple[int, int]:
    """A running attempt of the books: its id and fencing token."""
    (row,) = await world.node.fetch(_RUNS, NOW, tenant, "a_job")
    return row["id"], row["fencing_token"]


def claim_of(attempt: tuple[int, int], name: str = "till", **fields) -> LockClaim:
    given = {
        "tenant": "default",
        "ttl_s": 30.0,
        "asked_at": datetime.fromtimestamp(NOW.timestamp() + next(_seconds), UTC),
        "queues": True,
    }
    return LockClaim(id=attempt[0], fencing_token=attempt[1], name=name, **{**given, **fields})


def hold_of(claim: LockClaim, token: int) -> LockHold:
    return LockHold(
        tenant=claim.tenant, name=claim.name, token=token, fencing_token=claim.fencing_token
    )


def clock() -> Callable[[], datetime]:
    return lambda: datetime.now(UTC)  # noqa: TID251 - a test has no Clock port


@contextlib.asynccontextmanager
async def locked_house(world: World, folder: Path, **options) -> AsyncIterator[Locked]:
    """A house with a keeper of locks, whose tasks live in `folder`."""
    line = Cut(PostgresLocks(world.hot))
    keeper = LockKeeper(store=line, now=clock())
    async with (
        open_house(folder, locks=keeper, **options) as house,
        anyio.create_task_group() as group,
    ):
        house.module(TASKS)
        group.start_soon(keeper.run)
        yield Locked(world, house, keeper, line)
        group.cancel_scope.cancel()
