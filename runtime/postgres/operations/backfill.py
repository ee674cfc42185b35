"""Runs the instants of a span of the past.

An instant without a row gets one, by the version that was in force at it; one that is over without
success is re-opened, by its own version; any other is left alone and told. An instant that the
timer has still to decide is the timer's.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

import asyncpg
import msgspec

from protocols.durations import shown
from protocols.errors import ConflictError, InvalidError, Problem
from protocols.executions import sources_of
from protocols.instants import iso
from protocols.jobs import JobSpec
from protocols.views import Backfilled, FilledInstant, LeftInstant
from runtime.postgres.definitions.rules import compiled, instants
from runtime.postgres.definitions.schedules import interval_kept
from runtime.postgres.operations.audit import record
from runtime.postgres.operations.entries import Entered, Entry, enter, pools_to_wake
from runtime.postgres.operations.names import live_job
from runtime.postgres.operations.reopen import take_back
from runtime.postgres.operations.runs import Run, read_runs, take_out
from runtime.postgres.operations.session import Connection

LIMIT_MAX: Final = 10_000
"""The most instants of one backfill; `continue_from` says where the next one begins."""
_TICK: Final = timedelta(microseconds=1)

# The row cannot move while this transaction decides by it. Index: schedules_pkey.
_SCHEDULE: Final = """
SELECT cursor, anchor, catchup_from, catchup_until FROM schedules WHERE job_key = $1 FOR SHARE
"""
# Index: job_versions_pkey.
_VERSIONS: Final = """
SELECT version, in_force_at, spec::text AS spec FROM job_versions
WHERE tenant = $1 AND job_key = $2 ORDER BY version
"""
# Indexes: job_versions_pkey, limits_pkey.
_OWN_LIMIT: Final = """
SELECT max(l.most) FROM job_versions v JOIN limits l USING (tenant, limit_key)
WHERE v.tenant = $1 AND v.job_key = $2
"""
# Indexes: executions_instant, execution_history_instant.
_ROWS: Final = """
SELECT n.scheduled_for, e.id, e.state, e.version
FROM unnest($3::timestamptz[]) AS n (scheduled_for)
JOIN executions e ON e.job_key = $2 AND e.scheduled_for = n.scheduled_for AND e.origin = 0
WHERE e.tenant = $1
UNION ALL
SELECT n.scheduled_for, h.id, h.state, h.version
FROM unnest($3::timestamptz[]) AS n (scheduled_for)
JOIN execution_history h
    ON h.job_key = $2 AND h.scheduled_for = n.scheduled_for AND h.origin = 0
