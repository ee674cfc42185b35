"""The one piece of SQL that decides where a new execution goes, for whatever fires or triggers.

An execution is asked for as a row of a CTE `asked`, with these columns:

    ord            its place in the batch
    id, origin     its key; 0 or its key, as `executions.origin` says
    job_key, version, scheduled_for, run_at, input
    skip           the reason why it is not to run, or null
    last, instants of a run of skipped instants
    patient        it waits for its job's turn, also where `overlap: skip` would drop it
    delayed        it is meant for later, and stays out of its job's turn until then
    gated          it waits for its job's dependencies
    tenant, job_id, pool, priority, overlap, expires_s, at_most_once, max_lost, limit_key, needs
                   as its version says (`VERSION_COLUMNS`)

and `placing` answers with the CTEs after it. `$1` is now. Overlap is decided against what is
committed; the unique index `executions_turn` refuses what two statements decided at once, and
the one that lost is run again (`retry_placing`).
"""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import asyncpg

from protocols.errors import UnavailableError
from runtime.postgres.errors import constraint_of
from runtime.postgres.moves import guard, into_history

QUEUED_MAX: Final = 100
"""How many of one job may wait their turn under `overlap: queue`; the next is skipped."""

VERSION_COLUMNS: Final = (
    "v.tenant, v.job_id, v.pool, v.priority, v.overlap, v.expires_s, v.at_most_once, v.max_lost, "
    "v.limit_key, v.needs"
)

_TRIES: Final = 8
Answer = TypeVar("Answer")

# `place` is one's place in the job's turn: 1 has it, others wait behind the holder and the queue.
# Of several under cancel_running only the newest stays. What needs no turn is not sorted for one.
# Indexes: executions_turn, executions_blocked.
_DECIDED: Final = f"""
directed AS (
    SELECT a.*, CASE
        WHEN a.skip IS NOT NULL THEN 'skip'
        WHEN a.gated THEN 'gate'
        WHEN a.overlap = 'allow' THEN 'go'
        WHEN a.delayed THEN 'delay'
        ELSE 'turn' END AS way
    FROM asked a
), standing AS (
    SELECT d.*, d.overlap = 'cancel_running' AND NOT d.patient
        AND lead(true) OVER (PARTITION BY d.job_key ORDER BY d.scheduled_for, d.ord)
        IS TRUE AS overtaken
    FROM directed d WHERE d.way = 'turn'
), queued AS (
    SELECT s.*, CASE WHEN NOT s.overtaken THEN
        row_number() OVER (PARTITION BY s.job_key, s.overtaken ORDER BY s.scheduled_for, s.ord)
        + coalesce((
            SELECT 1 FROM executions t WHERE t.job_key = s.job_key AND t.holds_turn LIMIT 1), 0)
        + (SELECT count(*) FROM (
            SELECT FROM executions b
            WHERE b.job_key = s.job_key AND b.state = 'blocked' AND b.reason = 'overlap'
            LIMIT {QUEUED_MAX + 1}) AS waiting)
        END AS place
    FROM standing s
), placed AS MATERIALIZED (
    SELECT d.*, NULL::boolean AS overtaken, NULL::bigint AS place, false AS holds_turn,
        CASE d.way WHEN 'skip' THEN 'skipped' WHEN 'go' THEN 'scheduled'
            ELSE 'blocked' END AS state,
        CASE d.way WHEN 'skip' THEN d.skip WHEN 'gate' THEN 'dependency' WHEN 'delay' THEN 'delayed'
        END AS reason
    FROM directed d WHERE d.way <> 'turn'
    UNION ALL
    SELECT q.*, q.place IS NOT DISTINCT FROM 1,
        CASE
            WHEN q.place = 1 THEN 'scheduled'
            WHEN q.overtaken THEN 'cancelled'
            WHEN q.patient THEN 'blocked'
            WHEN q.overlap = 'skip' THEN 'skipped'
            WHEN q.overlap = 'queue' AND q.place > {QUEUED_MAX + 1} THEN 'skipped'
            ELSE 'blocked'
        END,
        CASE WHEN q.place IS DISTINCT FROM 1 THEN 'overlap' END
    FROM queued q
)"""

