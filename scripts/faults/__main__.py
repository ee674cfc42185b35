"""The command line of `scripts/chaos`."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from pathlib import Path

import msgspec

from scripts.faults.node import GUARDS
from scripts.faults.nodes import NodeError
from scripts.faults.plan import Fault, Shape, plan
from scripts.faults.report import Report, as_json, show
from scripts.faults.run import Lanes, Options, run
from scripts.faults.scenarios import ALL, SCENARIOS
from scripts.faults.servers import ROOT, ServerError
from scripts.faults.world import Wanted, find_faketime, interruptible

_PERIODICS = ROOT.parent / "shared" / "data" / "k8s_periodics.json"
_INTERRUPTED = 130
_CANNOT = (ServerError, NodeError)


def main() -> int:
    """Run, and tell; 0 where all held, 1 where something broke, 2 where it could not be run."""
    options = parser().parse_args()
    options.seed = random.randrange(1 << 32) if options.seed is None else options.seed
    try:
        wanted, lanes, how = asked(options)
        if options.plan:
            for fault in (one for lane in lanes for one in lane):
                print(msgspec.json.encode(fault).decode())
            return 0
        report = asyncio.run(interruptibly(wanted, lanes, how))
    except _CANNOT as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        print(f"chaos: interrupted; seed {options.seed}", file=sys.stderr)
        return _INTERRUPTED
    if options.json:
        print(as_json(report).decode())
    else:
        show(report)
    return 0 if report.held else 1


async def interruptibly(wanted: Wanted, lanes: Lanes, how: Options) -> Report:
    """Run under signals that leave nothing behind."""
    interruptible()
    try:
        return await run(wanted, lanes, how)
    except ExceptionGroup as group:
        error: Exception = group
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        if group.split(_CANNOT)[1] is not None:
            raise
        raise error from group


def asked(options: argparse.Namespace) -> tuple[Wanted, Lanes, Options]:
    """What the command line means."""
    shape = Shape(
        nodes=1 if options.alone else options.nodes,
        ttl_s=options.ttl,
        servers=("postgres",) if options.alone else ALL,
    )
    lanes: tuple[tuple[Fault, ...], ...]
    if options.scenario:
        named = SCENARIOS[options.scenario]
        made = named.make(options.seed, shape, options.times or named.times)
        lanes, counts, shards = made.lanes, made.counts, made.shards
        lasts_s, title = made.lasts_s, f"scenario {options.scenario}"
    else:
        lanes, counts, shards = (plan(options.seed, options.minutes, shape),), {}, shape.nodes
        lasts_s, title = options.minutes * 60, f"{options.minutes:g} minutes of faults"
    wanted = Wanted(
        shape=shape,
        rate=options.rate,
        every_second=options.every_second,
        shards=1 if shape.alone else shards,
        periodics=options.periodics if options.periodics.exists() else None,
        without=options.without,
        counts=counts,
        stepped=any(fault.kind == "clock" for lane in lanes for fault in lane),
    )
    if wanted.stepped and find_faketime() is None:
        raise NodeError(
            "to step clocks libfaketime is needed (Debian: apt-get install libfaketime)"
        )
    if options.without:
        title += f" without {options.without}"
    how = Options(title=title, seed=options.seed, lasts_s=lasts_s, quiet=options.quiet)
    return wanted, lanes, how


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(prog="scripts/chaos", description="Breaks a running cluster "
        "by a seeded plan, and holds it to invariants I1 to I6 (docs/chaos.md).")  # fmt: skip
    found.add_argument("--seed", type=int, help="of the plan; printed where none is given")
    found.add_argument("--minutes", type=float, default=3.0, help="how long there are faults")
    found.add_argument("--scenario", choices=sorted(SCENARIOS), help="a named trial instead")
    found.add_argument("--times", type=int, help="how often the scenario's fault happens")
    found.add_argument("--nodes", type=int, default=3)
    found.add_argument("--alone", action="store_true", help="one node, on a PostgreSQL only")
    found.add_argument("--ttl", type=float, default=5.0, help="of leases, in seconds")
    found.add_argument("--rate", type=float, default=200.0, help="one-off jobs a second")
    found.add_argument("--every-second", type=int, default=20, help="jobs due every second")
    found.add_argument("--periodics", type=Path, default=_PERIODICS, help="jobs to import beside")
    found.add_argument("--without", choices=GUARDS, help="take a guard out: something must break")
    found.add_argument("--plan", action="store_true", help="print the plan and do nothing")
    found.add_argument("--json", action="store_true", help="one document on stdout")
    found.add_argument("--quiet", action="store_true", help="no progress on stderr")
    return found


if __name__ == "__main__":
    sys.exit(main())
