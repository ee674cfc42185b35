"""Lists nodes as the books have them: who lives, and of each other name who ended last."""

from typing import Final

import asyncpg
import msgspec

from protocols.instants import iso
from protocols.views import NodePoolView, NodeView
from runtime.postgres.operations.session import Connection

# nodes_open for those that live; the others are as many as started within the retention.
_LIST: Final = """
WITH living AS (
    SELECT * FROM nodes WHERE ended_at IS NULL AND state IN ('up', 'draining')
), gone AS (
    SELECT DISTINCT ON (name) * FROM nodes
    WHERE name NOT IN (SELECT name FROM living)
    ORDER BY name, incarnation DESC
)
SELECT name, incarnation, state, url, pid, host, version, started_at, last_beat_at,
    leads::text AS leads, pools::text AS pools, clock_offset_s
FROM (SELECT * FROM living UNION ALL SELECT * FROM gone) AS n
ORDER BY incarnation DESC
"""


async def list_nodes(conn: Connection) -> tuple[NodeView, ...]:
    """Nodes, the one that started last first."""
    return tuple(_view(row) for row in await conn.fetch(_LIST))


def _view(row: asyncpg.Record) -> NodeView:
    epochs = msgspec.json.decode(row["leads"], type=dict[str, int])
    return NodeView(
        name=row["name"],
        incarnation=row["incarnation"],
        state=row["state"],
        url=row["url"],
        pid=row["pid"],
        host=row["host"],
        version=row["version"],
        started_at=iso(row["started_at"]),
        last_beat_at=iso(row["last_beat_at"]),
        leads=tuple(sorted(int(number) for number in epochs)),
        epochs=epochs,
        pools=msgspec.json.decode(row["pools"], type=dict[str, NodePoolView]),
        clock_offset_s=row["clock_offset_s"],
    )
