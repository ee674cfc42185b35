"""What shape (b) costs where it could hurt: its guard, its lanes, a long run, retention."""

import asyncio
import functools
import statistics
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import asyncpg
import uvloop

from scripts.bench import shapes
from scripts.bench.report import summary
from scripts.bench.server import postgres
from scripts.bench.shapes import (
    BATCH,
    SESSION,
    TODAY,
    Driver,
    Load,
    connect,
    load_finished,
    prepare,
    rows,
)
from scripts.bench.shapes_sql import B


async def _timed(act: Callable[[], Awaitable[Any]]) -> float:
    """Milliseconds one call takes."""
    began = time.perf_counter()
    await act()
    return (time.perf_counter() - began) * 1000


def _first_id() -> int:
    """Ids no run before has used, with room for ten million."""
    shapes.next_id += 10_000_000
    return shapes.next_id


async def guard(socket: str, database: str, *, batches: int, repeat: int) -> dict[str, list[float]]:
    """Milliseconds an insert of 500 takes with and without the guard, by what is inserted."""
    db = await connect(socket, database, **SESSION)
    result: dict[str, list[float]] = {}
    for _ in range(repeat):
        for fired, kind in ((1.0, "scheduled"), (0.0, "triggered")):
            for on in (True, False):
                verb = "ENABLE" if on else "DISABLE"
                await db.execute(f"ALTER TABLE executions {verb} TRIGGER known_instant")
                load = Load(jobs=batches * BATCH)
                times = [
                    await _timed(functools.partial(db.execute, B.insert, *batch))
                    for batch in rows(load, _first_id(), scheduled=fired)
                ]
                name = f"{kind}, guard {'on' if on else 'off'}"
                result.setdefault(name, []).append(statistics.median(times))
                await db.execute("TRUNCATE executions")
    await db.execute("ALTER TABLE executions ENABLE TRIGGER known_instant")
    await db.close()
    return result


async def lanes(socket: str, database: str, *, backlog: int) -> dict[str, float]:
    """Milliseconds the loose index scan over 1,000 lanes takes: full, half drained, drained."""
    load = Load(jobs=backlog, tenants=250, priorities=4, quantum=10)
    driver = Driver(B, load)
    await driver.open(socket, database)
    result: dict[str, float] = {}

    async def note(name: str) -> None:
        times = [await _timed(lambda: driver.one.fetch(B.lanes, "default")) for _ in range(9)]
        result[name + ", first"] = times[0]
        result[name] = statistics.median(times)

    await driver.insert_all(driver.one, list(rows(load, _first_id())))
    await note(f"{backlog} waiting")
    for part in ("half claimed", "all claimed"):
        for _ in range(backlog // BATCH // 2):
            await driver.finish(driver.one, await driver.claim(driver.one))
        await note(part)
    await driver.close()
    return result


async def sustained(
    socket: str, database: str, *, jobs: int, options: str, hold_snapshot: bool = False
) -> dict[str, list[float]]:
    """Claim and finish `jobs` in chunks over 1,000 lanes: jobs/s and median claim ms of each chunk.

    `hold_snapshot` keeps a transaction open beside it, as a long report or a dump would.
    """
    admin = await connect(socket, database)
    await admin.execute("TRUNCATE executions")
    if options:
        await admin.execute(f"ALTER TABLE executions SET ({options})")
    held = await connect(socket, database)
    if hold_snapshot:
        await held.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        await held.execute("SELECT count(*) FROM limits")
    chunk = 50_000
    result: dict[str, list[float]] = {"rate": [], "claim_ms": [], "worst_ms": [], "hot_mb": []}
    for _ in range(jobs // chunk):
        load = Load(jobs=chunk, tenants=250, priorities=4, quantum=10)
        driver = Driver(B, load)
        await driver.open(socket, database)
        await driver.insert_all(driver.one, list(rows(load, _first_id())))
        ms = await _timed(driver.drain)
        await driver.close()
        result["rate"].append(chunk / ms * 1000)
        result["claim_ms"].append(statistics.median(driver.claim_ms))
        result["worst_ms"].append(max(driver.claim_ms))
        result["hot_mb"].append(
            await admin.fetchval("SELECT pg_total_relation_size('executions') / 1e6::float")
        )
    await held.close()
    await admin.close()
    return result


async def retention(socket: str, database: str, *, jobs: int) -> dict[str, float]:
    """How long finishes stall while an old partition of a million rows is dropped beside them."""
    admin = await connect(socket, database)
    old = TODAY - timedelta(days=29)
    part = f"history_{old:%Y%m%d}"
    await load_finished(admin, B, 1_000_000, old)
    result: dict[str, float] = {
        "rows dropped": await admin.fetchval(f"SELECT count(*) FROM {part}")
    }
    load = Load(jobs=jobs, tenants=250, priorities=4, quantum=10)
    driver = Driver(B, load)
    await driver.open(socket, database)
    await driver.insert_all(driver.one, list(rows(load, _first_id())))
    stalls: list[float] = []
    finish = driver.finish

    async def watched(db: asyncpg.Connection, got: list[asyncpg.Record]) -> int:
        began = time.perf_counter()
        done = await finish(db, got)
        stalls.append((time.perf_counter() - began) * 1000)
        return done

    driver.finish = watched  # type: ignore[method-assign]
    async with asyncio.TaskGroup() as group:
        drain = group.create_task(driver.drain())
        await asyncio.sleep(0.5)
        result["finish ms before"] = statistics.median(stalls)
        mark = len(stalls)
        result["detach ms"] = await _timed(
            lambda: admin.execute(f"ALTER TABLE history DETACH PARTITION {part} CONCURRENTLY")
        )
        result["drop ms"] = await _timed(lambda: admin.execute(f"DROP TABLE {part}"))
        result["worst finish ms meanwhile"] = max(stalls[mark:], default=0.0)
        result["drain still under way"] = float(not drain.done())
    await driver.close()
    await admin.close()
    return result


AUTOVACUUM = {
    "early, fillfactor 70": "fillfactor = 70, autovacuum_vacuum_threshold = 5000",
    "early, fillfactor 50": "fillfactor = 50, autovacuum_vacuum_threshold = 5000",
    "late, fillfactor 50": "fillfactor = 50, autovacuum_vacuum_threshold = 100000",
}


async def _all(socket: str, repeat: int) -> dict[str, Any]:
    database = await prepare(socket, B, finished=1_000_000)
    figures: dict[str, Any] = {
        f"insert of {BATCH}, ms, {kind}": {"ms": summary(times)}
        for kind, times in (await guard(socket, database, batches=40, repeat=repeat)).items()
    }
    figures["scan of 1,000 lanes, ms"] = await lanes(socket, database, backlog=100_000)
    figures["a partition dropped"] = await retention(socket, database, jobs=100_000)
    for name, options in AUTOVACUUM.items():
        figures[f"1M jobs, {name}"] = {
            key: [values[0], values[-1], min(values), max(values)]
            for key, values in (
                await sustained(socket, database, jobs=1_000_000, options=options)
            ).items()
        }
    return figures


def run(*, repeat: int) -> dict[str, Any]:
    """The chosen shape where it could hurt; of a long run: first, last, least and most."""
    with postgres() as socket:
        figures = uvloop.run(_all(socket, repeat))
    return {"name": "chosen", "what": "what shape (b) costs", **figures}
