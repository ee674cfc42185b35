"""P1: the product's durable drain beside plain SQL on the same server, in turns, in one database.

Both write the product's tables with the same day's history in them; the yardstick has no job host,
no limits and no actors (`scripts/bench/yardstick.py`).
"""

import asyncio
from datetime import timedelta
from typing import Any, Final

import asyncpg
import uvloop

from protocols.instants import from_epoch_ns
from runtime.clock import wall_ns
from runtime.database import migrate_database
from runtime.postgres.hosts import Hosts
from scripts.bench import yardstick
from scripts.bench.report import compared, summary
from scripts.bench.server import postgres
from scripts.loading.drain import drain
from scripts.loading.house import loaded

SLOTS: Final = 2000
DATABASE: Final = "drained"


def run(*, repeat: int, finished: int = 0, jobs: int = 100_000) -> dict[str, Any]:
    """Drain `jobs` no-op jobs by each, `repeat` times, behind `finished` rows of the same day."""
    with postgres() as socket:
        figures = uvloop.run(_take_turns(socket, repeat, finished, jobs))
    return {
        "name": "P1",
        "what": f"durable drain of {jobs:,} no-op jobs behind {finished:,} finished rows",
        "target": "ratio >= 0.7 of plain SQL",
        **figures,
    }


async def _take_turns(socket: str, repeat: int, finished: int, jobs: int) -> dict[str, Any]:
    url = f"postgresql://postgres@/{DATABASE}?host={socket}"
    owner = await asyncpg.connect(f"postgresql://postgres@/postgres?host={socket}")
    await owner.execute(f"CREATE DATABASE {DATABASE}")
    await owner.close()
    await migrate_database(Hosts({"dsn": url}))
    if finished:
        await _bury(url, finished)
    ours: list[dict[str, Any]] = []
    plain: list[float] = []
    async with loaded(SLOTS, database__url=url) as rt:
        claims, finishes = await _session(url), await _session(url)
        for _ in range(repeat):
            done = await drain(rt, jobs)
            if not done["held"]:
                raise RuntimeError("the drain lost executions")
            ours.append(done)
            now = rt.node.clock.now()
            await yardstick.fill(claims, jobs, now=now)
            plain.append((await yardstick.drain(claims, finishes, jobs, now=now)).jobs_per_s)
        await claims.close()
        await finishes.close()
    per_job = {
        f"{part} us/job": {"ours": summary([one[f"{part}_cpu_s"] / jobs * 1e6 for one in ours])}
        for part in ("node", "postgres", "hosts")
    }
    return {
        "jobs/s": compared([one["drained_per_s"] for one in ours], plain),
        **per_job,
        "enqueued/s": {"ours": summary([one["enqueued_per_s"] for one in ours])},
    }


async def _session(url: str) -> asyncpg.Connection:
    return await asyncpg.connect(url, server_settings=yardstick.SESSION)


async def _bury(url: str, finished: int) -> None:
    """Fill the partition that today's drains will write to, before the node makes it."""
    today = from_epoch_ns(wall_ns()).replace(hour=0, minute=0, second=0, microsecond=0)
    owner = await asyncpg.connect(url)
    async with asyncio.timeout(timedelta(hours=1).total_seconds()):
        await yardstick.bury(owner, finished, day=today)
    await owner.close()
