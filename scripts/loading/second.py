"""Schedule N jobs on every second: each instant once, none early, and how late its first line."""

import argparse
import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from runtime import Runtime
from scripts.loading.house import Meter, loaded, percentile, progress

_ROWS = """
SELECT job_key, scheduled_for, state,
    extract(epoch FROM started_at - scheduled_for)::double precision AS late_s
FROM execution_history WHERE scheduled_for > $1 AND scheduled_for <= $2
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of this load."""
    parser.add_argument("--jobs", type=int, default=1000, help="how many (1000)")
    parser.add_argument("--for", dest="for_s", type=int, default=60, help="seconds (60)")
    parser.add_argument("--slots", type=int, default=2000, help="slots of the pool (2000)")


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """Apply the jobs, let the seconds pass, read the books."""
    async with loaded(options.slots) as rt:
        return await every_second(rt, options.jobs, options.for_s)


async def every_second(rt: Runtime, jobs: int, for_s: int) -> dict[str, Any]:
    """Hold `jobs` schedules of `* * * * * *` for so many seconds on a running node."""
    node = rt.node
    path = Path(rt.settings.tasks_cwd) / "seconds.yaml"
    path.write_text(
        "defaults: {schedule: '* * * * * *', python: 'loadjobs:noop', overlap: allow}\njobs:\n"
        + "".join(f"  - job_id: every-second-{n}\n" for n in range(jobs))
    )
    await rt.apply(path)
    begin = (node.clock.now() + timedelta(seconds=4)).replace(microsecond=0)
    end = begin + timedelta(seconds=for_s)
    await _until(rt, begin, "warm up")
    meter = Meter(node)
    await _until(rt, end, "hold")
    used = meter.read()
    await _until(rt, end + timedelta(seconds=3), "settle")
    rows = await node.keeping.fetch(_ROWS, begin, end)
    late = sorted(row["late_s"] for row in rows if row["late_s"] is not None)
    names = {(row["job_key"], row["scheduled_for"]) for row in rows}
    succeeded = sum(row["state"] == "succeeded" for row in rows)
    expected = jobs * for_s
    early = sum(one < 0 for one in late)
    p50, p99 = percentile(late, 0.5) * 1e3, percentile(late, 0.99) * 1e3
    once = len(rows) == len(names) == succeeded == expected
    return {
        "held": once and not early and p50 < 50 and p99 < 500,
        "instants": expected,
        "executions": len(rows),
        "succeeded": succeeded,
        "each_instant_once": once,
        "early": early,
        "late_p50_ms": p50,
        "late_p99_ms": p99,
        "late_max_ms": late[-1] * 1e3,
        **used,
    }


async def _until(rt: Runtime, instant: datetime, what: str) -> None:
    left = (instant - rt.node.clock.now()).total_seconds()
    with progress() as bar:
        task = bar.add_task(what, total=round(left))
        while (left := (instant - rt.node.clock.now()).total_seconds()) > 0:
            await asyncio.sleep(min(1.0, left))
            bar.advance(task, 1)
