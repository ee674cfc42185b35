"""Runs again what is over: the row of the instant moves back, its attempts count on.

`run` is raised by one, retries and losses begin anew, and the version stays the one it was made
by. What is over and has not failed, and what stands for many instants, is not re-opened.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import asyncpg

from protocols.dags import is_hidden
from protocols.durations import shown
from protocols.errors import ConflictError
from protocols.views import Discarded, Reopened
from runtime.postgres.moves import guard
from runtime.postgres.operations.audit import counted, record
from runtime.postgres.operations.entries import Entered, Entry, enter, pools_to_wake
from runtime.postgres.operations.executions import find_execution
from runtime.postgres.operations.names import keys_ever
from runtime.postgres.operations.session import Connection

AT_ONCE: Final = 1000
"""How many dead letters one transaction replays or puts away."""

# Rows in the order of ids, as every batch locks them. Indexes: execution_history_id, jobs_pkey.
_LOCK: Final = f"""
SELECT h.id, h.scheduled_for, h.created_at, h.job_key, h.version, h.origin, h.run, h.attempt,
    h.input
FROM execution_history h
JOIN jobs j ON j.job_key = h.job_key AND j.deleted_at IS NULL
WHERE h.tenant = $1 AND h.id = ANY($2::bigint[]) AND h.state IN {guard("scheduled")}
    AND h.instants = 1 AND NOT j.hidden
ORDER BY h.id
FOR UPDATE OF h FOR KEY SHARE OF j
"""
# By id and instant, so that one partition is looked at for each.
_TAKE: Final = """
DELETE FROM execution_history h
USING unnest($2::bigint[], $3::timestamptz[]) AS n (id, scheduled_for)
WHERE h.tenant = $1 AND h.id = n.id AND h.scheduled_for = n.scheduled_for
"""

# Index: execution_history_dead.
_DEAD: Final = """
SELECT h.id FROM execution_history h
WHERE h.tenant = $1 AND h.state = 'dead' AND h.discarded_at IS NULL AND h.finished_at <= $2
    AND ($3::bigint[] IS NULL OR h.id = ANY($3))
    AND ($4::bigint[] IS NULL OR h.job_key = ANY($4)) {of_which}
