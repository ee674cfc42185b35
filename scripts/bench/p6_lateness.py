"""P6: how late 1,000 jobs on every second begin, durable, beside a bare loop's own lateness.

The yardstick sleeps until each second and notes when a thousand callbacks of `loop.call_at` ran:
what the machine's timers and this loop cannot better, with nothing durable about it.
"""

import asyncio
import time
from typing import Any, Final

import uvloop

from scripts.bench.report import compared, summary
from scripts.loading.house import loaded, percentile
from scripts.loading.second import every_second

JOBS: Final = 1000
FOR_S: Final = 60
BARE_S: Final = 10


def run(*, repeat: int, jobs: int = JOBS) -> dict[str, Any]:
    """Hold `jobs` schedules of every second for a minute, `repeat` times."""
    ours, bare = [], []
    for _ in range(repeat):
        ours.append(uvloop.run(_held(jobs)))
        bare.append(uvloop.run(_bare(jobs)))
    kept = all(one["each_instant_once"] and not one["early"] for one in ours)
    return {
        "name": "P6",
        "what": f"instant to first line, ms: {jobs:,} jobs every second for {FOR_S} s",
        "target": "p50 <= 15 ms, p99 <= 50 ms",
        **{
            name: compared(
                [one[f"late_{name}_ms"] for one in ours], [percentile(one, share) for one in bare]
            )
            for name, share in (("p50", 0.5), ("p99", 0.99))
        },
        "max": {"ours": summary([one["late_max_ms"] for one in ours])},
        "each instant once, none early": kept,
        **{
            f"{part} CPU %": {
                "ours": summary([100 * one[f"{part}_cpu_s"] / one["wall_s"] for one in ours])
            }
            for part in ("node", "postgres", "hosts")
        },
    }


async def _held(jobs: int) -> dict[str, Any]:
    async with loaded(2 * jobs) as rt:
        return await every_second(rt, jobs, FOR_S)


async def _bare(jobs: int) -> list[float]:
    """Milliseconds of lateness, sorted."""
    loop = asyncio.get_running_loop()
    late: list[float] = []

    def fire(at: float) -> None:
        late.append((loop.time() - at) * 1e3)

    begin = loop.time() + 1
    for second in range(BARE_S):
        at = begin + second
        for _ in range(jobs):
            loop.call_at(at, fire, at)
        await asyncio.sleep(at + 0.5 - time.monotonic())
    return sorted(late)
