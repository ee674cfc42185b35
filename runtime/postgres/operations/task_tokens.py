"""Whether a running attempt's fencing token is the one in force: a task's proof of who it is."""

from typing import Final

from protocols.errors import ConflictError
from protocols.ids import execution_id, execution_key
from runtime.postgres.pool import Pool

# Index: executions_pkey.
_RUNNING: Final = """
SELECT id, created_at FROM executions WHERE id = $1 AND fencing_token = $2 AND state = 'running'
"""


async def running_key(pool: Pool, execution: str, token: int) -> int:
    """The key of the execution with this public id, which runs by this token.

    Args:
        pool: of the node's role: a task says nothing of its tenant.
        execution: its public id.
        token: what the task was given.

    Raises:
        ConflictError: it does not run, or runs by another token.
    """
    key = execution_key(execution)
    if key is not None:
        for row in await pool.fetch(_RUNNING, key, token):
            if execution_id(row["id"], row["created_at"]) == execution.lower():
                return key
    raise ConflictError(
        "this attempt is over: the fencing token is not the one in force, so stop the work"
    )
