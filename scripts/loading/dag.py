"""Run a DAG of N tasks, 1 -> N-2 -> 1, and as many tasks in small ones: what each task costs."""

import argparse
import asyncio
import time
from pathlib import Path
from statistics import median
from typing import Any

from runtime import Runtime
from scripts.loading.house import Meter, loaded, percentile, progress

SMALL = 100
CHAIN = 50

# From the last parent's finish to the child's start, by the books.
_HOPS = """
SELECT extract(epoch FROM c.started_at - max(p.finished_at))::double precision AS hop_s
FROM dag_runs r
JOIN task_dependencies d ON d.job_key = r.job_key AND d.version = r.version
JOIN dag_tasks p ON p.run = r.run AND p.number = d.parent AND p.item = -1
JOIN dag_tasks c ON c.run = r.run AND c.number = d.child AND c.item = -1
WHERE r.dag_id = $1
GROUP BY r.run, c.number, c.started_at
"""
_OVER = """
SELECT count(*) AS n FROM dag_runs WHERE dag_id = $1 AND finished_at IS NOT NULL
"""
_DONE = """
SELECT count(*) AS n FROM dag_runs r JOIN dag_tasks t USING (run)
WHERE r.dag_id = $1 AND t.state = 'succeeded'
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of this load."""
    parser.add_argument("--tasks", type=int, default=10_000, help="of the wide DAG (10000)")
    parser.add_argument("--repeat", type=int, default=3, help="turns of both (3)")
    parser.add_argument("--slots", type=int, default=2000, help="slots of the pool (2000)")


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """Apply the DAGs, look at a chain on the idle node, then run wide and small in turns."""
    async with loaded(options.slots) as rt:
        return await progress_cost(rt, options.tasks, options.repeat)


async def progress_cost(rt: Runtime, tasks: int, repeat: int) -> dict[str, Any]:
    """What a task of a wide DAG costs beside one of a small DAG, and how soon a child starts."""
    began = time.perf_counter()
    await rt.apply(_written(rt, "wide", _fan(tasks)))
    apply_s = time.perf_counter() - began
    await rt.apply(_written(rt, "small", _fan(SMALL)))
    await rt.apply(_written(rt, "chain", [[n - 1] if n else [] for n in range(CHAIN)]))
    await _turn(rt, "chain", 1)
    hops = sorted(row["hop_s"] for row in await rt.node.keeping.fetch(_HOPS, "chain"))
    turns: dict[str, list[dict[str, float]]] = {"small": [], "wide": []}
    counts = {"small": tasks // SMALL, "wide": 1}
    for _ in range(repeat):
        for dag_id, count in counts.items():
            turns[dag_id].append(await _turn(rt, dag_id, count))
    succeeded = {dag_id: (await rt.node.keeping.fetch(_DONE, dag_id))[0]["n"] for dag_id in counts}
    complete = succeeded == {"small": repeat * counts["small"] * SMALL, "wide": repeat * tasks}
    ratios = {
        what: [
            (wide[what] / tasks) / (small[what] / (counts["small"] * SMALL))
            for small, wide in zip(turns["small"], turns["wide"], strict=True)
        ]
        for what in ("wall_s", "cpu_s")
    }
    p50 = percentile(hops, 0.5) * 1e3
    return {
        "held": complete and p50 < 100 and all(median(each) <= 2 for each in ratios.values()),
        "tasks": tasks,
        "applied_in_s": apply_s,
        "complete": complete,
        **{
            f"{dag_id}_{name}": median(turn[what] for turn in turns[dag_id]) / tasks * 1e6
            for dag_id in counts
            for what, name in (("wall_s", "us_per_task"), ("cpu_s", "cpu_us_per_task"))
        },
        "wide_tasks_per_s": tasks / median(turn["wall_s"] for turn in turns["wide"]),
        "wall_ratio": median(ratios["wall_s"]),
        "wall_ratios": _plain(ratios["wall_s"]),
        "cpu_ratio": median(ratios["cpu_s"]),
        "cpu_ratios": _plain(ratios["cpu_s"]),
        "hop_p50_ms": p50,
        "hop_p99_ms": percentile(hops, 0.99) * 1e3,
    }


async def _turn(rt: Runtime, dag_id: str, count: int) -> dict[str, float]:
    """Run a DAG so many times at once, to the end; wall and CPU seconds."""
    before = (await rt.node.keeping.fetch(_OVER, dag_id))[0]["n"]
    meter = Meter(rt.node)
    for _ in range(count):
        await rt.trigger(dag_id)
    with progress() as bar:
        task = bar.add_task(dag_id, total=count)
        done = 0
        while done < count:
            await asyncio.sleep(0.02)
            (row,) = await rt.node.keeping.fetch(_OVER, dag_id)
            done = row["n"] - before
            bar.update(task, completed=done)
    used = meter.read()
    cpu_s = sum(used[f"{part}_cpu_s"] for part in ("node", "postgres", "hosts"))
    return {"wall_s": used["wall_s"], "cpu_s": cpu_s}


def _fan(tasks: int) -> list[list[int]]:
    """The parents of each: one, all others after it, and one after those."""
    return [[], *([0] for _ in range(tasks - 2)), list(range(1, tasks - 1))]


def _written(rt: Runtime, dag_id: str, parents: list[list[int]]) -> Path:
    """A job file of a DAG of no-op tasks."""
    path = Path(rt.settings.tasks_cwd) / f"{dag_id}.yaml"
    lines = [
        "dags:",
        f"  - dag_id: {dag_id}",
        "    defaults: {isolation: shared}",
        "    tasks:",
    ]
    for number, before in enumerate(parents):
        names = ", ".join(f"t{parent}" for parent in before)
        lines.append(
            f"      - {{task_id: t{number}, python: 'loadjobs:noop', dependencies: [{names}]}}"
        )
    path.write_text("\n".join(lines) + "\n")
    return path


def _plain(ratios: list[float]) -> str:
    return " ".join(f"{ratio:.2f}" for ratio in ratios)
