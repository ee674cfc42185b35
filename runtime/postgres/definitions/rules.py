"""What definitions ask of the rules of time, answered by those that the timer itself applies."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from actors.timer.misfire import plan_due
from actors.timer.schedule import CompiledSchedule, compile_schedule
from protocols.jobs import JobSpec
from protocols.ports.store import DueInstant, DueSchedule

# Skipped runs are counted, not visited, so a plan of this size holds whatever an outage left.
_BUDGET: Final = 200_000


def compiled(spec: JobSpec, anchor: datetime) -> CompiledSchedule:
    """A version's schedule, ready to be asked; the version has one."""
    assert spec.schedule is not None, "only what has a schedule is asked for its instants"
    return compile_schedule(
        spec.schedule,
        anchor=anchor,
        salt=f"{spec.tenant}/{spec.job_id}".encode(),
        calendars=spec.calendars,
    )


def beginning(
    spec: JobSpec, *, anchor: datetime, decided: datetime | None, now: datetime
) -> tuple[datetime, datetime | None]:
    """The (cursor, next fire) of a schedule that takes force now.

    Args:
        spec: its version.
        anchor: where an interval counts from.
        decided: instants up to here have rows already, by an earlier version.
        now: when it takes force.
    """
    ready = compiled(spec, anchor)
    cursor = ready.first_cursor(now)
    if decided is not None:
        cursor = max(cursor, decided)
    if ready.schedule.kind == "after":
        return cursor, ready.first_after_apply(now)
    return cursor, ready.next_after(cursor)


def next_fire(spec: JobSpec, *, cursor: datetime, anchor: datetime) -> datetime | None:
    """The first instant after a cursor."""
    return compiled(spec, anchor).next_after(cursor)


def owed(spec: JobSpec, due: DueSchedule, *, now: datetime) -> Iterator[DueInstant]:
    """What becomes of every instant of this row up to `now`, as the timer would have decided."""
    ready = compiled(spec, due.anchor)
    catchup = None
    if due.catchup_from is not None and due.catchup_until is not None:
        catchup = (due.catchup_from, due.catchup_until)
    cursor, next_fire_at = due.cursor, due.next_fire_at
    more = True
    while more:
        plan = plan_due(
            ready,
            cursor=cursor,
            now=now,
            next_fire_at=next_fire_at,
            catchup=catchup,
            budget=_BUDGET,
        )
        yield from plan.instants
        assert plan.next_fire_at is not None or not plan.more, "what has more says when"
        more = plan.more
        cursor, next_fire_at = plan.cursor, plan.next_fire_at or next_fire_at
        catchup = None
        if plan.catchup_from is not None and plan.catchup_until is not None:
            catchup = (plan.catchup_from, plan.catchup_until)


def instants(
    spec: JobSpec, *, first: datetime, until: datetime, anchor: datetime, limit: int
) -> Sequence[datetime]:
    """The instants in (first, until] on open days, at most `limit` of them, earliest first."""
    ready = compiled(spec, anchor)
    found: list[datetime] = []
    for instant in ready.between(first, until):
        if len(found) >= limit:
            break
        if not ready.is_excluded(instant):
            found.append(instant)
    return found
