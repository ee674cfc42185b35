"""Begins the event log anew in a database that was restored from a dump.

Events are read in the order of their transactions, and a new cluster numbers those from the
beginning: a reader that stands where it stood in the old one would never see an event again, and
the old events would be read once more, as news, when the numbers have come to them.
"""

from typing import Final

import structlog

from runtime.postgres.pool import Pool

AT_ONCE: Final = 5_000
"""Old events that one statement puts behind every reader."""

# events_order. Transaction 0 is never one: what has it lies before all that can still happen.
_PUT_BEHIND: Final = f"""
WITH old AS MATERIALIZED (
    SELECT xid, number FROM events
    WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())
    ORDER BY xid, number LIMIT {AT_ONCE}
), put AS (
    UPDATE events e SET xid = '0' FROM old
    WHERE e.xid = old.xid AND e.number = old.number
    RETURNING e.number
)
SELECT count(*) AS done FROM put
"""
# Last, since this is what tells that all this is still to be done. With `triggers` goes the outbox,
# which may stand behind them, at a place that means nothing here either.
_BEGIN: Final = """
WITH begun AS (
    UPDATE event_readers SET xid = pg_snapshot_xmin(pg_current_snapshot()), number = 0
    WHERE name = 'triggers' AND xid > pg_snapshot_xmax(pg_current_snapshot())
    RETURNING xid
), told AS (
    UPDATE outbox SET xid = begun.xid, number = 0 FROM begun
)
SELECT xid FROM begun
"""

log = structlog.get_logger("tickwright.database")


async def begin_anew(pool: Pool) -> None:
    """Let triggers and the outbox go on from the end of the log; nothing before is read again."""
    old = 0
    while done := (await pool.fetch(_PUT_BEHIND))[0]["done"]:
        old += done
    if await pool.fetch(_BEGIN):
        log.warning("the database was restored from a copy: events begin anew", old_events=old)