_ADDED: Final = """
added AS (
    INSERT INTO executions (id, created_at, tenant, job_id, job_key, version, needs, origin,
        scheduled_for, pool, priority, state, reason, overlap, patient, holds_turn, limit_key,
        run_at, expires_at, at_most_once, max_lost, input)
    SELECT id, $1, tenant, job_id, job_key, version, needs, origin, scheduled_for, pool, priority,
        state, reason, overlap, patient, holds_turn, limit_key, run_at,
        run_at + make_interval(secs => expires_s), at_most_once, max_lost, input
    FROM placed WHERE state IN ('scheduled', 'blocked')
), shelved AS (
    INSERT INTO execution_history (id, created_at, tenant, job_id, job_key, version, needs, origin,
        scheduled_for, pool, priority, state, reason, finished_at, input, last_scheduled_for,
        instants)
    SELECT id, $1, tenant, job_id, job_key, version, needs, origin, scheduled_for, pool, priority,
        state, reason, $1, input, last, instants
    FROM placed WHERE state IN ('skipped', 'cancelled')
), edges AS (
    INSERT INTO wait_edges (child_id, parent_key, tenant)
    SELECT p.id, d.parent_key, p.tenant
    FROM placed p
    CROSS JOIN LATERAL (
        SELECT j.parent_key FROM job_dependencies j WHERE j.child_key = p.job_key OFFSET 0
    ) AS d
    WHERE p.way = 'gate'
)"""

# Whom a newcomer under cancel_running displaces: the holder of the turn, and who waits for it.
_DISPLACED: Final = f"""
rivals AS MATERIALIZED (
    SELECT x.*
    FROM (
        SELECT r.id FROM placed p
        CROSS JOIN LATERAL (
            SELECT t.id FROM executions t WHERE t.job_key = p.job_key AND t.holds_turn
            UNION ALL
            SELECT b.id FROM executions b
            WHERE b.job_key = p.job_key AND b.state = 'blocked' AND b.reason = 'overlap'
        ) AS r
        WHERE p.state = 'blocked' AND p.reason = 'overlap' AND p.overlap = 'cancel_running'
            AND NOT p.patient
        ORDER BY r.id
    ) AS r
    CROSS JOIN LATERAL (
        SELECT e.id, e.ctid AS at, e.state FROM executions e
        WHERE e.id = r.id AND e.state IN {guard("cancelled")}
        FOR UPDATE
    ) AS x
), stopping AS (
    UPDATE executions e SET cancel_requested = true FROM rivals r
    WHERE e.ctid = r.at AND r.state = 'running'
), displaced AS (
    DELETE FROM executions e USING rivals r
    WHERE e.ctid = r.at AND r.state <> 'running'
    RETURNING e.*
), displaced_kept AS (
    {into_history("displaced", state="'cancelled'", reason="'overlap'", finished_at="$1")}
)"""

_TOLD: Final = """
told AS (
    INSERT INTO events (at, kind, tenant, ids, job_keys, states)
    SELECT $1, '{kind}', {tenant}, array_agg(id), array_agg(job_key), array_agg(state)
    FROM placed {group} HAVING count(*) > 0
    UNION ALL
    SELECT $1, 'cancelled', {tenant}, array_agg(id), array_agg(job_key),
        array_agg('cancelled'::text)
    FROM displaced {group} HAVING count(*) > 0
)"""


def placing(kind: str, *, by_tenant: bool = False) -> str:
    """The CTEs that place what `asked` asks for; `placed` tells what became of each.

    `kind` names it in the event log, by one row for the batch, or one for each tenant in it,
    which is what row security lets the API's role write.
    """
    told = _TOLD.format(
        kind=kind,
        tenant="tenant" if by_tenant else "NULL",
        group="GROUP BY tenant" if by_tenant else "",
    )
    return f"{_DECIDED},{_ADDED},{_DISPLACED},{told}"


async def retry_placing(
    statement: Callable[[bool], Awaitable[Answer]],
) -> Answer:
    """Run a placing statement until no other took the same turn or instant meanwhile.

    The statement is told whether an instant that has a row already stood in its way.
    """
    decided = False
    for left in range(_TRIES, 0, -1):
        try:
            return await statement(decided)
        except asyncpg.UniqueViolationError as error:
            decided = decided or "turn" not in constraint_of(error)
            if left == 1:
                raise UnavailableError(f"others place the same jobs: {error}") from error
    raise AssertionError
