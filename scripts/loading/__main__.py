"""Runs one load test and prints what it measured.

scripts/load drain --jobs 100000            enqueue N no-op jobs, then drain them
scripts/load second --jobs 1000 --for 60    N jobs on every second
scripts/load idle --jobs 1000000            N jobs in the table, a hundred due
scripts/load dag --tasks 10000              a DAG of N tasks beside small ones
"""

import argparse
import asyncio
import json
import logging
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop
from rich.console import Console
from rich.table import Table

from runtime.logs import configure_logs
from scripts.bench.report import facts
from scripts.loading import dag, drain, idle, second

Load = Callable[[argparse.Namespace], Coroutine[Any, Any, dict[str, Any]]]


def main() -> int:
    """0 where what was promised held, 1 where it did not."""
    parser = argparse.ArgumentParser(
        prog="scripts/load", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    loads = parser.add_subparsers(dest="load", required=True)
    table: dict[str, Load] = {}
    for name, module in (("drain", drain), ("second", second), ("idle", idle), ("dag", dag)):
        one = loads.add_parser(name, help=module.__doc__)
        module.arguments(one)
        one.add_argument("--json", action="store_true", help="print one JSON document on stdout")
        table[name] = module.run
    options = parser.parse_args()
    configure_logs(level=logging.WARNING)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(table[options.load](options))
    if options.json:
        json.dump({"machine": facts(), "load": options.load, **found}, sys.stdout, indent=2)
        print()
    else:
        show(options.load, found)
    return 0 if found["held"] else 1


def show(load: str, found: dict[str, Any]) -> None:
    """A table for a person."""
    grid = Table(title=f"scripts/load {load}", show_header=False)
    for key, value in found.items():
        text = f"{value:,.2f}" if isinstance(value, float) else f"{value}"
        grid.add_row(key, text)
    Console().print(grid)


if __name__ == "__main__":
    sys.exit(main())
