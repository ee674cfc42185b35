"""Lists and shows executions: what is under way and what is over, as one list, newest first.

A list of all is in the order of creation, a list of one job's in the order of its instants: each
order is that of an index that both tables have, so that a page costs a page, whatever they hold.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Final

import asyncpg
import msgspec

from protocols.durations import shown
from protocols.errors import InvalidError, NotFoundError, Problem
from protocols.executions import FINAL, State
from protocols.ids import execution_id, execution_key
from protocols.views import AttemptView, ExecutionDetail, ExecutionView, Page
from runtime.postgres.operations.cursors import cursor_of, number_of, page_size, place_of
from runtime.postgres.operations.names import keys_ever
from runtime.postgres.operations.rows import (
    FILED,
    HOT,
    attempt_view,
    execution_fields,
    execution_view,
    given_to,
    seconds,
    when,
)
from runtime.postgres.operations.session import Connection

_ID_MAX: Final = (1 << 63) - 1
_LATEST: Final = datetime.max.replace(tzinfo=UTC)


class _InstantPlace(msgspec.Struct, frozen=True, array_like=True):
    """Where a page of one job's executions ended."""

    scheduled_for: Annotated[datetime, msgspec.Meta(tz=True)]
    origin: Annotated[int, msgspec.Meta(ge=0, le=_ID_MAX)]


# What each state that people ask for means, of either table; $3 is now.
_HOT_STATES: Final[dict[str, str]] = {
    "blocked": "e.state = 'blocked' AND e.reason <> 'delayed'",
    "scheduled": "(e.state = 'scheduled' AND e.run_at > $3"
    " OR e.state = 'blocked' AND e.reason = 'delayed')",
    "ready": "e.state = 'scheduled' AND e.run_at <= $3",
    "running": "e.state = 'running'",
}

_HEAD: Final = "SELECT page.*, n.name AS node FROM ("
_TAIL: Final = ") AS page LEFT JOIN nodes n ON n.incarnation = page.incarnation"


def _of_all(state: str | None) -> str:
    """The list of a tenant. Indexes: executions_pkey; execution_history_id or _state."""
    hot = f"""
        SELECT {HOT} FROM executions e
        WHERE e.tenant = $1 AND e.id < $4 AND ($5::timestamptz IS NULL OR e.scheduled_for >= $5)
            AND {_hot_condition(state)}
        ORDER BY e.id DESC LIMIT $2
    """
    filed = f"""
        SELECT {FILED} FROM execution_history h
        WHERE h.tenant = $1 AND h.id < $4
            AND h.scheduled_for >= coalesce($5, '-infinity'::timestamptz)
            AND {_filed_condition(state)}
        ORDER BY h.id DESC LIMIT $2
    """
    return _union(hot, filed, state, order="id DESC")


# Which rows of a job are hot, each by an index that leads to no other's. What is left, asked for
# and free to run beside others, has none that would pay: it is looked through where it can be.
_HOT_ARMS: Final = (
    "e.origin = 0",
    "e.origin <> 0 AND e.state = 'blocked'",
    "e.origin <> 0 AND e.state <> 'blocked' AND e.holds_turn",
    """e.origin <> 0 AND e.state <> 'blocked' AND NOT e.holds_turn AND (SELECT EXISTS (
                SELECT FROM job_versions v
                WHERE v.job_key = ANY($4) AND v.overlap = 'allow'))""",
)


def _of_job(state: str | None) -> str:
    """One job's list. Indexes: executions_instant, _blocked, _turn; execution_history_instant."""
    arms = [
        f"""(
            SELECT {HOT} FROM executions e
            WHERE e.tenant = $1 AND e.job_key = ANY($4::bigint[]) AND {arm}
                AND (e.scheduled_for, e.origin) < ($5, $6)
                AND ($7::timestamptz IS NULL OR e.scheduled_for >= $7) AND {_hot_condition(state)}
            ORDER BY e.scheduled_for DESC, e.origin DESC LIMIT $2
        )"""
        for arm in _HOT_ARMS
    ]
    hot = f"""
        SELECT * FROM ({" UNION ALL ".join(arms)}) AS a
        ORDER BY scheduled_for DESC, origin DESC LIMIT $2
    """
    filed = f"""
        SELECT found.* FROM unnest($4::bigint[]) AS k (job_key)
        CROSS JOIN LATERAL (
            SELECT {FILED} FROM execution_history h
            WHERE h.tenant = $1 AND h.job_key = k.job_key
                AND (h.scheduled_for, h.origin) < ($5, $6)
                AND h.scheduled_for >= coalesce($7, '-infinity'::timestamptz)
                AND {_filed_condition(state)}
            ORDER BY h.scheduled_for DESC, h.origin DESC LIMIT $2
        ) AS found
    """
    return _union(hot, filed, state, order="scheduled_for DESC, origin DESC")


def _hot_condition(state: str | None) -> str:
    return "true" if state is None else _HOT_STATES.get(state, "false")


def _filed_condition(state: str | None) -> str:
    return "true" if state is None else f"h.state = '{state}'"


