"""Runs the benchmarks that are named, each beside its yardstick, and prints one table for each.

python -m scripts.bench P4 P5 --repeat 5 --json figures.json
"""

import argparse
import importlib
import json
import logging
import signal
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from runtime.logs import configure_logs
from scripts.bench import report

# Each module offers `run(*, repeat: int) -> dict`: `name`, `what`, `target`, and its figures, where
# a figure is {"ours...": [median, min, max], "<yardstick>...": [...], "ratio": ...}.
BENCHES = {
    "P1": "scripts.bench.p1_drain",
    "P3": "scripts.bench.p3_latency",
    "P4": "scripts.bench.p4_actors",
    "P5": "scripts.bench.p5_wheel",
    "P6": "scripts.bench.p6_lateness",
    "P8": "scripts.bench.p8_idle",
    "shapes": "scripts.bench.shapes",
    "chosen": "scripts.bench.chosen",
    "yardstick": "scripts.bench.yardstick",
}
BEHIND_HISTORY = ("P1", "shapes", "yardstick")  # these run behind `--finished` rows as well
SIZED = ("P1", "P3", "P6", "P8", "yardstick")  # these take `--jobs`


def main() -> int:
    """Run what the command line names; 2 where it names what there is not."""
    parser = argparse.ArgumentParser(prog="python -m scripts.bench", description=__doc__)
    parser.add_argument(
        "bench",
        nargs="+",
        choices=sorted(BENCHES),
        metavar="BENCH",
        help=f"one or more of {', '.join(BENCHES)}",
    )
    parser.add_argument("--repeat", type=int, default=3, help="interleaved runs of each (3)")
    parser.add_argument(
        "--finished",
        type=int,
        default=0,
        metavar="ROWS",
        help=f"finished rows in history, for {', '.join(BEHIND_HISTORY)}",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help=f"other than the target's number of jobs, for {', '.join(SIZED)}",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    # Told to end, unwind: the throw-away server and its folder go too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if options.repeat < 1:
        parser.error("--repeat must be at least 1")
    configure_logs(level=logging.WARNING)
    console = Console(width=None if sys.stdout.isatty() else 140)
    facts = report.facts()
    console.print(
        f"{facts['commit']}{' (changed)' if facts['dirty'] else ''}, {facts['cores']} cores, "
        f"{facts['cpu']}, Python {facts['python']}, load {facts['load_average'][0]}",
        highlight=False,
    )
    results: dict[str, Any] = {}
    for name in dict.fromkeys(options.bench):
        more = {"finished": options.finished} if name in BEHIND_HISTORY else {}
        if options.jobs is not None and name in SIZED:
            more["jobs"] = options.jobs
        with console.status(f"{name}: {options.repeat} runs"):
            bench = importlib.import_module(BENCHES[name])
            results[name] = bench.run(repeat=options.repeat, **more)
        report.show(results[name], console)
    if options.json:
        document = {"machine": facts, "repeat": options.repeat, "results": results}
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
