"""Measures the shapes executions could be stored in, stage by stage and as a pipeline."""

import asyncio
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import msgspec
import uvloop

from scripts.bench.report import summary
from scripts.bench.server import postgres
from scripts.bench.shapes_sql import COMMON, GUARD, HISTORY_DAYS, SHAPES, Shape

TODAY = datetime(2026, 1, 15, tzinfo=UTC)
NOW = TODAY + timedelta(hours=22)  # later than every run_at: all that is inserted is due
BATCH = 500
LIMIT_KEYS = 100
NODE = 7

# A session of the hot path pins its plans: statistics of a table that fills and empties all day
# are wrong at some hour whatever they say.
SESSION = {
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_bitmapscan": "off",
    "enable_material": "off",
}


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What is put through: how many jobs, over how many lanes, limits on a tenth or not."""

    jobs: int = 100_000
    tenants: int = 1
    priorities: int = 1
    limited: bool = False
    quantum: int = BATCH

    @property
    def lanes(self) -> list[tuple[str, int]]:
        """Every (tenant, priority) of this load."""
        return [(f"t{t}", p) for t in range(self.tenants) for p in range(self.priorities)]


class Measured(msgspec.Struct, kw_only=True):
    """One run: jobs per second of each stage alone, of the drain, and of the three together."""

    rates: dict[str, float]
    claim_ms: list[float] = []


async def connect(socket: str, database: str = "postgres", **settings: str) -> asyncpg.Connection:
    """Open a session as the superuser of the throw-away server."""
    return await asyncpg.connect(
        host=socket, user="postgres", database=database, server_settings=settings
    )


async def prepare(socket: str, shape: Shape, *, finished: int = 0, guard: bool = True) -> str:
    """Make a database of this shape, with `finished` rows in today's partition; its name."""
    name = f"{shape.name}_{finished}"
    admin = await connect(socket)
    await admin.execute(f"CREATE DATABASE {name}")
    await admin.close()
    db = await connect(socket, name)
    await db.execute(COMMON + shape.tables)
    for day in range(HISTORY_DAYS):
        start = TODAY + timedelta(days=day - HISTORY_DAYS + 2)
        await db.execute(
            f"CREATE TABLE {shape.partitioned}_{start:%Y%m%d} PARTITION OF {shape.partitioned} "
            f"FOR VALUES FROM ('{start}') TO ('{start + timedelta(days=1)}')"
        )
    if finished:
        await load_finished(db, shape, finished)
    await db.execute(shape.indexes)
    if guard and shape.name == "b":
        await db.execute(GUARD)
    await db.execute(
        "INSERT INTO limits (key, slots) "
        f"SELECT 'k' || n, 50 FROM generate_series(0, {LIMIT_KEYS - 1}) AS n"
    )
    await db.execute("VACUUM ANALYZE")
    await db.close()
    return name


async def load_finished(
    db: asyncpg.Connection, shape: Shape, finished: int, day: datetime = TODAY
) -> None:
    """Finished rows as a busy day leaves them, in that day's partition."""
    await db.execute(
        f"SET synchronous_commit = off; INSERT INTO {shape.load}_{day:%Y%m%d} "
        "(id, execution_id, job_key, scheduled_for, run_at, created_at, started_at, finished_at, "
        "origin, token, node, version, attempt, priority, holds_turn, state, tenant, pool, job_id, "
        "input, result) "
        "SELECT -g, gen_random_uuid(), g % 1000, at, at, at, at, at, 0, g, 7, 1, 1, 2, false, "
        "CASE WHEN g % 100 = 0 THEN 'dead' ELSE 'succeeded' END, 't' || g % 250, 'default', "
        "'job-' || g % 1000, '\\x6e756c6c', '\\x6e756c6c' "
        f"FROM generate_series(1, {finished}) AS g, "
        f"LATERAL (SELECT timestamptz '{day}' + g * interval '5 ms' AS at) AS t"
    )


