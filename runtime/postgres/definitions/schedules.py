"""Moves schedule rows with the versions they belong to, so that no instant is lost or made up.

A changed schedule counts from now on: its cursor is the moment of the change, so that it never
claims instants from before it was in force. What the old version still owed, instants up to now
that no timer had decided yet, is decided here by the old version and the same misfire rules, in
the same transaction. A version whose schedule is unchanged takes the row over as it stands.
A timer that evaluated the row before finds its version, or its cursor, gone and is refused.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from protocols.executions import SkipReason
from protocols.jobs import JobSpec
from protocols.ports.store import DueInstant, DueSchedule
from runtime.postgres.definitions.rules import beginning, owed
from runtime.postgres.definitions.shards import shard_of
from runtime.postgres.definitions.stored import StoredSchedule, chunks, lock_schedules
from runtime.postgres.definitions.write import Change
from runtime.postgres.operations.entries import Entry, enter
from runtime.postgres.operations.session import Connection
from runtime.postgres.operations.skips import Skip, record_skips
from runtime.postgres.operations.withdraw import withdraw


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule row as it is to be; a version that keeps its schedule keeps the row's course."""

    job_key: int
    shard: int
    version: int
    cursor: datetime
    next_fire_at: datetime | None
    catchup_from: datetime | None = None
    catchup_until: datetime | None = None
    anchor: datetime
    after_s: float | None


_UPSERT: Final = """
INSERT INTO schedules (
    job_key, tenant, shard, version, cursor, next_fire_at, catchup_from, catchup_until, anchor,
    after_s, paused
)
SELECT n.job_key, $1, n.shard, n.version, n.cursor, n.next_fire_at, n.catchup_from,
    n.catchup_until, n.anchor, n.after_s, j.paused
FROM unnest(
    $2::bigint[], $3::smallint[], $4::integer[], $5::timestamptz[], $6::timestamptz[],
    $7::timestamptz[], $8::timestamptz[], $9::timestamptz[], $10::double precision[]
) AS n (
    job_key, shard, version, cursor, next_fire_at, catchup_from, catchup_until, anchor, after_s
)
JOIN jobs j ON j.job_key = n.job_key
ON CONFLICT (job_key) DO UPDATE SET
    version = excluded.version, cursor = excluded.cursor,
    next_fire_at = excluded.next_fire_at, catchup_from = excluded.catchup_from,
    catchup_until = excluded.catchup_until, anchor = excluded.anchor, after_s = excluded.after_s
"""
_HOUSE_PAUSED: Final = "SELECT paused FROM house"
_DELETE: Final = "DELETE FROM schedules WHERE job_key = ANY($1::bigint[])"

# Jobs that have run, or that are about to: an @after schedule of theirs waits for a finish.
# Indexes: executions_turn, execution_history_instant.
_HAVE_RUN: Final = """
SELECT n.job_key FROM unnest($1::bigint[]) AS n (job_key)
WHERE EXISTS (SELECT FROM executions e WHERE e.job_key = n.job_key AND e.holds_turn)
    OR EXISTS (
        SELECT FROM execution_history h WHERE h.job_key = n.job_key AND h.state <> 'skipped'
    )
"""


async def move_schedules(
    conn: Connection,
    changes: Sequence[Change],
    *,
    tenant: str,
    keys: Mapping[str, int],
    now: datetime,
) -> None:
    """Bring the schedule rows of these changes to their new versions.

    Args:
        conn: within a transaction of the tenant.
        changes: whose versions are in force from `now`; the old spec of each is read.
        tenant: theirs.
        keys: job keys by id.
        now: when they take force.
    """
    for part in chunks(changes):
        await _move(conn, part, tenant=tenant, keys=keys, now=now)


async def _move(
    conn: Connection,
    changes: Sequence[Change],
    *,
    tenant: str,
    keys: Mapping[str, int],
    now: datetime,
) -> None:
    old_keys = [c.old.job_key for c in changes if c.old is not None]
    await withdraw(conn, old_keys, now=now)
    stored = await lock_schedules(conn, old_keys)
    await _decide_owed(conn, changes, stored, tenant=tenant, now=now)
    have_run = await _have_run(conn, changes)
    rows = []
    gone = []
    for change in changes:
        key = keys[change.spec.job_id]
        if change.spec.schedule is None:
            gone.append(key)
        else:
            rows.append(_row(change, key, stored.get(key), key in have_run, now))
    if rows:
        await _write(conn, rows, tenant)
    if gone:
        await conn.execute(_DELETE, gone)


def same_schedule(old: JobSpec, new: JobSpec) -> bool:
    """Whether two versions are due at the same instants and skip the same ones."""
    return _essence(old) == _essence(new)


