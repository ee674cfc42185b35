"""The outbox's reading of the event log: one reader at a time, each step with the claim's token.

Events are read below the oldest open transaction, as `events.py` says. A batch is cut there, and
then told by its events' numbers: those are drawn when an event is written, behind the locks of its
executions, while a transaction that had to wait for another may have the lower id. It is cut,
where it can be, so that no event after it has a lower number than one in it.
"""

import asyncio
from datetime import date, datetime
from typing import Final

import asyncpg
import structlog

from protocols.executions import FINAL
from protocols.ids import execution_id
from protocols.ports.outbox import Backlog, Batch, Change
from runtime.postgres.pool import Pool

COUNTED_TO: Final = 10_000
_OVERLAP: Final = 100
"""Events looked at beyond a batch, to see where it is best cut."""

_EACH: Final = 100
"""Rows made into changes before others of the loop have their turn."""

_ENDS: Final = ("finished", "lost")
"""Kinds of events that are the end of an attempt."""

log = structlog.get_logger("tickwright.outbox")

# events_order.
_LOOK: Final = f"""
SELECT o.held_until <= clock_timestamp() AS free, o.dropped, behind.events, first.at AS oldest_at
FROM outbox o
CROSS JOIN LATERAL (
    SELECT count(*) AS events FROM (
        SELECT FROM events e WHERE (e.xid, e.number) > (o.xid, o.number)
        ORDER BY e.xid, e.number LIMIT {COUNTED_TO}
    ) AS e
) AS behind
LEFT JOIN LATERAL (
    SELECT e.at FROM events e WHERE (e.xid, e.number) > (o.xid, o.number)
    ORDER BY e.xid, e.number LIMIT 1
) AS first ON true
"""

# The first of all begins at the end of the log: what a node did by itself was nobody's to hear.
_TAKE: Final = """
INSERT INTO outbox AS o (token, incarnation, held_until)
VALUES (1, $1, clock_timestamp() + make_interval(secs => $3))
ON CONFLICT (one) DO UPDATE SET
    token = CASE WHEN o.token = $2 AND o.incarnation = $1 THEN o.token ELSE o.token + 1 END,
    incarnation = $1, held_until = excluded.held_until
WHERE (o.token = $2 AND o.incarnation = $1) OR o.held_until <= clock_timestamp()
RETURNING token
"""

# An execution is hot, or in the history of the days about the event, or in that of any other day.
# events_order, executions_pkey, execution_history_id, attempts_key, nodes_pkey, jobs_pkey.
_READ: Final = f"""
WITH place AS MATERIALIZED (
    SELECT xid, number FROM outbox WHERE token = $1
), ahead AS MATERIALIZED (
    SELECT e.* FROM place p CROSS JOIN LATERAL (
        SELECT e.xid, e.number, e.at, e.kind, e.ids, e.job_keys, e.states FROM events e
        WHERE (e.xid, e.number) > (p.xid, p.number)
            AND e.xid < pg_snapshot_xmin(pg_current_snapshot())
        ORDER BY e.xid, e.number LIMIT $2::integer + {_OVERLAP}
    ) AS e
), measured AS MATERIALIZED (
    SELECT a.*, row_number() OVER upto AS nth, sum(cardinality(ids)) OVER upto AS changes,
        max(number) OVER upto AS highest, min(number) OVER (
            ORDER BY xid, number ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING
        ) AS lowest_after
    FROM ahead a WINDOW upto AS (ORDER BY xid, number)
), cut AS MATERIALIZED (
    SELECT coalesce(
        max(nth) FILTER (WHERE (highest < lowest_after) IS NOT FALSE), max(nth)
    ) AS nth
    FROM measured WHERE nth = 1 OR (nth <= $2 AND changes <= $3)
), batch AS MATERIALIZED (
    SELECT m.* FROM cut c CROSS JOIN LATERAL (
        SELECT * FROM measured m WHERE m.nth <= c.nth OFFSET 0
    ) AS m
)
SELECT p.xid AS after_xid, p.number AS after_number, b.xid, b.number, b.at, b.kind, c.id, c.state,
    c.nth, x.tenant, x.job_id, x.created_at, x.scheduled_for, x.attempt, x.state AS state_now,
    x.reason, x.failures, x.error, a.attempt AS ended, a.state AS how, a.error AS attempt_error,
    n.name AS node
FROM place p
LEFT JOIN batch b ON true
LEFT JOIN LATERAL unnest(b.ids, b.job_keys, b.states) WITH ORDINALITY
    AS c(id, job_key, state, nth) ON true
LEFT JOIN LATERAL (SELECT j.tenant FROM jobs j WHERE j.job_key = c.job_key LIMIT 1) AS j ON true
LEFT JOIN LATERAL (
    SELECT e.tenant, e.job_id, e.created_at, e.scheduled_for, e.attempt, e.state, e.reason,
        e.failures, NULL::text AS error, e.incarnation
    FROM executions e WHERE e.id = c.id
    UNION ALL
    SELECT h.tenant, h.job_id, h.created_at, h.scheduled_for, h.attempt, h.state, h.reason,
        h.failures, h.error, h.incarnation
    FROM execution_history h
    WHERE h.tenant = j.tenant AND h.id = c.id
        AND h.scheduled_for >= b.at - interval '1 day' AND h.scheduled_for < b.at + interval '1 day'
    UNION ALL
    SELECT h.tenant, h.job_id, h.created_at, h.scheduled_for, h.attempt, h.state, h.reason,
        h.failures, h.error, h.incarnation
    FROM execution_history h WHERE h.tenant = j.tenant AND h.id = c.id
    LIMIT 1
) AS x ON true
LEFT JOIN LATERAL (
    SELECT a.attempt, a.state, a.error, a.incarnation FROM attempts a
    WHERE a.id = c.id AND a.scheduled_for = x.scheduled_for AND a.finished_at <= b.at
    ORDER BY a.attempt DESC LIMIT 1
) AS a ON true
LEFT JOIN LATERAL (
    SELECT n.name FROM nodes n WHERE n.incarnation = coalesce(a.incarnation, x.incarnation) LIMIT 1
) AS n ON true
ORDER BY b.number, c.nth
"""

