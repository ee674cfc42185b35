"""What a run tells at its end: the faults survived, the times of recovery, and what broke."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from scripts.faults.breaking import Outcome
from scripts.faults.checks import Breach, told
from scripts.faults.recovery import Recovery


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a run."""

    title: str
    seed: int
    outcomes: Sequence[Outcome]
    recoveries: Sequence[Recovery]
    breaches: Sequence[Breach]
    counts: dict[str, Any]

    @property
    def held(self) -> bool:
        """Whether everything held."""
        return not self.breaches and all(one.held for one in self.recoveries)


def as_json(report: Report) -> bytes:
    """The one document on stdout."""
    plain = msgspec.to_builtins(report)
    plain["held"] = report.held
    return msgspec.json.encode(plain)


def show(report: Report) -> None:
    """Tables for a person."""
    console = Console(file=sys.stdout)
    console.print(f"[bold]{report.title}[/bold], seed {report.seed}")
    console.print(_faults(report.outcomes))
    if report.recoveries:
        console.print(_recoveries(report.recoveries))
    console.print(", ".join(f"{name} {value}" for name, value in report.counts.items()))
    for line in told(report.breaches):
        console.print(line, style="red", markup=False, highlight=False, soft_wrap=True)
    broken = Counter(breach.invariant for breach in report.breaches)
    late = [f"{one.failure}: {one.what}" for one in report.recoveries if not one.held]
    if report.held:
        console.print("[green]I1 to I6 held[/green]")
    else:
        words = [f"{name} {count} times" for name, count in sorted(broken.items())]
        words += [f"too slow: {name}" for name in late]
        console.print(f"broken: {', '.join(words)}", style="bold red", markup=False)


def _faults(outcomes: Sequence[Outcome]) -> Table:
    table = Table(title="Faults")
    for name in ("at s", "fault", "target", "for s", "what came of it"):
        table.add_column(name)
    for one in outcomes:
        spent_s = (one.end_us - one.begin_us) / 1e6
        table.add_row(
            f"{one.fault.at_s:.1f}", one.fault.name, one.target, f"{spent_s:.2f}",
            one.error or one.note or "survived",
        )  # fmt: skip
    return table


def _recoveries(recoveries: Sequence[Recovery]) -> Table:
    table = Table(title="Recovery times")
    for name in ("failure", "what", "times", "median s", "worst s", "bound s", ""):
        table.add_column(name)
    for one in recoveries:
        ordered = sorted(one.times_s)
        table.add_row(
            one.failure, one.what, str(len(ordered)), f"{ordered[len(ordered) // 2]:.3f}",
            f"{ordered[-1]:.3f}", "" if one.bound_s is None else f"{one.bound_s:g}",
            "" if one.held else "TOO SLOW",
        )  # fmt: skip
    return table