def _essence(spec: JobSpec) -> tuple[object, ...]:
    return (spec.schedule, spec.calendars, spec.enabled)


def anchor_of(
    new: JobSpec, old: JobSpec | None, stored: StoredSchedule | None, now: datetime
) -> datetime:
    """Where an interval counts from: `start`, else when that interval was first applied."""
    schedule = new.schedule
    assert schedule is not None
    if schedule.start is not None:
        return schedule.start
    if stored is not None and old is not None and interval_kept(old, new):
        return stored.anchor
    return now


def interval_kept(old: JobSpec, new: JobSpec) -> bool:
    """Whether a version counts on from where the one before it counted from."""
    before, after = old.schedule, new.schedule
    if before is None or after is None:
        return False
    return (before.kind, before.interval_s) == (after.kind, after.interval_s)


def _row(
    change: Change,
    key: int,
    stored: StoredSchedule | None,
    has_run: bool,  # noqa: FBT001 - private, and named where it is passed
    now: datetime,
) -> _Row:
    spec, old = change.spec, None if change.old is None else change.old.spec
    schedule = spec.schedule
    assert schedule is not None
    after_s = schedule.interval_s if schedule.kind == "after" and spec.enabled else None
    shard = shard_of(spec.tenant, spec.job_id)
    if stored is not None and old is not None and same_schedule(old, spec):
        return _Row(
            job_key=key,
            shard=shard,
            version=change.version,
            cursor=stored.cursor,
            next_fire_at=stored.next_fire_at,
            catchup_from=stored.catchup_from,
            catchup_until=stored.catchup_until,
            anchor=stored.anchor,
            after_s=after_s,
        )
    anchor = anchor_of(spec, old, stored, now)
    decided = None if stored is None else max(now, stored.cursor)
    cursor, next_fire_at = beginning(spec, anchor=anchor, decided=decided, now=now)
    if not spec.enabled or (after_s is not None and has_run):
        next_fire_at = None
    return _Row(
        job_key=key,
        shard=shard,
        version=change.version,
        cursor=cursor,
        next_fire_at=next_fire_at,
        anchor=anchor,
        after_s=after_s,
    )


async def _decide_owed(
    conn: Connection,
    changes: Sequence[Change],
    stored: Mapping[int, StoredSchedule],
    *,
    tenant: str,
    now: datetime,
) -> None:
    """Run or record, by the old version, the instants up to now of schedules that change."""
    house_paused: bool = await conn.fetchval(_HOUSE_PAUSED)
    entries: list[Entry] = []
    skips: list[Skip] = []
    for change in changes:
        old = change.old
        row = None if old is None else stored.get(old.job_key)
        if old is None or old.spec is None or row is None or row.next_fire_at is None:
            continue
        pending = row.next_fire_at <= now or row.catchup_from is not None
        if not pending or same_schedule(old.spec, change.spec):
            continue
        due = DueSchedule(
            job_key=row.job_key,
            version=old.version,
            cursor=row.cursor,
            next_fire_at=row.next_fire_at,
            anchor=row.anchor,
            catchup_from=row.catchup_from,
            catchup_until=row.catchup_until,
        )
        paused: SkipReason | None = "paused" if old.paused or house_paused else None
        for instant in owed(old.spec, due, now=now):
            reason = instant.skip or paused
            if reason is None:
                gated = bool(old.spec.dependencies)
                entries.append(_entry(row.job_key, old.version, instant, gated=gated, now=now))
            else:
                skips.append(Skip(row.job_key, old.version, instant, reason))
    await enter(conn, entries, tenant=tenant, kind="fired", now=now)
    await record_skips(conn, skips, tenant=tenant, now=now)


def _entry(key: int, version: int, instant: DueInstant, *, gated: bool, now: datetime) -> Entry:
    return Entry(
        job_key=key,
        version=version,
        scheduled_for=instant.scheduled_for,
        run_at=instant.run_at,
        created_at=now,
        gated=gated,
    )


async def _have_run(conn: Connection, changes: Sequence[Change]) -> set[int]:
    asked = [
        c.old.job_key
        for c in changes
        if c.old is not None and c.spec.schedule is not None and c.spec.schedule.kind == "after"
    ]
    return {row["job_key"] for row in await conn.fetch(_HAVE_RUN, asked)} if asked else set()


async def _write(conn: Connection, rows: Sequence[_Row], tenant: str) -> None:
    await conn.execute(
        _UPSERT,
        tenant,
        [r.job_key for r in rows],
        [r.shard for r in rows],
        [r.version for r in rows],
        [r.cursor for r in rows],
        [r.next_fire_at for r in rows],
        [r.catchup_from for r in rows],
        [r.catchup_until for r in rows],
        [r.anchor for r in rows],
        [r.after_s for r in rows],
    )
