"""The executions of tasks: put into their queues, and cancelled where they are."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from runtime.postgres.dags.rows import TaskRow
from runtime.postgres.moves import guard, into_history, logged
from runtime.postgres.placement import VERSION_COLUMNS, placing
from runtime.postgres.pool import Session


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """An execution to be made for a task; its id is set in the task's row."""

    task: TaskRow
    job_key: int
    version: int
    scheduled_for: datetime
    input: bytes


# job_versions_pkey. A task's job allows overlap and waits for nobody, so that all are placed.
_PLACE: Final = f"""
WITH numbered AS MATERIALIZED (
    SELECT u.*, nextval('execution_ids') AS id
    FROM unnest($2::bigint[], $3::integer[], $4::timestamptz[], $5::bytea[])
        WITH ORDINALITY AS u(job_key, version, scheduled_for, input, ord)
), asked AS MATERIALIZED (
    SELECT n.ord, n.id, n.id AS origin, n.job_key, n.version, n.scheduled_for,
        $1::timestamptz AS run_at, n.input, NULL::timestamptz AS last, 1 AS instants,
        NULL::text AS skip, false AS patient, false AS delayed, false AS gated, {VERSION_COLUMNS}
    FROM numbered n
    CROSS JOIN LATERAL (
        SELECT * FROM job_versions v
        WHERE v.job_key = n.job_key AND v.version = n.version LIMIT 1
    ) AS v
), {placing("triggered")}
SELECT ord, id, pool FROM placed
"""

# By id and not by ctid: what was claimed since the snapshot must be found all the same.
_CANCEL: Final = f"""
WITH chosen AS MATERIALIZED (
    SELECT e.*
    FROM unnest($1::bigint[]) AS u(id)
    CROSS JOIN LATERAL (
        SELECT x.id, x.state FROM executions x WHERE x.id = u.id LIMIT 1 FOR UPDATE
    ) AS e
), asked AS (
    UPDATE executions e SET cancel_requested = true FROM chosen c
    WHERE e.id = ANY(ARRAY[c.id]) AND c.state = 'running'
    RETURNING e.id, e.fencing_token
), gone AS (
    DELETE FROM executions e USING chosen c
    WHERE e.id = ANY(ARRAY[c.id]) AND c.state <> 'running' AND e.state IN {guard("cancelled")}
    RETURNING e.*
), filed AS (
    {into_history("gone", state="'cancelled'", reason="'requested'", finished_at="$2")}
), told AS (
    {logged("gone", kind="'cancelled'", at="$2", states="'cancelled'")}
)
SELECT id, fencing_token FROM asked
"""


async def place(
    session: Session, wanted: Sequence[Wanted], pools: set[str], *, now: datetime
) -> list[TaskRow]:
    """Make these executions, in one statement; returns the tasks of which none could be made.

    Pools that have something to claim since are added to `pools`.
    """
    if not wanted:
        return []
    rows = await session.fetch(
        _PLACE,
        now,
        [w.job_key for w in wanted],
        [w.version for w in wanted],
        [w.scheduled_for for w in wanted],
        [w.input for w in wanted],
    )
    placed = set()
    for row in rows:
        number = row["ord"] - 1
        placed.add(number)
        wanted[number].task.execution = row["id"]
        pools.add(row["pool"])
    return [w.task for number, w in enumerate(wanted) if number not in placed]


async def cancel(
    session: Session, ids: Sequence[int], *, now: datetime
) -> tuple[tuple[int, int], ...]:
    """End these executions where they have not started, and ask for it where they run.

    Returns (id, fencing token) of those that run; how each ends comes back as any end does.
    """
    if not ids:
        return ()
    rows = await session.fetch(_CANCEL, sorted(set(ids)), now)
    return tuple((row["id"], row["fencing_token"]) for row in rows)
