"""Keeps history in days: those to come are made ahead, those past keeping are dropped whole.

A day is made or dropped by a function of the schema's owner, each in a transaction of its own,
which gives up after a second rather than let everybody wait behind its lock; the next call tries
again. A node makes its days as it joins: an INSERT that has chosen the default partition while a
day is attached that takes its row over is refused by PostgreSQL, so days are made before rows
want them. What lies in the default partition all the same (the far future) moves into its day
when that is made.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final

from protocols.errors import UnavailableError
from runtime.postgres.outbox import note_dropped, unread_of_day
from runtime.postgres.pool import Pool

AHEAD: Final = timedelta(days=3)
KEEP_S: Final = 30 * 86400.0
FORGOTTEN_AT_ONCE: Final = 5_000
"""Rows of the default partitions that one call deletes of each table."""

# Days without a partition: today and those ahead, and those since the newest there is, so that
# whoever catches up after a long stop writes into days as well.
_MISSING: Final = """
SELECT t.parent, d::date AS day
FROM daily_tables() AS t
CROSS JOIN LATERAL (SELECT max(day) + 1 AS day FROM days WHERE days.parent = t.parent) AS upto
CROSS JOIN generate_series(
    least($1, greatest(coalesce(upto.day, $1), $3))::timestamp, $2::timestamp, interval '1 day'
) AS d
EXCEPT SELECT parent, day FROM days
ORDER BY day, parent
"""
_PAST: Final = """
SELECT parent, day FROM days
WHERE (day + 1)::timestamp AT TIME ZONE 'UTC' <= $1
ORDER BY day, parent
"""
_MAKE: Final = "SELECT make_day($1, $2)"
_DROP: Final = "SELECT drop_day($1, $2)"

# What no day holds goes by when it ended, so that a backfill of last year is not forgotten as it
# is written; attempts and outputs go after the execution they belong to.
_FORGET: Final = (
    f"""
    DELETE FROM execution_history_other WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM execution_history_other
        WHERE finished_at < $1 AND scheduled_for < $1 LIMIT {FORGOTTEN_AT_ONCE}))
    """,
    f"""
    DELETE FROM events_other WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM events_other WHERE at < $1 LIMIT {FORGOTTEN_AT_ONCE}))
    """,
    *(
        f"""
        DELETE FROM {table} WHERE ctid = ANY(ARRAY(
            SELECT o.ctid FROM {table} o
            WHERE o.scheduled_for < $1
                AND NOT EXISTS (SELECT FROM executions e WHERE e.id = o.id)
                AND NOT EXISTS (SELECT FROM execution_history_other h
                    WHERE h.tenant = o.tenant AND h.id = o.id)
            LIMIT {FORGOTTEN_AT_ONCE}))
        """
        for table in ("attempts_other", "outputs_other")
    ),
)  # fmt: skip


async def make_days(pool: Pool, *, now: datetime, keep_s: float = KEEP_S) -> None:
    """Make today and the days to come, before anything is written that belongs into them."""
    today = now.astimezone(UTC).date()
    oldest = (now - timedelta(seconds=keep_s)).astimezone(UTC).date()
    missing = await pool.fetch(_MISSING, today, today + AHEAD, oldest)
    await _each(pool, _MAKE, [(row["parent"], row["day"]) for row in missing])


async def keep_days(pool: Pool, *, now: datetime, keep_s: float) -> None:
    """Make the days to come and drop those that ended more than `keep_s` ago."""
    await make_days(pool, now=now, keep_s=keep_s)
    oldest = now - timedelta(seconds=keep_s)
    past = await pool.fetch(_PAST, oldest)
    for row in past:
        await _drop(pool, row["parent"], row["day"], oldest)
    for forget in _FORGET:
        await pool.fetch(forget, oldest)


async def _drop(pool: Pool, parent: str, day: date, oldest: datetime) -> None:
    """Drop a day; of the event log also with what Kafka has yet to be told of, but not silently.

    A disk that fills up because nobody mends Kafka would end the scheduling as well.
    """
    unread = await unread_of_day(pool, day) if parent == "events" else 0
    dropped = await _each(pool, _DROP, [(parent, day)])
    if dropped and unread:
        await note_dropped(pool, unread, day=day, upto=oldest)


async def _each(pool: Pool, change: str, days: Sequence[tuple[str, object]]) -> int:
    """Make or drop days; how many were."""
    done = 0
    for parent, day in days:
        try:
            (row,) = await pool.fetch(change, parent, day)
            done += row[0]
        except UnavailableError:
            # A long reader holds the table, or the database is away: what follows will tell.
            continue
    return done
