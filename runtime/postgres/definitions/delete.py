"""Ends jobs: what has not started is cancelled, what runs goes on, and history stays."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

from protocols.durations import shown
from protocols.errors import ConflictError
from runtime.postgres.definitions.stored import chunks, read_dependents
from runtime.postgres.definitions.write import forget_links
from runtime.postgres.moves import guard, into_history
from runtime.postgres.operations.events import logged
from runtime.postgres.operations.session import Connection
from runtime.postgres.operations.withdraw import withdraw

# Whoever triggers a job or takes it up again holds its row FOR KEY SHARE: what that made is
# cancelled below; one that comes after finds no job. Index: jobs_pkey.
# Tasks of a DAG end with it, so that a DAG of its name that comes later has tasks of its own. Their
# executions stay: a run that has begun goes on. Index: jobs_name.
_END_TASKS: Final = """
UPDATE jobs t SET deleted_at = $2, updated_at = $2
FROM jobs d
WHERE d.job_key = ANY($1::bigint[]) AND t.tenant = d.tenant AND t.deleted_at IS NULL
    AND t.job_id > d.job_id || '/' AND t.job_id < d.job_id || '0'
"""
# DAGs that run one of these as a sub-DAG. Indexes: dags_pkey, dags_name, dag_version_tasks_sub.
_RUN_BY: Final = """
SELECT DISTINCT gone.dag_id AS parent, d.dag_id AS child
FROM dags gone
JOIN dags d ON d.tenant = gone.tenant AND d.job_key <> ALL($1::bigint[])
JOIN dag_version_tasks t ON t.tenant = d.tenant AND t.job_key = d.job_key
    AND t.version = d.version AND jsonb_exists(t.spec, 'dag')
    AND t.spec -> 'dag' ->> 'dag_id' = gone.dag_id
WHERE gone.job_key = ANY($1::bigint[])
ORDER BY parent, child
"""
_FORGET_DAGS: Final = "DELETE FROM dags WHERE job_key = ANY($1::bigint[])"
_LOCK: Final = "SELECT FROM jobs WHERE job_key = ANY($1::bigint[]) ORDER BY job_key FOR UPDATE"
# The schedule goes first: a fire that has the row commits before, and what it made is cancelled
# below; one that comes after finds no row.
_UNSCHEDULE: Final = "DELETE FROM schedules WHERE job_key = ANY($1::bigint[])"
_END: Final = "UPDATE jobs SET deleted_at = $2, updated_at = $2 WHERE job_key = ANY($1::bigint[])"
_CANCEL: Final = f"""
WITH waiting AS MATERIALIZED (
    SELECT id FROM executions
    WHERE job_key = ANY($1::bigint[]) AND state IN {guard("cancelled")} AND state <> 'running'
    ORDER BY id
    FOR UPDATE
), gone AS (
    DELETE FROM executions WHERE id IN (SELECT id FROM waiting) RETURNING *
), edges AS (
    DELETE FROM wait_edges WHERE child_id IN (SELECT id FROM waiting)
), filed AS (
    {into_history("gone", state="'cancelled'", reason="'deleted'", finished_at="$2")}
)
{logged("gone", kind="'cancelled'", at="$2", state="'cancelled'")}
"""


async def refuse_needed(
    conn: Connection, keys: Sequence[int], *, rewritten: Collection[str] = ()
) -> None:
    """Raise `ConflictError` where another job needs one of these.

    Args:
        conn: within a transaction of the tenant.
        keys: the jobs that are to be deleted.
        rewritten: jobs whose dependencies are being replaced, so that those stored do not count.
    """
    found = await read_dependents(conn, keys)
    for row in await conn.fetch(_RUN_BY, keys):
        found.append((row["parent"], row["child"]))
    needed = [(p, c) for p, c in found if c not in rewritten]
    if needed:
        parent = needed[0][0]
        children = ", ".join(shown(child) for found, child in needed if found == parent)
        raise ConflictError(
            f"the job {shown(parent)} cannot be deleted, since {children} names it: "
            "take it out of `dependencies`, `on` and `dag` there first"
        )


async def delete_jobs(conn: Connection, keys: Sequence[int], *, now: datetime) -> None:
    """Delete these jobs; a job of the same name that comes later is another job."""
    for part in chunks(keys):
        await conn.execute(_LOCK, part)
        await withdraw(conn, part, now=now)
        await conn.execute(_UNSCHEDULE, part)
        await conn.execute(_END_TASKS, part, now)
        await conn.execute(_FORGET_DAGS, part)
        await conn.execute(_END, part, now)
        await conn.execute(_CANCEL, part, now)
        await forget_links(conn, part)
