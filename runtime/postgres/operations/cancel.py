"""Cancels executions: at once where they have not started, by asking their node where they run."""

from datetime import datetime
from typing import Final

from protocols.durations import shown
from protocols.errors import ConflictError
from protocols.views import Cancelled
from runtime.postgres.moves import guard, into_history
from runtime.postgres.operations.audit import record
from runtime.postgres.operations.events import logged
from runtime.postgres.operations.executions import find_execution, is_ready
from runtime.postgres.operations.rows import execution_view
from runtime.postgres.operations.session import Connection

# The row stays as it is until the transaction ends: a claim passes it by, a finish waits.
_LOCK: Final = "SELECT state FROM executions WHERE tenant = $1 AND id = $2 FOR UPDATE"

_END: Final = f"""
WITH gone AS (
    DELETE FROM executions
    WHERE tenant = $1 AND id = $2 AND state IN {guard("cancelled")} AND state <> 'running'
    RETURNING *
), edges AS (
    DELETE FROM wait_edges WHERE child_id IN (SELECT id FROM gone)
), filed AS (
    {into_history("gone", state="'cancelled'", reason="'requested'", finished_at="$3")}
)
{logged("gone", kind="'cancelled'", at="$3", state="'cancelled'")}
"""

_ASK: Final = """
UPDATE executions SET cancel_requested = true
WHERE tenant = $1 AND id = $2 AND state = 'running'
RETURNING incarnation, id, fencing_token
"""


async def cancel_execution(
    conn: Connection, *, tenant: str, execution: str, who: str, now: datetime
) -> Cancelled:
    """Cancel an execution, or ask the node that runs it to stop.

    The caller hints: that its job finished, so that what waits for its turn goes on; or, where
    `asked` is set, the node named there.

    Raises:
        NotFoundError: there is none of this id.
        ConflictError: it is over already.
    """
    found = await find_execution(conn, tenant, execution)
    state = await conn.fetchval(_LOCK, tenant, found["id"])
    asked = None
    if state is None:
        found = await find_execution(conn, tenant, execution)
        raise ConflictError(
            f"the execution {shown(execution)} is {found['state']} already: only one that is not "
            "over can be cancelled"
        )
    if state == "running":
        row = await conn.fetchrow(_ASK, tenant, found["id"])
        assert row is not None, "the row is locked"
        asked = (row["incarnation"], row["id"], row["fencing_token"])
    else:
        await conn.execute(_END, tenant, found["id"], now)
    await record(
        conn,
        tenant=tenant,
        who=who,
        action="cancel",
        target=execution,
        detail={"job_id": found["job_id"], "running": asked is not None},
        now=now,
    )
    after = await find_execution(conn, tenant, execution)
    view = execution_view(after, ready=is_ready(after, now))
    return Cancelled(execution=view, job_key=after["job_key"], asked=asked)
