"""Keep N jobs in the table, a hundred of them due: what the node costs with nothing much to do."""

import argparse
import asyncio
import sys
from datetime import timedelta
from typing import Any

import msgspec

from protocols.jobs import JobSpec, PythonTask
from protocols.schedules import Schedule
from runtime import Runtime
from scripts.loading.house import Meter, loaded, progress

CHUNK = 100_000
DUE = 100
SETTLE_S = 20
"""For what the filling leaves behind (checkpoint, statistics) to be over."""

# Straight into the tables: what is measured is the idling, not the apply of a million jobs.
_JOBS = """
WITH made AS (
    INSERT INTO jobs (tenant, job_id, source, version, shard, created_at, updated_at)
    SELECT 'default', 'idle-' || n, 'load', 1, n % 256, $3, $3
    FROM generate_series($1::bigint, $2::bigint) AS n
    RETURNING job_key, tenant, shard, job_id
), versions AS (
    INSERT INTO job_versions (tenant, job_key, version, spec, in_force_at)
    SELECT tenant, job_key, 1,
        jsonb_set($4::text::jsonb, '{job_id}', to_jsonb(job_id)), $3 FROM made
)
INSERT INTO schedules (job_key, tenant, shard, version, cursor, next_fire_at, anchor)
SELECT job_key, tenant, shard, 1, $3, $3 + interval '1 day' + job_key * interval '1 ms', $3
FROM made
"""
_SOON = """
UPDATE schedules SET next_fire_at = $1::timestamptz + (job_key % 50) * interval '1 second',
    cursor = $1::timestamptz - interval '1 day'
WHERE job_key = ANY(ARRAY(SELECT job_key FROM schedules ORDER BY job_key LIMIT $2))
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of this load."""
    parser.add_argument("--jobs", type=int, default=1_000_000, help="how many (1000000)")
    parser.add_argument("--for", dest="for_s", type=int, default=60, help="seconds (60)")


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """Fill the table, and look on."""
    async with loaded(64) as rt:
        await fill(rt, options.jobs)
        used = await watch(rt, options.for_s)
    held = used["ran"] == DUE and used["node_cpu_percent"] < 2 and used["node_memory_mb"] < 150
    return {"held": held, "jobs": options.jobs, "due": DUE, **used}


async def fill(rt: Runtime, jobs: int) -> None:
    """Put `jobs` jobs into the tables, all due tomorrow, and let the dust settle."""
    node = rt.node
    spec = msgspec.json.encode(
        JobSpec(
            job_id="idle",
            task=PythonTask(target="loadjobs:noop", isolation="shared"),
            schedule=Schedule(kind="every", text="@every 1d", interval_s=86400.0),
            overlap="allow",
        )
    ).decode()
    with progress() as bar:
        task = bar.add_task("fill", total=jobs)
        for first in range(0, jobs, CHUNK):
            last = min(first + CHUNK, jobs) - 1
            await node.keeping.fetch(_JOBS, first, last, node.clock.now(), spec)
            bar.update(task, completed=last + 1)
        await asyncio.sleep(SETTLE_S)


async def watch(rt: Runtime, for_s: int, *, due: int = DUE) -> dict[str, Any]:
    """What a node with little to do uses in so many seconds, in which `due` of its jobs fire."""
    node = rt.node
    await node.keeping.fetch(_SOON, node.clock.now() + timedelta(seconds=5), due)
    await asyncio.sleep(5)
    print(f"looking on for {for_s} s (no bar: it would be measured too)", file=sys.stderr)
    meter = Meter(node)
    await asyncio.sleep(for_s)
    used = meter.read()
    (row,) = await node.keeping.fetch(
        "SELECT count(*) AS n FROM execution_history WHERE state = 'succeeded'"
    )
    return {"ran": row["n"], **used}
