"""What a timer asks: its term, what is due, what it is, and the firing of it."""

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Final

import msgspec

from protocols.errors import FencedError, NotFoundError
from protocols.jobs import JobSpec
from protocols.ports.store import DueInstant, DueSchedule, Fired, Firing, Term
from runtime.postgres.placement import VERSION_COLUMNS, placing, retry_placing
from runtime.postgres.pool import Pool

_TAKE_EPOCH: Final = """
UPDATE leaderships SET epoch = epoch + 1, incarnation = $2, taken_at = $3
WHERE number = $1
RETURNING epoch, total
"""

# schedules_next, then schedules_catchup: a chunked catching up outlives its leader. One row without
# a schedule tells that the term holds: after a reshard the shards of a term are others.
_DUE: Final = """
SELECT s.*
FROM leaderships l
LEFT JOIN LATERAL (
    (
        SELECT job_key, version, cursor, next_fire_at, anchor, catchup_from, catchup_until
        FROM schedules
        WHERE next_fire_at <= $3 AND shard % $2 = $1
        ORDER BY next_fire_at, shard
        LIMIT $4
    )
    UNION ALL
    (
        SELECT job_key, version, cursor, next_fire_at, anchor, catchup_from, catchup_until
        FROM schedules
        WHERE catchup_from IS NOT NULL AND (next_fire_at <= $3) IS NOT TRUE AND shard % $2 = $1
        ORDER BY job_key
        LIMIT $4
    )
    LIMIT $4
) AS s ON true
WHERE l.number = $1 AND l.epoch = $5
"""

_DEFINITIONS: Final = """
SELECT v.spec::text AS spec
FROM unnest($1::bigint[], $2::integer[]) WITH ORDINALITY AS k(job_key, version, ord)
LEFT JOIN LATERAL (
    SELECT j.spec FROM job_versions j WHERE j.job_key = k.job_key AND j.version = k.version LIMIT 1
) AS v ON true
ORDER BY k.ord
"""

# The filter on `term` is asked before any schedule row is touched: whoever raises the epoch waits
# for that lock, and whoever raised it first leaves `term` empty. The rows are locked in the order
# given, which is that of their keys, as apply does (schedules_pkey, driven by the arrays). What is
# paused is not decided ahead of its instant: by then it may have been resumed.
_FIRE: Final = """
WITH term AS MATERIALIZED (
    SELECT paused FROM leaderships WHERE number = $2 AND epoch = $3 FOR SHARE
), moved AS (
    UPDATE schedules s SET cursor = f.cursor, next_fire_at = f.next_fire_at,
        catchup_from = f.catchup_from, catchup_until = f.catchup_until
    FROM unnest($4::bigint[], $5::integer[], $6::timestamptz[], $7::timestamptz[],
            $8::timestamptz[], $9::timestamptz[], $10::timestamptz[], $11::timestamptz[])
        WITH ORDINALITY AS f(job_key, version, seen_cursor, seen_catchup, cursor, next_fire_at,
            catchup_from, catchup_until, number)
    WHERE (SELECT true FROM term) AND s.job_key = f.job_key AND s.version = f.version
        AND s.cursor = f.seen_cursor AND s.catchup_from IS NOT DISTINCT FROM f.seen_catchup
        AND NOT (f.cursor > $1 AND (s.paused OR (SELECT t.paused FROM term t)))
    RETURNING f.number, s.job_key, s.paused OR (SELECT t.paused FROM term t) AS paused
), asked AS MATERIALIZED (
    SELECT i.ord, nextval('execution_ids') AS id, 0::bigint AS origin, i.job_key, i.version,
        i.scheduled_for, i.run_at, NULL::bytea AS input, i.last, i.instants,
        CASE WHEN i.skip IS NULL AND i.number IN (SELECT number FROM moved WHERE paused)
            THEN 'paused' ELSE i.skip END AS skip,
        i.patient, false AS delayed, v.dependent AS gated, {version_columns}
    FROM unnest($12::bigint[], $13::bigint[], $14::integer[], $15::timestamptz[],
            $16::timestamptz[], $17::text[], $18::timestamptz[], $19::integer[], $20::boolean[])
        WITH ORDINALITY AS i(number, job_key, version, scheduled_for, run_at, skip, last, instants,
            patient, ord)
    CROSS JOIN LATERAL (
        SELECT * FROM job_versions j WHERE j.job_key = i.job_key AND j.version = i.version LIMIT 1
    ) AS v
    WHERE (i.number IN (SELECT number FROM moved)) IS TRUE {undecided}
), {placing}
SELECT EXISTS (SELECT FROM term) AS led,
    ARRAY(SELECT job_key FROM moved) AS moved,
    ARRAY(SELECT DISTINCT pool FROM placed WHERE state = 'scheduled') AS pools,
    ARRAY(SELECT DISTINCT job_key FROM placed WHERE state = 'blocked'
        UNION SELECT job_key FROM displaced) AS followers
"""

