"""P8: what a node costs with a million jobs in the table and a hundred of them due in a minute.

The yardstick is the same node a minute before, with no job at all: what is idle must not grow.
"""

from typing import Any, Final

import uvloop

from scripts.bench.report import compared, summary
from scripts.loading.house import loaded
from scripts.loading.idle import fill, watch

JOBS: Final = 1_000_000
FOR_S: Final = 60


def run(*, repeat: int, jobs: int = JOBS) -> dict[str, Any]:
    """Look on for a minute without jobs and for one with `jobs`, `repeat` times."""
    both = [uvloop.run(_both(jobs)) for _ in range(repeat)]
    empty, full = [one for one, _ in both], [one for _, one in both]
    return {
        "name": "P8",
        "what": f"idle, % of one core, with {jobs:,} jobs beside none",
        "target": "CPU < 2 %, node memory < 150 MB",
        **{
            f"{part} CPU %": compared(_percent(full, part), _percent(empty, part))
            for part in ("node", "postgres", "hosts")
        },
        "node memory MB": compared(
            [one["node_memory_mb"] for one in full], [one["node_memory_mb"] for one in empty]
        ),
        "of a hundred due, ran": {"ours": summary([one["ran"] for one in full])},
    }


def _percent(runs: list[dict[str, Any]], part: str) -> list[float]:
    # A hundredth: a clock tick's worth of CPU in a minute, so that nothing divides by nothing.
    return [max(0.01, 100 * one[f"{part}_cpu_s"] / one["wall_s"]) for one in runs]


async def _both(jobs: int) -> tuple[dict[str, Any], dict[str, Any]]:
    async with loaded(64) as rt:
        empty = await watch(rt, FOR_S, due=0)
        await fill(rt, jobs)
        return empty, await watch(rt, FOR_S)