WHERE h.tenant = $1 AND h.instants = 1
"""


class _Version(msgspec.Struct, frozen=True):
    """A version, in force for instants in (`begin`, `end`], with what its interval counts from."""

    number: int
    spec: JobSpec
    begin: datetime | None
    end: datetime | None
    anchor: datetime


class _Found(msgspec.Struct):
    """What is to become of the instants of a span."""

    new: list[tuple[datetime, int]]
    reopen: list[tuple[datetime, int]]
    left: list[LeftInstant]
    runs: list[tuple[Run, list[datetime]]]


async def backfill(
    conn: Connection,
    *,
    tenant: str,
    job_id: str,
    first: datetime,
    until: datetime,
    who: str,
    now: datetime,
    limit: int = 1000,
    parallel: int | None = None,
    dry_run: bool = False,
) -> Backfilled:
    """Run a job's instants from `first` to `until`, both included, up to now.

    Args:
        conn: within a transaction of the tenant.
        tenant: whose.
        job_id: the job; before its first version, that one counts.
        first: the earliest instant.
        until: the latest one.
        who: for the audit row.
        now: when they run; none later than that.
        limit: at most so many instants, the earliest ones; never more than ten thousand.
        parallel: at most so many of them at once, beside what else runs of the job; without it
            they take the job's turn as its `overlap` has it. A `concurrency` of its own holds;
            fewer than that is refused, as are versions with and without one together.
        dry_run: say what would be done, and do nothing.

    Raises:
        NotFoundError: there is no such job.
        ConflictError: it has no schedule that names instants.
        InvalidError: the span is empty, or lies in the future; or `parallel` would not bind.
    """
    _check_span(first, until, now)
    job = await live_job(conn, tenant, job_id)
    key: int = job["job_key"]
    row = await conn.fetchrow(_SCHEDULE, key)
    versions = await _versions(conn, tenant, key)
    kind = versions[-1].spec.schedule.kind if versions[-1].spec.schedule else None
    if row is None or kind in (None, "after"):
        raise ConflictError(
            f"the job {shown(job_id)} has no schedule that names its instants: trigger it instead"
        )
    most = max(1, min(limit, LIMIT_MAX))
    span = _span(versions, first, min(until, now), most + 1)
    continue_from = iso(span[most][0]) if len(span) > most else None
    span = span[:most]
    by_number = {version.number: version for version in versions}
    undecided = _undecided(span, row["cursor"], row["catchup_from"], row["catchup_until"])
    runs = await read_runs(conn, tenant, key, first, min(until, now))
    rows = await conn.fetch(_ROWS, tenant, key, [instant for instant, _ in span])
    found = _sort(span, {r["scheduled_for"]: (r["id"], r["state"]) for r in rows}, undecided, runs)
    if parallel is not None:
        by_id = {row["id"]: row["version"] for row in rows}
        numbers = {number for _, number in found.new} | {by_id[id_] for _, id_ in found.reopen}
        specs = [by_number[number].spec for number in numbers]
        await _check_parallel(conn, tenant, job, parallel, specs)
    if dry_run:
        return Backfilled(
            created=tuple(FilledInstant(iso(instant)) for instant, _ in found.new),
            reopened=tuple(FilledInstant(iso(instant)) for instant, _ in found.reopen),
            left=tuple(found.left),
            continue_from=continue_from,
        )
    for run, taken in found.runs:
        version = by_number[run.version]
        ready = compiled(version.spec, version.anchor)
        await take_out(conn, run, taken, ready, tenant=tenant, now=now)
    old = [
        msgspec.structs.replace(entry, parallel=parallel)
        for entry in await take_back(conn, [id_ for _, id_ in found.reopen], tenant=tenant, now=now)
    ]
    new = [_entry(key, number, instant, now, parallel) for instant, number in found.new]
    entered = await enter(conn, [*new, *old], tenant=tenant, kind="reopened", now=now)
    answer = _answer(entered, {entry.id for entry in old}, found.left, continue_from)
    await record(
        conn,
        tenant=tenant,
        who=who,
        action="backfill",
        target=job_id,
        detail={
            "from": iso(first),
            "to": iso(until),
            "created": len(answer.created),
            "reopened": len(answer.reopened),
            "left": len(answer.left),
            "parallel": parallel,
        },
        now=now,
    )
    return answer


def _check_span(first: datetime, until: datetime, now: datetime) -> None:
    if first > until:
        text = f"the span ends ({iso(until)}) before it begins ({iso(first)})"
        raise InvalidError((Problem(("to",), text),))
    if first > now:
        text = f"{iso(first)} is still to come: only what is past is backfilled"
        raise InvalidError((Problem(("from",), text),))


async def _check_parallel(
    conn: Connection, tenant: str, job: asyncpg.Record, parallel: int, specs: Iterable[JobSpec]
) -> None:
    """An execution has one limit: where its version has one, that must be the tighter."""
    limited = {spec.concurrency_limit is not None for spec in specs}
    if True not in limited:
        return
    own = await conn.fetchval(_OWN_LIMIT, tenant, job["job_key"])
    text = f"{shown(job['job_id'])} has a concurrency limit of its own, {own}, "
    if parallel < own:
        text += f"and {parallel} cannot bind beside it: leave this out, or lower the job's"
    elif len(limited) > 1:
        text += "in some of the versions that would run: backfill the others by themselves"
    else:
        return
    raise InvalidError((Problem(("parallel",), text),))


async def _versions(conn: Connection, tenant: str, key: int) -> list[_Version]:
    rows = await conn.fetch(_VERSIONS, tenant, key)
    found: list[_Version] = []
    for number, row in enumerate(rows):
        spec = msgspec.json.decode(row["spec"], type=JobSpec)
        anchor: datetime = row["in_force_at"]
        if found and interval_kept(found[-1].spec, spec):
            anchor = found[-1].anchor
        if spec.schedule is not None and spec.schedule.start is not None:
            anchor = spec.schedule.start
        begin = row["in_force_at"] if number else None
        end = rows[number + 1]["in_force_at"] if number + 1 < len(rows) else None
        found.append(_Version(row["version"], spec, begin, end, anchor))
    return found


def _span(
    versions: Sequence[_Version], first: datetime, until: datetime, limit: int
) -> list[tuple[datetime, int]]:
    """Instants from `first` to `until`, with the version in force at each, earliest first."""
    found: list[tuple[datetime, int]] = []
    for version in versions:
        if version.spec.schedule is None or not version.spec.enabled:
            continue
        after = first - _TICK if version.begin is None else max(first - _TICK, version.begin)
        last = until if version.end is None else min(until, version.end)
        if after < last:
            found += [
                (instant, version.number)
                for instant in instants(
                    version.spec,
                    first=after,
                    until=last,
                    anchor=version.anchor,
                    limit=limit - len(found),
                )
            ]
    return found


def _undecided(
    span: Sequence[tuple[datetime, int]],
    cursor: datetime,
    catchup_from: datetime | None,
    catchup_until: datetime | None,
) -> set[datetime]:
    """Instants of a span that the timer has still to decide."""
    return {
        instant
        for instant, _ in span
        if instant > cursor
        or (
            catchup_from is not None
            and catchup_until is not None
            and catchup_from < instant <= catchup_until
        )
    }


def _sort(
    span: Sequence[tuple[datetime, int]],
    rows: dict[datetime, tuple[int, str]],
    undecided: set[datetime],
    runs: Sequence[Run],
) -> _Found:
    found = _Found(new=[], reopen=[], left=[], runs=[])
    may_reopen = sources_of("scheduled")
    for instant, number in span:
        id_, state = rows.get(instant, (0, ""))
        if instant in undecided:
            found.left.append(LeftInstant(iso(instant), "undecided"))
        elif not state:
            found.new.append((instant, number))
        elif state in may_reopen and state not in ("blocked", "running"):
            found.reopen.append((instant, id_))
        else:
            found.left.append(LeftInstant(iso(instant), state))
    new = [instant for instant, _ in found.new]
    for run in runs:
        begin = bisect_left(new, run.scheduled_for)
        taken = new[begin : bisect_right(new, run.last_scheduled_for)]
        if taken:
            found.runs.append((run, taken))
    return found


def _entry(key: int, version: int, instant: datetime, now: datetime, parallel: int | None) -> Entry:
    return Entry(
        job_key=key,
        version=version,
        scheduled_for=instant,
        run_at=now,
        created_at=now,
        parallel=parallel,
    )


def _answer(
    entered: Sequence[Entered],
    old: set[int | None],
    left: Sequence[LeftInstant],
    continue_from: str | None,
) -> Backfilled:
    in_order = sorted(entered, key=lambda one: one.scheduled_for)
    shown_as = [
        (one.id in old, FilledInstant(iso(one.scheduled_for), one.execution_id)) for one in in_order
    ]
    return Backfilled(
        created=tuple(filled for was, filled in shown_as if not was),
        reopened=tuple(filled for was, filled in shown_as if was),
        left=tuple(left),
        pools=pools_to_wake(entered),
        continue_from=continue_from,
    )
