"""The event log as its readers see it: in one order, and nothing that another may still precede.

Events are ordered by (xid, number). Below the oldest transaction still open nothing can appear
any more, so a reader that stops there and goes on from the last place it read misses nothing; a
sequence alone would skip what commits late.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from runtime.postgres.pool import Pool

Place = tuple[int, int]
"""Where in the log: (xid, number)."""

START: Final[Place] = (0, 0)

# events_order, in each partition.
_READ: Final = """
SELECT xid, number, at, kind, tenant, name, ids, job_keys, states,
    convert_to(payload::text, 'UTF8') AS payload
FROM events
WHERE (xid, number) > ($1::xid8, $2::bigint) AND xid < pg_snapshot_xmin(pg_current_snapshot())
ORDER BY xid, number
LIMIT $3
"""
_END: Final = "SELECT pg_snapshot_xmin(pg_current_snapshot()) AS xid"


class LoggedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the log: what one statement did to executions, or what a user emitted.

    `ids`, `job_keys` and `states` run side by side. `tenant` is None where a batch spans tenants;
    `name` and `payload` (JSON) are those of an emitted event.
    """

    place: Place
    at: datetime
    kind: str
    tenant: str | None
    name: str | None
    ids: Sequence[int]
    job_keys: Sequence[int]
    states: Sequence[str]
    payload: bytes | None


async def read_events(pool: Pool, *, after: Place, limit: int) -> Sequence[LoggedEvent]:
    """Return up to `limit` events after that place, in order, that none can precede any more."""
    return [
        LoggedEvent(
            place=(row["xid"], row["number"]),
            at=row["at"],
            kind=row["kind"],
            tenant=row["tenant"],
            name=row["name"],
            ids=row["ids"],
            job_keys=row["job_keys"],
            states=row["states"],
            payload=row["payload"],
        )
        for row in await pool.fetch(_READ, *after, limit)
    ]


async def end_of_events(pool: Pool) -> Place:
    """Return the place after all that can be read now, for who follows from here on."""
    (row,) = await pool.fetch(_END)
    return (row["xid"], 0)