# An instant that has a row is decided, whoever decided it (a backfill that ran ahead): the
# cursor passes it. Looked up only after a unique index has said so.
_UNDECIDED: Final = """
        AND (SELECT true FROM executions e WHERE e.origin = 0 AND e.job_key = i.job_key
            AND e.scheduled_for = i.scheduled_for LIMIT 1) IS NOT TRUE
        AND (SELECT true FROM execution_history h WHERE h.origin = 0 AND h.job_key = i.job_key
            AND h.scheduled_for = i.scheduled_for LIMIT 1) IS NOT TRUE
"""


@lru_cache
def fire_statement(*, undecided: bool) -> str:
    """The statement that fires, `undecided`: leaving out instants that have a row already."""
    return _FIRE.format(
        version_columns=VERSION_COLUMNS,
        undecided=_UNDECIDED if undecided else "",
        placing=placing("fired"),
    )


async def take_epoch(pool: Pool, number: int, incarnation: int, *, now: datetime) -> Term:
    """As `TimerStore.take_epoch`; `NotFoundError` where there is no such leadership any more."""
    rows = await pool.fetch(_TAKE_EPOCH, number, incarnation, now)
    if not rows:
        raise NotFoundError(f"there is no leadership {number}: timer.shards was lowered")
    return Term(number, rows[0]["total"], rows[0]["epoch"])


async def due(pool: Pool, term: Term, *, until: datetime, limit: int) -> Sequence[DueSchedule]:
    """As `TimerStore.due`."""
    rows = await pool.fetch(_DUE, term.number, term.leaderships, until, limit, term.epoch)
    if not rows:
        raise _over(term)
    return [
        DueSchedule(
            job_key=row[0],
            version=row[1],
            cursor=row[2],
            next_fire_at=row[3],
            anchor=row[4],
            catchup_from=row[5],
            catchup_until=row[6],
        )
        for row in rows
        if row[0] is not None
    ]


def _over(term: Term) -> FencedError:
    return FencedError(f"epoch {term.epoch} of leadership {term.number} is over")


async def definitions(pool: Pool, keys: Sequence[tuple[int, int]]) -> Sequence[JobSpec | None]:
    """As `TimerStore.definitions`."""
    if not keys:
        return ()
    rows = await pool.fetch(_DEFINITIONS, [key for key, _ in keys], [v for _, v in keys])
    return [None if row[0] is None else _decode_spec(row[0]) for row in rows]


_decode_spec: Final = msgspec.json.Decoder(JobSpec).decode


async def fire(pool: Pool, term: Term, firings: Sequence[Firing], *, now: datetime) -> Fired:
    """As `TimerStore.fire`, in one statement, again where another took the same turn meanwhile."""
    if not firings:
        return Fired(moved=(), pools=())
    ordered = sorted(firings, key=lambda firing: firing.job_key)
    arguments = (now, term.number, term.epoch, *_rows_of(ordered), *_instants_of(ordered))

    async def once(undecided: bool) -> Fired:  # noqa: FBT001
        (row,) = await pool.fetch(fire_statement(undecided=undecided), *arguments)
        if not row["led"]:
            raise _over(term)
        return Fired(moved=row["moved"], pools=row["pools"], followers=row["followers"])

    return await retry_placing(once)


def _rows_of(firings: Sequence[Firing]) -> tuple[list[object], ...]:
    return (
        [f.job_key for f in firings],
        [f.version for f in firings],
        [f.seen_cursor for f in firings],
        [f.seen_catchup_from for f in firings],
        [f.cursor for f in firings],
        [f.next_fire_at for f in firings],
        [f.catchup_from for f in firings],
        [f.catchup_until for f in firings],
    )


def _instants_of(firings: Sequence[Firing]) -> tuple[list[object], ...]:
    numbered = [
        (number, firing, instant)
        for number, firing in enumerate(firings, 1)
        for instant in firing.instants
    ]
    instants: list[DueInstant] = [instant for _, _, instant in numbered]
    return (
        [number for number, _, _ in numbered],
        [firing.job_key for _, firing, _ in numbered],
        [firing.version for _, firing, _ in numbered],
        [i.scheduled_for for i in instants],
        [i.run_at for i in instants],
        [i.skip for i in instants],
        [i.last for i in instants],
        [i.count for i in instants],
        [i.caught_up for i in instants],
    )
