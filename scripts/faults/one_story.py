"""The invariants I3 and I5: ledger and books tell one story, and nothing promised is gone."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise

from scripts.faults.checks import Breach
from scripts.faults.jobs import HOPELESS, ONCE
from scripts.faults.story import Line, Row, Story, Tried

FINAL = frozenset({"succeeded", "dead", "cancelled", "skipped"})
_OVER = frozenset({"lost", "failed", "timed_out", "cancelled"})


def one_story(story: Story, ours: frozenset[str]) -> list[Breach]:
    """I3, for every execution that wrote a line or has one to show; the tasks of `ours` write."""
    rows = {row.execution: row for row in story.rows}
    tried: dict[str, list[Tried]] = defaultdict(list)
    for attempt in story.tried:
        tried[attempt.execution].append(attempt)
    lines: dict[str, list[Line]] = defaultdict(list)
    for line in story.lines:
        lines[line.execution].append(line)
    found = [
        Breach("I3", f"the books know nothing of {lines[name][0].shown}")
        for name in lines.keys() - rows.keys()
    ]
    for name, row in rows.items():
        found += _of_one(row, lines.get(name, []), tried.get(name, []), writes=row.job in ours)
    found += [Breach("I3", what) for what in story.twice]
    by_key: Counter[str] = Counter(row.key for row in story.rows if row.key)
    for key, count in by_key.items():
        if count > 1:
            shown = "; ".join(row.shown for row in story.rows if row.key == key)
            found.append(Breach("I3", f"the key {key} has {count} executions: {shown}"))
    return found


def _of_one(row: Row, lines: list[Line], tried: list[Tried], *, writes: bool) -> Iterator[Breach]:
    starts = [line for line in lines if line.word == "start"]
    ends = [line for line in lines if line.word == "end"]
    tokens = [line.token for line in starts]
    if any(later <= earlier for earlier, later in pairwise(tokens)):
        yield Breach("I3", f"tokens do not grow: {_shown(starts)}; {row.shown}")
    for what, count in Counter((line.word, line.token) for line in lines).items():
        if count > 1:
            yield Breach(
                "I3", f"{what[0]} of token {what[1]} is written {count} times: {row.shown}"
            )
    if row.job in ONCE and len(starts) > 1:
        yield Breach("I3", f"may run at most once, started {_shown(starts)}: {row.shown}")
    over = {attempt.token for attempt in tried if attempt.state in _OVER}
    won = {attempt.token for attempt in tried if attempt.state == "succeeded"}
    if row.state == "succeeded" and row.token is not None:
        won.add(row.token)
    if row.state == "succeeded" and len(won) != 1:
        yield Breach("I3", f"succeeded by the tokens {sorted(won)}: {row.shown}")
    if won & over:
        yield Breach("I3", f"{sorted(won & over)} is recorded lost and succeeded: {row.shown}")
    for start in starts:
        if start.token not in over | won and row.state in FINAL:
            yield Breach("I3", f"no attempt of the books: {start.shown}; {row.shown}")
    if won and starts and starts[-1].token not in won:
        yield Breach("I3", f"ran again after it had succeeded: {starts[-1].shown}; {row.shown}")
    for token in won:
        if writes and token not in {line.token for line in ends}:
            yield Breach("I3", f"succeeded by token {token}, which wrote no end: {row.shown}")
    for end in ends:
        if end.token not in tokens:
            yield Breach("I3", f"an end without its start: {end.shown}")


def _shown(lines: list[Line]) -> str:
    return ", ".join(f"token {line.token} at ledger:{line.number}" for line in lines)


def nothing_gone(story: Story, ours: frozenset[str]) -> list[Breach]:
    """I5: all that was acknowledged is final, as its job lets it be, and nothing is pending."""
    rows = {row.execution: row for row in story.rows}
    found = [
        Breach("I5", f"acknowledged for the key {key}, and gone: {name}")
        for key, name in story.acknowledged.items()
        if name not in rows
    ]
    for row in story.rows:
        if row.due_us > story.until_us and row.fired:
            continue
        if row.state not in FINAL:
            found.append(Breach("I5", f"still pending: {row.shown}"))
        elif row.job in ours and not _may_end_so(row):
            found.append(Breach("I5", f"ended as its job does not: {row.shown}"))
    return found


def _may_end_so(row: Row) -> bool:
    if row.job in HOPELESS:
        return row.state == "dead"
    if row.job in ONCE:
        return row.state == "succeeded" or (row.state, row.reason) == ("dead", "lost")
    return row.state == "succeeded"
