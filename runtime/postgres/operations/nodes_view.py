"""Lists nodes as the books have them: who lives, and of each other name who ended last."""

from typing import Final

import asyncpg
import msgspec

from protocols.instants import iso
from protocols.views import NodePoolView, NodeView
from runtime.postgres.operations.session import Connection

# nodes_open for those that live; the others are as many as started within the retention.
_COLUMNS: Final = """name, incarnation, state, url, pid, host, version, started_at, last_beat_at,
    leads::text AS leads, pools::text AS pools, clock_offset_s"""
_LIST: Final = f"""
WITH living AS (
    SELECT * FROM nodes WHERE ended_at IS NULL AND state IN ('up', 'draining')
), gone AS (
    SELECT DISTINCT ON (name) * FROM nodes
    WHERE name NOT IN (SELECT name FROM living)
    ORDER BY name, incarnation DESC
)
SELECT {_COLUMNS}
FROM (SELECT * FROM living UNION ALL SELECT * FROM gone) AS n
ORDER BY incarnation DESC
"""
_ONE: Final = f"SELECT {_COLUMNS} FROM nodes WHERE incarnation = $1"


async def list_nodes(conn: Connection) -> tuple[NodeView, ...]:
    """Nodes, the one that started last first."""
    return tuple(_view(row) for row in await conn.fetch(_LIST))


async def list_incarnation(conn: Connection, *, incarnation: int) -> tuple[NodeView, ...]:
    """The one of that number, also when its name is a later one's; none where it is forgotten."""
    return tuple(_view(row) for row in await conn.fetch(_ONE, incarnation))


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