# What this notes is on the disk of Kafka; if it is lost itself, a batch is published again.
_ADVANCE: Final = """
WITH advanced AS (
    UPDATE outbox SET xid = $4, number = $5,
        held_until = greatest(held_until, clock_timestamp() + make_interval(secs => $6))
    WHERE token = $1 AND xid = $2 AND number = $3
    RETURNING one
)
SELECT EXISTS (SELECT FROM advanced) AS done, set_config('synchronous_commit', 'off', true)
"""
_RELEASE: Final = "UPDATE outbox SET held_until = clock_timestamp() WHERE token = $1"

# events_order, of the one day. Where nobody has published since that day, nobody listens.
_UNREAD: Final = """
SELECT count(*) AS events FROM outbox o CROSS JOIN LATERAL (
    SELECT FROM events e
    WHERE (e.xid, e.number) > (o.xid, o.number)
        AND e.at >= $1::date::timestamp AT TIME ZONE 'UTC'
        AND e.at < ($1::date + 1)::timestamp AT TIME ZONE 'UTC'
    OFFSET 0
) AS e
WHERE o.held_until > ($1::date + 1)::timestamp AT TIME ZONE 'UTC'
"""
_DROPPED: Final = "UPDATE outbox SET dropped = dropped + $1"


class PostgresOutbox:
    """The OutboxStore port on PostgreSQL.

    Args:
        pool: pinned connections of the node's role.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def look(self) -> Backlog:
        """As the port says."""
        for row in await self._pool.fetch(_LOOK):
            return Backlog(**row)
        return Backlog(free=True)

    async def take(self, incarnation: int, token: int, *, ttl_s: float) -> int | None:
        """As the port says."""
        for row in await self._pool.fetch(_TAKE, incarnation, token, ttl_s):
            held: int = row["token"]
            return held
        return None

    async def read(self, token: int, *, events: int, changes: int) -> Batch | None:
        """As the port says; an execution that is not in the books any more is passed over."""
        rows = await self._pool.fetch(_READ, token, events, changes)
        if not rows:
            return None
        after = (rows[0]["after_xid"], rows[0]["after_number"])
        places = {(row["xid"], row["number"]) for row in rows if row["xid"] is not None}
        found = []
        for number, row in enumerate(rows):
            if number % _EACH == _EACH - 1:
                await asyncio.sleep(0)
            if row["job_id"] is not None:
                found.append(_change(row))
        return Batch(
            after=after,
            until=max(places, default=after),
            events=len(places),
            changes=found,
        )

    async def advance(self, token: int, batch: Batch, *, ttl_s: float) -> bool:
        """As the port says."""
        (row,) = await self._pool.fetch(_ADVANCE, token, *batch.after, *batch.until, ttl_s)
        done: bool = row["done"]
        return done

    async def release(self, token: int) -> None:
        """As the port says."""
        await self._pool.fetch(_RELEASE, token)


def _change(row: asyncpg.Record) -> Change:
    """What a row says of the moment of its event, though it was read later."""
    kind, state, how = row["kind"], row["state"], row["how"]
    now = row["state_now"] == state  # else more has happened since, and is told after this
    ends = kind in _ENDS
    reason = row["reason"] if now else None
    if ends and how not in (None, state):
        reason = how
    failures = row["failures"] if now and state in FINAL else row["ended"] or 0
    return Change(
        sequence=row["number"],
        kind=kind,
        at=row["at"],
        execution_id=execution_id(row["id"], row["created_at"]),
        tenant=row["tenant"],
        job_id=row["job_id"],
        scheduled_for=row["scheduled_for"],
        state=state,
        reason=reason,
        attempt=row["ended"] or (row["attempt"] if state == "succeeded" else 0),
        retry_count=max(0, failures - (how in ("failed", "timed_out"))),
        error=(row["attempt_error"] or (row["error"] if now else None)) if ends else None,
        node=row["node"] if ends else None,
    )


async def unread_of_day(pool: Pool, day: date) -> int:
    """How many events of a day are still to be published, where anybody publishes."""
    (row,) = await pool.fetch(_UNREAD, day)
    events: int = row["events"]
    return events


async def note_dropped(pool: Pool, events: int, *, day: date, upto: datetime) -> None:
    """Tell that so many events were dropped before they could be published."""
    await pool.fetch(_DROPPED, events)
    log.error(
        "events were dropped before Kafka could be told of them",
        events=events,
        day=day.isoformat(),
        kept_from=upto.isoformat(),
    )