def rows(load: Load, first: int, *, scheduled: float = 0.5) -> Iterator[list[Any]]:
    """Arguments of one insert each: half fired by a schedule, a tenth holding their job's turn."""
    lanes = load.lanes
    start = TODAY + timedelta(hours=16)
    for low in range(first, first + load.jobs, BATCH):
        ids = range(low, min(low + BATCH, first + load.jobs))
        lane = [lanes[i % len(lanes)] for i in ids]
        yield [
            list(ids),
            [uuid.uuid4() for _ in ids],
            [1_000_000 + i if i % 10 == 0 else i % 1000 for i in ids],
            [start + timedelta(microseconds=i) for i in ids],
            [0 if i % 100 < scheduled * 100 else i for i in ids],
            [t for t, _ in lane],
            [p for _, p in lane],
            [f"k{i // 10 % LIMIT_KEYS}" if load.limited and i % 10 == 1 else None for i in ids],
            [i % 10 == 0 for i in ids],
            [b"null"] * len(ids),
            NOW,
            b"x" * 16 * len(ids),
        ]


class Driver:
    """Puts one load through one shape, by prepared statements on two sessions."""

    def __init__(self, shape: Shape, load: Load) -> None:
        self.shape = shape
        self.load = load
        self.claim_ms: list[float] = []
        self._turn = 0
        self._calls = 0

    async def open(self, socket: str, database: str) -> None:
        """Connect both sessions."""
        self.one = await connect(socket, database, **SESSION)
        self.two = await connect(socket, database, **SESSION)

    async def close(self) -> None:
        """Disconnect both sessions."""
        await self.one.close()
        await self.two.close()

    async def claim(self, db: asyncpg.Connection) -> list[asyncpg.Record]:
        """Claim up to a batch: a quantum of each lane in turn; limited ones every tenth time."""
        self._calls += 1
        if self.load.limited and self._calls % 10 == 0:
            keys = [f"k{n}" for n in range(LIMIT_KEYS)]
            return await db.fetch(self.shape.claim_limited, "default", keys, NOW, NODE, NOW)
        self._turn += 1
        lanes = self.load.lanes
        count = min(len(lanes), BATCH // self.load.quantum)
        start = self._turn * count % len(lanes)
        chosen = (lanes + lanes)[start : start + count]
        began = time.perf_counter()
        got = await db.fetch(
            self.shape.claim,
            "default",
            [t for t, _ in chosen],
            [p for _, p in chosen],
            [self.load.quantum] * count,
            NOW,
            NODE,
            NOW,
        )
        self.claim_ms.append((time.perf_counter() - began) * 1000)
        return got

    async def finish(self, db: asyncpg.Connection, got: list[asyncpg.Record]) -> int:
        """Finish a batch, in id order."""
        got = sorted(got, key=lambda row: row[0])
        n = len(got)
        done = await db.fetch(
            self.shape.finish,
            [r[0] for r in got],
            [r[1] for r in got],
            [r[5] for r in got],
            ["succeeded"] * n,
            [NOW] * n,
            [b"null"] * n,
            [None] * n,
            b"x" * 32 * n,
        )
        return len(done)

    async def insert_all(self, db: asyncpg.Connection, batches: list[list[Any]]) -> None:
        """Insert every batch, one statement each."""
        for batch in batches:
            await db.execute(self.shape.insert, *batch)

    async def drain(self) -> None:
        """Claim on one session while the other finishes what was claimed before."""
        claimed: asyncio.Queue[list[asyncpg.Record]] = asyncio.Queue(6)
        left = self.load.jobs

        async def claiming() -> None:
            taken = 0
            while taken < self.load.jobs:
                got = await self.claim(self.one)
                taken += len(got)
                if got:
                    await claimed.put(got)
                else:
                    await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            group.create_task(claiming())
            while left:
                left -= await self.finish(self.two, await claimed.get())

    async def alone(self, batches: list[list[Any]]) -> dict[str, float]:
        """Rates of insert, claim and finish, each alone on one session."""
        rates = {}
        held: list[list[asyncpg.Record]] = []

        began = time.perf_counter()
        await self.insert_all(self.one, batches)
        rates["insert"] = self.load.jobs / (time.perf_counter() - began)
        began = time.perf_counter()
        empty = 0
        while empty < len(self.load.lanes) // max(1, BATCH // self.load.quantum) + 10:
            got = await self.claim(self.one)
            empty = 0 if got else empty + 1
            if got:
                held.append(got)
        total = sum(map(len, held))
        rates["claim"] = total / (time.perf_counter() - began)
        began = time.perf_counter()
        done = 0
        for got in held:
            done += await self.finish(self.one, got)
        rates["finish"] = done / (time.perf_counter() - began)
        return rates

    async def together(self, batches: list[list[Any]]) -> None:
        """Insert and claim on one session in turn, finishing on the other: all three overlapped."""
        lock = asyncio.Lock()
        claimed: asyncio.Queue[list[asyncpg.Record]] = asyncio.Queue(6)
        left = self.load.jobs

        async def inserting() -> None:
            for batch in batches:
                async with lock:
                    await self.one.execute(self.shape.insert, *batch)

        async def claiming() -> None:
            taken = 0
            while taken < self.load.jobs:
                async with lock:
                    got = await self.claim(self.one)
                taken += len(got)
                if got:
                    await claimed.put(got)
                else:
                    await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            group.create_task(inserting())
            group.create_task(claiming())
            while left:
                left -= await self.finish(self.two, await claimed.get())


next_id = 1_000_000_000
"""Ids never repeat over all runs of one process."""


async def measure(
    socket: str,
    database: str,
    shape: Shape,
    load: Load,
    *,
    stages: tuple[str, ...] = ("alone", "drain", "together"),
) -> Measured:
    """One run of a load through a shape."""
    global next_id  # noqa: PLW0603 - see there
    driver = Driver(shape, load)
    await driver.open(socket, database)
    rates: dict[str, float] = {}
    try:
        for stage in stages:
            next_id += 1_000_000
            batches = list(rows(load, next_id))
            next_id += load.jobs
            if stage == "alone" and not load.limited:
                rates |= await driver.alone(batches)
            elif stage == "drain":
                driver.claim_ms = []
                await driver.insert_all(driver.one, batches)
                began = time.perf_counter()
                await driver.drain()
                rates["drain"] = load.jobs / (time.perf_counter() - began)
            elif stage == "together":
                began = time.perf_counter()
                await driver.together(batches)
                rates["together"] = load.jobs / (time.perf_counter() - began)
    finally:
        await driver.close()
    return Measured(rates=rates, claim_ms=driver.claim_ms)


async def _all(socket: str, repeat: int, finished: int) -> dict[str, Any]:
    """Every load through every shape, the shapes in turn within each run."""
    loads = {
        "1 lane": Load(jobs=30_000),
        "1,000 lanes, 10 of each": Load(jobs=30_000, tenants=250, priorities=4, quantum=10),
        "1,000 lanes, 1 of each": Load(jobs=30_000, tenants=250, priorities=4, quantum=1),
        "1,000 lanes, limits": Load(
            jobs=30_000, tenants=250, priorities=4, quantum=10, limited=True
        ),
    }
    databases = {
        name: await prepare(socket, shape, finished=finished) for name, shape in SHAPES.items()
    }
    rates: dict[str, dict[str, list[float]]] = {}
    for _ in range(repeat):
        for title, load in loads.items():
            for name, shape in SHAPES.items():
                measured = await measure(socket, databases[name], shape, load)
                for stage, rate in measured.rates.items():
                    figure = rates.setdefault(f"{title}: {stage}", {})
                    figure.setdefault(name, []).append(rate)
    return {
        title: {name: summary(values) for name, values in by_shape.items()}
        for title, by_shape in rates.items()
    }


def run(*, repeat: int, finished: int = 0) -> dict[str, Any]:
    """Jobs per second of each shape, by load and stage, behind `finished` rows of history."""
    with postgres() as socket:
        figures = uvloop.run(_all(socket, repeat, finished))
    return {"name": "shapes", "what": f"jobs/s, {finished} finished rows", **figures}
