"""The invariants I1, I2 and I4: every instant once, none early, none by an old epoch."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from scripts.faults.instants import instants
from scripts.faults.jobs import FILLED, Work
from scripts.faults.story import Disturbance, Row, Story

LATE_US: Final = 5_000_000
MARGIN_US: Final = 1_000_000
"""How long before its lease can pass on a leader has stopped."""
SHOWN_MAX: Final = 12
"""Of one kind of breach so many are told; the rest are counted."""


class Breach(msgspec.Struct, frozen=True):
    """An invariant that did not hold: where, with what shows it."""

    invariant: str
    what: str


def told(breaches: Sequence[Breach]) -> Iterator[str]:
    """Lines for a person: the first few of each invariant, and how many more."""
    seen: Counter[str] = Counter()
    for breach in breaches:
        seen[breach.invariant] += 1
        if seen[breach.invariant] <= SHOWN_MAX:
            yield f"{breach.invariant}: {breach.what}"
    for invariant, count in seen.items():
        if count > SHOWN_MAX:
            yield f"{invariant}: ... and {count - SHOWN_MAX} more"


def once_each(story: Story, work: Work) -> list[Breach]:
    """I1, first half: every due instant has exactly one row, and no other instant has one."""
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in story.rows:
        if row.fired:
            rows[row.job].append(row)
    found = [
        Breach("I1", f"{job} has rows by a schedule, and no schedule")
        for job in rows.keys() - work.schedules.keys()
    ]
    for job, schedule in work.schedules.items():
        if schedule.startswith("@after"):
            found += [
                Breach("I1", f"{job} has {count} rows at {clock(due)}")
                for due, count in Counter(row.due_us for row in rows[job]).items()
                if count > 1
            ]
            continue
        expected = set(named(story, job, schedule))
        has = Counter(
            due
            for row in rows[job]
            for due in ([row.due_us] if row.last_us == row.due_us else span(row, expected))
            if due <= story.until_us
        )
        if job == FILLED:
            expected |= set(story.filled_us)
        found += [
            Breach("I1", f"{job} has no row for its instant {clock(due)} ({due})")
            for due in sorted(expected - has.keys())
        ]
        for due, count in sorted(has.items()):
            shown = "; ".join(row.shown for row in rows[job] if row.due_us == due)
            if due not in expected:
                found.append(Breach("I1", f"{job} names no instant {clock(due)}, yet has {shown}"))
            elif count > 1:
                found.append(Breach("I1", f"{job} has {count} rows for {clock(due)}: {shown}"))
    return found


def named(story: Story, job: str, schedule: str) -> Iterator[int]:
    """The instants of a job that are judged."""
    anchor_us = story.anchors_us.get(job, story.applied_us)
    start, end = of_us(anchor_us), of_us(story.until_us)
    for instant in instants(schedule, start, start, end):
        yield to_us(instant)


def span(row: Row, expected: set[int]) -> Iterator[int]:
    """The instants that a row of skipped ones stands for."""
    return (due for due in expected if row.due_us <= due <= row.last_us)


def in_time(story: Story, work: Work) -> list[Breach]:
    """I1, second half: the first attempt starts soon, where nothing stood in its way."""
    begun: dict[str, int] = {}
    for tried in story.tried:
        if tried.attempt == 1:
            begun[tried.execution] = tried.started_us
    found = []
    for row in story.rows:
        if not row.fired or row.job not in work.ours or not story.applied_us < row.due_us:
            continue
        if row.due_us > story.until_us:
            continue
        if row.attempt == 1 and row.started_us is not None:
            begun.setdefault(row.execution, row.started_us)
        started_us = begun.get(row.execution)
        if started_us is None:
            found.append(Breach("I1", f"never started: {row.shown}"))
            continue
        latest_us = deadline(row.due_us, story.disturbances)
        if started_us > latest_us:
            late_s = (started_us - row.due_us) / 1e6
            allowed_s = (latest_us - row.due_us) / 1e6
            found.append(
                Breach("I1", f"started {late_s:.3f} s late, {allowed_s:.3f} allowed: {row.shown}")
            )
    return found


def deadline(due_us: int, disturbances: Sequence[Disturbance]) -> int:
    """By when a first attempt has started: each disturbance on the way puts it off."""
    latest_us = due_us + LATE_US
    for one in sorted(disturbances, key=lambda d: d.begin_us):
        if one.kind != "silent" and one.begin_us <= latest_us and one.end_us >= due_us:
            latest_us += one.end_us - max(one.begin_us, due_us)
    return latest_us


def none_early(story: Story) -> list[Breach]:
    """I2: by the ledger and by the books, nothing starts before its instant."""
    found = [
        Breach("I2", f"{line.shown} starts {(line.due_us - line.at_us) / 1e6:.6f} s early")
        for line in story.lines
        if line.at_us < line.due_us
    ]
    found += [
        Breach("I2", f"started {(row.due_us - row.started_us) / 1e6:.6f} s early: {row.shown}")
        for row in story.rows
        if row.started_us is not None and row.started_us < row.due_us and row.fired
    ]
    return found


def none_stale(story: Story, *, leases: bool) -> list[Breach]:
    """I4: once an epoch has committed no older one commits.

    With `leases`, one that cannot resign also stops a second before its lease can pass on.
    """
    found = [
        Breach(
            "I4",
            f"leadership {fire.number}: a fire of epoch {fire.epoch} that moved {fire.moved} "
            f"committed at {clock(fire.at_us)}, after epoch {fire.newest} had",
        )
        for fire in story.fires
        if fire.epoch != fire.newest
    ]
    last: dict[tuple[int, int], int] = {}
    for fire in story.fires:
        key = (fire.number, fire.epoch)
        last[key] = max(last.get(key, 0), fire.at_us)
    before = {(one.number, one.epoch): one for one in story.epochs}
    for one in story.epochs:
        former = before.get((one.number, one.epoch - 1))
        fired_us = last.get((one.number, one.epoch - 1))
        if former is None or fired_us is None or former.incarnation == one.incarnation:
            continue
        if not leases or not silent(story, former.incarnation, one.at_us):
            continue
        if one.at_us - fired_us < MARGIN_US:
            found.append(
                Breach(
                    "I4",
                    f"leadership {one.number}: epoch {former.epoch} of incarnation "
                    f"{former.incarnation} fired {(one.at_us - fired_us) / 1e6:.3f} s before "
                    f"incarnation {one.incarnation} took epoch {one.epoch}; a leader stops 1 s "
                    "before its lease can pass on",
                )
            )
    return found


def silent(story: Story, incarnation: int, at_us: int) -> bool:
    """Whether a node was kept from resigning what passed on then."""
    return any(
        one.kind == "silent"
        and one.node == story.names.get(incarnation)
        and one.begin_us <= at_us <= one.end_us
        for one in story.disturbances
    )


def of_us(us: int) -> datetime:
    """An instant for a person and for the enumerator."""
    return datetime.fromtimestamp(us // 1_000_000, UTC).replace(microsecond=us % 1_000_000)


def to_us(instant: datetime) -> int:
    """Whole microseconds, without a float on the way."""
    return int(instant.replace(microsecond=0).timestamp()) * 1_000_000 + instant.microsecond


def clock(us: int) -> str:
    """The time of day of an instant."""
    return f"{of_us(us):%H:%M:%S.%f}"
