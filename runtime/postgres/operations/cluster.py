"""What changes the cluster: a node that is to leave, and how many leaderships there are."""

from datetime import datetime
from typing import Final

from protocols.errors import NotFoundError
from runtime.postgres.operations.audit import record
from runtime.postgres.operations.session import Connection

_DRAIN: Final = "SELECT drain_node($1)"
_DRAINING: Final = "SELECT incarnation FROM nodes WHERE name = $1 AND state = 'draining'"
_RESHARD: Final = "SELECT reshard($1)"


async def drain_node(conn: Connection, *, name: str, tenant: str, who: str, now: datetime) -> int:
    """Ask a node to lead nothing, claim nothing, and leave once what it runs has ended.

    It reads that with its next beat. Asking twice changes nothing. Returns its incarnation, by
    which it is found when its name is another's. Raises `NotFoundError`.
    """
    asked = await conn.fetchval(_DRAIN, name)
    incarnation: int | None = await conn.fetchval(_DRAINING, name) if asked else None
    if incarnation is None:
        raise NotFoundError(f"no node {name} is up: `runtime nodes` lists them")
    await record(conn, tenant=tenant, who=who, action="drain", target=name, now=now)
    return incarnation


async def reshard(
    conn: Connection, *, leaderships: int, tenant: str, who: str, now: datetime
) -> int:
    """Group the shards into so many leaderships, 1 to 256; how many there were.

    Every term ends with it; nodes read the new number with their next beat.
    """
    had: int = await conn.fetchval(_RESHARD, leaderships)
    await record(
        conn,
        tenant=tenant,
        who=who,
        action="reshard",
        target="timer.shards",
        detail={"from": had, "to": leaderships},
        now=now,
    )
    return had