def _union(hot: str, filed: str, state: str | None, *, order: str) -> str:
    """The list of one table or of both; a state is of one table only."""
    if state is None:
        ordered = f"ORDER BY {order} LIMIT $2"
        both = f"SELECT * FROM (({hot}) UNION ALL ({filed})) AS u {ordered}"
    else:
        both = filed if state in FINAL else hot
    # $3 is named in every form, so that all take the same arguments.
    return f"{_HEAD}{both}{_TAIL} WHERE $3::timestamptz IS NOT NULL ORDER BY {order}"


_STATES: Final[tuple[str | None, ...]] = (None, *_HOT_STATES, *sorted(FINAL))
_LIST_ALL: Final = {state: _of_all(state) for state in _STATES}
_LIST_JOB: Final = {state: _of_job(state) for state in _STATES}

# Indexes: executions_pkey, execution_history_id.
_SHOW: Final = f"""
{_HEAD}
    SELECT {HOT} FROM executions e WHERE e.tenant = $1 AND e.id = $2
    UNION ALL
    SELECT {FILED} FROM execution_history h WHERE h.tenant = $1 AND h.id = $2
{_TAIL}
"""

# Index: attempts_key; the instant leaves one partition.
_ATTEMPTS: Final = """
SELECT a.attempt, a.run, a.state, a.reason, a.fencing_token, a.started_at, a.finished_at,
    a.exit_code, a.error, n.name AS node
FROM attempts a
LEFT JOIN nodes n ON n.incarnation = a.incarnation
WHERE a.tenant = $1 AND a.id = $2 AND a.scheduled_for = $3
ORDER BY a.attempt
"""


async def list_executions(
    conn: Connection,
    *,
    tenant: str,
    now: datetime,
    job_id: str | None = None,
    state: State | None = None,
    since: datetime | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> Page[ExecutionView]:
    """A page of executions, newest first.

    Args:
        conn: within a transaction of the tenant.
        tenant: whose.
        now: by which `ready` is told from `scheduled`.
        job_id: only this job's, also of deleted ones of that name.
        state: only those in this state.
        since: only instants from then on.
        limit: at most so many; never more than a thousand.
        cursor: where the page before ended.

    Raises:
        NotFoundError: there never was such a job.
        InvalidError: the cursor is none of this list, or there is no such state.
    """
    if state not in _LIST_ALL:
        known = ", ".join(sorted(filter(None, _STATES)))
        raise InvalidError((Problem(("state",), f"{shown(state)} is no state: {known}"),))
    size = page_size(limit)
    if job_id is None:
        arguments: tuple[Any, ...] = (number_of(cursor), since)
        rows = await conn.fetch(_LIST_ALL[state], tenant, size + 1, now, *arguments)
    else:
        keys = await keys_ever(conn, tenant, job_id)
        end = place_of(cursor, _InstantPlace) if cursor else None
        arguments = (keys, end.scheduled_for if end else _LATEST, end.origin if end else 0, since)
        rows = await conn.fetch(_LIST_JOB[state], tenant, size + 1, now, *arguments)
    items = tuple(execution_view(row, ready=is_ready(row, now)) for row in rows[:size])
    if len(rows) <= size:
        return Page(items)
    last = rows[size - 1]
    place = last["id"] if job_id is None else _InstantPlace(last["scheduled_for"], last["origin"])
    return Page(items, cursor_of(place))


async def find_execution(conn: Connection, tenant: str, public_id: str) -> asyncpg.Record:
    """The row of an execution, in whichever table it is, with its node's name.

    Raises:
        NotFoundError: there is none of this id.
    """
    key = execution_key(public_id)
    if key is not None:
        for row in await conn.fetch(_SHOW, tenant, key):
            if execution_id(row["id"], row["created_at"]) == public_id.lower():
                return row
    raise NotFoundError(
        f"there is no execution {shown(public_id)}: `runtime executions` lists those there are"
    )


async def show_execution(
    conn: Connection, *, tenant: str, execution: str, now: datetime
) -> ExecutionDetail:
    """An execution by its public id, with every attempt at it. Raises `NotFoundError`."""
    row = await find_execution(conn, tenant, execution)
    found = await conn.fetch(_ATTEMPTS, tenant, row["id"], row["scheduled_for"])
    attempts = [attempt_view(attempt) for attempt in found]
    if row["attempt"] and all(attempt.attempt != row["attempt"] for attempt in attempts):
        untold = _folded(row)
        attempts += [untold] if untold is not None else []
    return ExecutionDetail(
        **execution_fields(row, ready=is_ready(row, now)),
        input=given_to(row),
        attempts=tuple(attempts),
    )


def is_ready(row: asyncpg.Record, now: datetime) -> bool:
    """Whether a row reads as `ready`: it is scheduled, and its time has come."""
    return bool(row["state"] == "scheduled" and row["run_at"] <= now)


def _folded(row: asyncpg.Record) -> AttemptView | None:
    """The attempt that is told by its execution's own row: it runs, or it was the only one."""
    if row["state"] not in ("running", "succeeded"):
        return None
    return AttemptView(
        attempt=row["attempt"],
        run=row["run"],
        state=row["state"],
        reason=None,
        fencing_token=row["fencing_token"],
        node=row["node"],
        started_at=when(row["started_at"]),
        finished_at=when(row["finished_at"]),
        duration_s=seconds(row["started_at"], row["finished_at"]),
        exit_code=row["exit_code"],
        error=row["error"],
    )
