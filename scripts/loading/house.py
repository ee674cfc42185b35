"""A node to load: on an embedded PostgreSQL in a throw-away folder, with one no-op job module."""

import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from runtime import Runtime
from runtime.garbage import collect_seldom
from runtime.node import Node

NOOP = "async def noop(ctx):\n    pass\n"


@asynccontextmanager
async def loaded(slots: int, **options: Any) -> AsyncIterator[Runtime]:
    """A running node as `runtime start` makes it, gone with its folder at the end."""
    collect_seldom()
    folder = _folder()
    try:
        async with Runtime.embedded(
            folder / "data", tasks__cwd=folder, pools__default__slots=slots, **options
        ) as rt:
            yield rt
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="tickwright-load-"))
    folder.chmod(0o755)
    (folder / "loadjobs.py").write_text(NOOP)
    return folder


def progress() -> Progress:
    """A bar on stderr, so that stdout stays the answer's."""
    return Progress(
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


class Meter:
    """CPU and memory of a node from `begin` on: itself, its hosts, its PostgreSQL."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._began = time.perf_counter()
        self._cpu = self._by_part()

    def read(self) -> dict[str, Any]:
        """Seconds passed, CPU seconds by part, and the node's memory."""
        passed = time.perf_counter() - self._began
        now = self._by_part()
        spent = {part: now[part] - self._cpu.get(part, 0.0) for part in now}
        return {
            "wall_s": passed,
            **{f"{part}_cpu_s": seconds for part, seconds in spent.items()},
            "node_cpu_percent": 100 * spent["node"] / passed,
            "node_memory_mb": psutil.Process().memory_info().rss / 2**20,
        }

    def _by_part(self) -> dict[str, float]:
        found = {"node": 0.0, "postgres": 0.0, "hosts": 0.0}
        times = psutil.Process().cpu_times()
        found["node"] = times.user + times.system
        for child in psutil.Process().children(recursive=True):
            try:
                part = "postgres" if "postgres" in child.name() else "hosts"
                used = child.cpu_times()
            except psutil.Error:
                continue
            found[part] += used.user + used.system
        return found


def percentile(values: list[float], share: float) -> float:
    """The value below which that share of the sorted `values` lies."""
    return values[min(len(values) - 1, int(share * len(values)))]
