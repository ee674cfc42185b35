"""P3: from before `rt.trigger` to the first line of its job, a hundred a second, embedded.

The yardstick does by hand, on the same server, what no durable queue can leave out: one committed
insert and one committed claim, each a round trip on a warm session of its own. It runs nothing.
"""

import asyncio
import time
from typing import Any, Final

import uvloop

from protocols.ids import execution_key
from runtime import Runtime, job
from runtime.postgres.pool import Session
from scripts.bench import yardstick
from scripts.bench.report import compared, summary
from scripts.loading.drain import noop, warm
from scripts.loading.house import loaded, percentile

PER_S: Final = 100
TRIGGERS: Final = 1000
_STARTED: Final = """
SELECT id, extract(epoch FROM started_at)::double precision * 1e9 AS begun_ns
FROM execution_history WHERE tenant = 'default' AND id > $1 AND state = 'succeeded'
"""


def run(*, repeat: int, jobs: int = TRIGGERS) -> dict[str, Any]:
    """Trigger `jobs` jobs, then do the yardstick's part as often, `repeat` times."""
    ours, plain = uvloop.run(_take_turns(repeat, jobs))
    return {
        "name": "P3",
        "what": f"trigger to first line, ms, {PER_S} a second, {jobs:,} of them",
        "target": "p50 <= 1.5 ms, p99 <= 3 ms",
        **{
            name: compared(
                [percentile(run, share) for run in ours], [percentile(run, share) for run in plain]
            )
            for name, share in (("p50", 0.5), ("p99", 0.99))
        },
        "max": {"ours": summary([run[-1] for run in ours])},
    }


async def _take_turns(repeat: int, jobs: int) -> tuple[list[list[float]], list[list[float]]]:
    ours, plain = [], []
    async with loaded(64) as rt:
        await rt.apply(job("noop", isolation="shared", overlap="allow")(noop))
        await warm(rt)
        connections = rt.node.database.hot.connections  # their plans are pinned, as the yardstick's
        for _ in range(repeat):
            ours.append(await _triggered(rt, jobs))
            async with connections.acquire() as insert, connections.acquire() as claim:
                plain.append(await _by_hand(rt, insert, claim, jobs))
    return ours, plain


async def _triggered(rt: Runtime, jobs: int) -> list[float]:
    """Milliseconds of each, sorted; by the node's clock at both ends."""
    clock = rt.node.clock
    (row,) = await rt.node.keeping.fetch("SELECT nextval('execution_ids') AS id")
    asked: dict[int | None, int] = {}
    last = None
    due = time.monotonic()
    for _ in range(jobs):
        due += 1 / PER_S
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        before_ns = clock.now_ns()
        last = await rt.trigger("noop")
        asked[execution_key(last.execution_id)] = before_ns
    assert last is not None
    await last.wait(60)
    began = {
        record["id"]: record["begun_ns"]
        for record in await rt.node.keeping.fetch(_STARTED, row["id"])
    }
    return sorted((began[name] - at_ns) / 1e6 for name, at_ns in asked.items())


async def _by_hand(rt: Runtime, insert: Session, claim: Session, jobs: int) -> list[float]:
    took = []
    due = time.monotonic()
    for _ in range(jobs):
        due += 1 / PER_S
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        now, began = rt.node.clock.now(), time.perf_counter()
        await yardstick.fill(insert, 1, now=now)
        got = await yardstick.take(claim, now=now)
        took.append((time.perf_counter() - began) * 1e3)
        await yardstick.end(insert, got, now=now)
    return sorted(took)