ORDER BY h.id
LIMIT $5
"""
_ANY_DEAD: Final = _DEAD.format(of_which="")
# Of a job that is gone nothing can run again: a chunk of those would end the asking for more. A
# task of a DAG is run again by its run, which counts it: the run is a dead letter of its own.
# Index: jobs_pkey.
_DEAD_OF_LIVING: Final = _DEAD.format(
    of_which="AND EXISTS (SELECT FROM jobs j "
    "WHERE j.job_key = h.job_key AND j.deleted_at IS NULL AND NOT j.hidden)"
)
_DISCARD: Final = """
UPDATE execution_history SET discarded_at = $3
WHERE tenant = $1 AND id = ANY($2::bigint[]) AND state = 'dead' AND discarded_at IS NULL
RETURNING execution_id(id, created_at)::text AS execution_id
"""


async def take_back(
    conn: Connection, ids: Sequence[int], *, tenant: str, now: datetime
) -> list[Entry]:
    """Take these out of history, to be entered in the same transaction; those that cannot stay.

    What belongs to a deleted job stays, what stands for a run of skipped instants, and what is a
    task of a DAG's run.
    """
    rows = await conn.fetch(_LOCK, tenant, ids)
    if rows:
        instants = [row["scheduled_for"] for row in rows]
        await conn.execute(_TAKE, tenant, [row["id"] for row in rows], instants)
    return [_entry(row, now) for row in rows]


async def _reopen(
    conn: Connection, ids: Sequence[int], *, tenant: str, now: datetime
) -> list[Entered]:
    entries = await take_back(conn, ids, tenant=tenant, now=now)
    return await enter(conn, entries, tenant=tenant, kind="reopened", now=now)


def _entry(row: asyncpg.Record, now: datetime) -> Entry:
    return Entry(
        id=row["id"],
        created_at=row["created_at"],
        job_key=row["job_key"],
        version=row["version"],
        origin=row["origin"],
        scheduled_for=row["scheduled_for"],
        run=row["run"] + 1,
        run_at=now,
        attempt=row["attempt"],
        input=row["input"],
    )


async def retry_execution(
    conn: Connection, *, tenant: str, execution: str, who: str, now: datetime
) -> Reopened:
    """Run an execution again that ended dead, cancelled or skipped.

    Raises:
        NotFoundError: there is none of this id.
        ConflictError: it succeeded, is not over yet, stands for a run of skipped instants, or its
            job was deleted.
    """
    found = await find_execution(conn, tenant, execution)
    again = await _reopen(conn, [found["id"]], tenant=tenant, now=now)
    if not again:
        found = await find_execution(conn, tenant, execution)
        raise ConflictError(_why_not(found, execution))
    await record(
        conn,
        tenant=tenant,
        who=who,
        action="retry",
        target=execution,
        detail={"job_id": found["job_id"], "was": found["state"]},
        now=now,
    )
    return Reopened(execution_ids=(again[0].execution_id,), pools=pools_to_wake(again))


def _why_not(found: asyncpg.Record, execution: str) -> str:
    name = f"the execution {shown(execution)}"
    if found["state"] == "succeeded":
        return f"{name} succeeded: trigger its job to run it once more"
    if found["state"] in ("blocked", "scheduled", "running"):
        return f"{name} is {found['state']}: only one that is over can be retried"
    if is_hidden(found["job_id"]):
        return f"{name} is a task of a DAG's run: `runtime dags retry` runs it again"
    if found["instants"] != 1:
        return f"{name} stands for {found['instants']} skipped instants: backfill those you want"
    return f"{name} is of a job that was deleted: apply the job again, and trigger it"


async def replay_dead_letters(
    conn: Connection,
    *,
    tenant: str,
    who: str,
    asked_at: datetime,
    now: datetime,
    ids: Sequence[int] | None = None,
    job_id: str | None = None,
) -> Reopened:
    """Run dead letters again, oldest first, at most a thousand; the caller asks until no `more`.

    Args:
        conn: within a transaction of the tenant.
        tenant: whose.
        who: for the audit row.
        asked_at: what died later stays, so that asking again comes to an end.
        now: when they run.
        ids: row keys of these only (see `protocols.ids.execution_key`).
        job_id: of this job only.

    Raises:
        NotFoundError: there never was such a job.
    """
    found = await _dead(conn, _DEAD_OF_LIVING, tenant, asked_at, ids, job_id)
    again = await _reopen(conn, found, tenant=tenant, now=now)
    names = tuple(entered.execution_id for entered in again)
    await _tell(conn, "replay", names, tenant=tenant, who=who, job_id=job_id, now=now)
    # Where none of a full chunk could be re-opened, asking again would find the same ones.
    more = len(found) == AT_ONCE and bool(again)
    return Reopened(execution_ids=names, pools=pools_to_wake(again), more=more)


async def discard_dead_letters(
    conn: Connection,
    *,
    tenant: str,
    who: str,
    asked_at: datetime,
    now: datetime,
    ids: Sequence[int] | None = None,
    job_id: str | None = None,
) -> Discarded:
    """Put dead letters away: they stay in history and leave the list. As `replay_dead_letters`."""
    found = await _dead(conn, _ANY_DEAD, tenant, asked_at, ids, job_id)
    rows = await conn.fetch(_DISCARD, tenant, found, now)
    names = tuple(row["execution_id"] for row in rows)
    await _tell(conn, "discard", names, tenant=tenant, who=who, job_id=job_id, now=now)
    return Discarded(names, more=len(found) == AT_ONCE)


async def _dead(
    conn: Connection,
    statement: str,
    tenant: str,
    asked_at: datetime,
    ids: Sequence[int] | None,
    job_id: str | None,
) -> list[int]:
    keys = None if job_id is None else await keys_ever(conn, tenant, job_id)
    rows = await conn.fetch(statement, tenant, asked_at, ids, keys, AT_ONCE)
    return [row["id"] for row in rows]


async def _tell(
    conn: Connection,
    action: str,
    names: tuple[str, ...],
    *,
    tenant: str,
    who: str,
    job_id: str | None,
    now: datetime,
) -> None:
    if names:
        await record(
            conn,
            tenant=tenant,
            who=who,
            action=action,
            target=job_id or "dead letters",
            detail=counted(names),
            now=now,
        )
