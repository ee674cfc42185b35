"""What a worker reports: how attempts ended, and what it hands back without having started it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import asyncpg

from protocols.ports.store import Finish, Finished, GiveBack
from runtime.postgres.moves import guard, into_history, logged
from runtime.postgres.pool import Pool, Session

_FINISHABLE: Final = f"state IN {guard('succeeded')}"

# Instants travel as microseconds: encoding a timestamptz takes asyncpg four times as long.
_TIMES: Final = """'epoch'::timestamptz + began_us * interval '1 microsecond' AS begun_at,
            'epoch'::timestamptz + ended_us * interval '1 microsecond' AS ended_at"""

_ALL: Final = f"""(
        SELECT u.*, {_TIMES}
        FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[],
            $6::text[], $7::text[], $8::text[], $9::timestamptz[], $10::text[], $11::integer[],
            $12::text[], $13::bytea[], $14::bytea[], $15::bytea[], $16::bigint[])
        AS u(id, token, began_us, ended_us, attempt_state, becomes, spends, run_at, reason,
            exit_code, error, result, head, tail, omitted_bytes)
    ) AS d"""

# Most batches are successes with nothing to say: no row needs these columns, so none is sent.
_LEAN: Final = f"""(
        SELECT u.id, u.token, {_TIMES}
        FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
        AS u(id, token, began_us, ended_us)
    ) AS d"""
_LEAN_VALUES: Final = """, 'succeeded'::text AS attempt_state, 'succeeded'::text AS state,
        'none'::text AS spends, NULL::text AS reason, NULL::integer AS exit_code,
        NULL::text AS error, NULL::bytea AS result"""

# Behind a lock on each, since what becomes of a row hangs on what it says when it is locked: a
# retry of what somebody asked to cancel meanwhile ends there. Then by id and token, which find the
# row also where it was changed after the statement's snapshot; by ctid it would seem to be gone.
_LOCKED: Final = """
WITH ended AS MATERIALIZED (
    SELECT d.*, e.*,
        CASE WHEN d.becomes = 'scheduled' AND e.cancel_requested THEN 'cancelled'
            ELSE d.becomes END AS state
    FROM {given}
    CROSS JOIN LATERAL (
        SELECT x.created_at, x.tenant, x.job_id, x.job_key, x.version, x.needs,
            x.origin, x.scheduled_for, x.run, x.pool, x.priority, x.attempt, x.failures, x.losses,
            x.input, x.limit_key, x.holds_turn, x.keeps, x.cancel_requested
        FROM executions x
        WHERE x.id = d.id AND x.fencing_token = d.token AND x.incarnation = $1 AND x.{finishable}
        FOR UPDATE
    ) AS e
), gone AS (
    DELETE FROM executions e USING ended d
    WHERE e.id = ANY(ARRAY[d.id]) AND e.fencing_token = d.token AND d.state <> 'scheduled'
    RETURNING d.*
)"""

# Where all are final the rows need no lock first: they are deleted in the order given, which is
# that of their ids, since the arrays drive the only plan that is left (executions_pkey).
_DELETED: Final = """
WITH gone AS (
    DELETE FROM executions e USING {given}
    WHERE e.id = d.id AND e.fencing_token = d.token AND e.incarnation = $1 AND e.{finishable}
    RETURNING d.*{values}, e.created_at, e.tenant, e.job_id, e.job_key, e.version, e.needs,
        e.origin, e.scheduled_for, e.run, e.pool, e.priority, e.attempt, e.failures, e.losses,
        e.input, e.limit_key, e.holds_turn, e.keeps
)"""

_KEPT: Final = """, kept AS (
    INSERT INTO execution_history (id, created_at, tenant, job_id, job_key, version, needs, origin,
        scheduled_for, run, pool, priority, state, reason, attempt, failures, losses,
        fencing_token, incarnation, started_at, finished_at, exit_code, error, result, input)
    SELECT id, created_at, tenant, job_id, job_key, version, needs, origin, scheduled_for, run,
        pool, priority, state, reason, attempt, failures + (spends = 'retry')::integer,
        losses + (spends = 'lost')::integer, token, $1, begun_at, ended_at, exit_code, error,
        result, input
    FROM gone
)"""

_RETRIED: Final = """, retried AS (
    UPDATE executions e SET state = 'scheduled', reason = d.reason, run_at = d.run_at,
        expires_at = NULL, fencing_token = NULL, incarnation = NULL, started_at = NULL,
        failures = e.failures + (d.spends = 'retry')::integer,
        losses = e.losses + (d.spends = 'lost')::integer
    FROM ended d
    WHERE e.id = ANY(ARRAY[d.id]) AND e.fencing_token = d.token AND d.state = 'scheduled'
    RETURNING d.*
), settled AS (SELECT * FROM gone UNION ALL SELECT * FROM retried)"""

_NOT_RETRIED: Final = ", settled AS NOT MATERIALIZED (SELECT * FROM gone)"

_TRIED: Final = """, tried AS (
    INSERT INTO attempts (id, scheduled_for, tenant, attempt, run, state, reason, fencing_token,
        incarnation, started_at, finished_at, exit_code, error)
    SELECT id, scheduled_for, tenant, attempt, run, attempt_state, reason, token, $1, begun_at,
        ended_at, exit_code, error
    FROM settled WHERE attempt > 1 OR attempt_state <> 'succeeded'
)"""

_PRINTED: Final = """, printed AS (
    INSERT INTO outputs (id, scheduled_for, tenant, attempt, head, tail, omitted_bytes)
    SELECT id, scheduled_for, tenant, attempt, head, tail, omitted_bytes
    FROM settled WHERE head IS NOT NULL
)"""

# limits_pkey, in key order. Only what keeps something of its own looks for it.
_FREED: Final = """, freed AS MATERIALIZED (
    SELECT g.tenant, g.limit_key, g.ids
    FROM (
        SELECT tenant, limit_key, array_agg(id) AS ids FROM settled
        WHERE limit_key IS NOT NULL GROUP BY tenant, limit_key ORDER BY tenant, limit_key
    ) AS g
    CROSS JOIN LATERAL (
        SELECT FROM limits k WHERE k.tenant = g.tenant AND k.limit_key = g.limit_key FOR UPDATE
    ) AS k
), released AS (
    UPDATE limits l
    SET holders = ARRAY(SELECT h FROM unnest(l.holders) AS h WHERE h <> ALL (f.ids))
    FROM freed f WHERE l.tenant = f.tenant AND l.limit_key = f.limit_key
)"""

_TIDIED: Final = """, forgotten AS (
    DELETE FROM checkpoints c USING gone g
    WHERE g.keeps AND g.state = 'succeeded' AND c.job_key = g.job_key AND c.execution = g.id
), done_once AS (
    UPDATE once_keys k SET expires_at = g.ended_at + make_interval(secs => k.ttl_s)
    FROM gone g WHERE g.keeps AND g.state = 'succeeded' AND k.execution = g.id
)"""

_TOLD: Final = """, told AS (
    INSERT INTO events (at, kind, ids, job_keys, states)
    SELECT max(ended_at), 'finished', array_agg(id), array_agg(job_key), array_agg(state)
    FROM settled HAVING count(*) > 0
)"""

# The gates are asked once a statement: where nobody depends on anybody, nobody is looked up.
_ANSWER: Final = """
SELECT ARRAY(SELECT id FROM settled) AS accepted,
    ARRAY(
        SELECT DISTINCT g.job_key FROM gone g
        WHERE (g.holds_turn AND (SELECT true FROM executions b
                WHERE b.job_key = g.job_key AND b.state = 'blocked' LIMIT 1) IS TRUE)
            OR ((SELECT EXISTS (SELECT FROM job_dependencies)) AND (SELECT true
                FROM job_dependencies d WHERE d.parent_key = g.job_key LIMIT 1) IS TRUE)
            OR ((SELECT EXISTS (SELECT FROM job_triggers WHERE parent_key IS NOT NULL))
                AND (SELECT true FROM job_triggers t WHERE t.parent_key = g.job_key LIMIT 1)
                IS TRUE)
            OR ((SELECT EXISTS (SELECT FROM schedules WHERE after_s IS NOT NULL
                    AND next_fire_at IS NULL))
                AND (SELECT true FROM schedules s WHERE s.job_key = g.job_key
                    AND s.after_s IS NOT NULL AND s.next_fire_at IS NULL LIMIT 1) IS TRUE)
    ) AS followers
"""

# What somebody asked to cancel meanwhile ends here, rather than start once more. No caller's clock
# comes with what is handed back, so that end is told by the database's own.
GIVE_BACK: Final = f"""
WITH given AS MATERIALIZED (
    SELECT d.id, d.token, d.reason, e.*
    FROM unnest($2::bigint[], $3::bigint[], $4::text[]) AS d(id, token, reason)
    CROSS JOIN LATERAL (
        SELECT x.cancel_requested FROM executions x
        WHERE x.id = d.id AND x.fencing_token = d.token AND x.incarnation = $1 AND x.{_FINISHABLE}
        FOR UPDATE
    ) AS e
), again AS (
    UPDATE executions e SET state = 'scheduled', reason = d.reason, attempt = e.attempt - 1,
        fencing_token = NULL, incarnation = NULL, started_at = NULL
    FROM given d
    WHERE e.id = ANY(ARRAY[d.id]) AND e.fencing_token = d.token AND NOT d.cancel_requested
    RETURNING e.id, e.tenant, e.limit_key
), gone AS (
    DELETE FROM executions e USING given d
    WHERE e.id = ANY(ARRAY[d.id]) AND e.fencing_token = d.token AND d.cancel_requested
    RETURNING e.*
), filed AS (
    {
    into_history(
        "(SELECT id, created_at, tenant, job_id, job_key, version, needs, origin, "
        "scheduled_for, run, pool, priority, attempt - 1 AS attempt, failures, losses, "
        "NULL::bigint AS fencing_token, NULL::bigint AS incarnation, "
        "NULL::timestamptz AS started_at, input FROM gone) AS unstarted",
        state="'cancelled'",
        reason="NULL",
        finished_at="clock_timestamp()",
    )
}
), told AS (
    {logged("gone", kind="'cancelled'", at="clock_timestamp()", states="'cancelled'")}
), settled AS (
    SELECT * FROM again UNION ALL SELECT id, tenant, limit_key FROM gone
){_FREED}
SELECT id FROM settled
"""

_CHECKPOINTS: Final = """
SELECT w.id, c.value
FROM unnest($1::bigint[]) AS w(id)
CROSS JOIN LATERAL (SELECT e.job_key FROM executions e WHERE e.id = w.id LIMIT 1) AS e
CROSS JOIN LATERAL (
    SELECT k.value FROM checkpoints k
    WHERE k.job_key = e.job_key AND k.execution IN (w.id, 0)
    ORDER BY k.execution DESC LIMIT 1
) AS c
"""


@lru_cache
def finish_statement(*, lean: bool, retries: bool) -> str:
    """The statement for a batch of ends.

    `lean`: all are successes with nothing beside; `retries`: some are not final.
    """
    if retries:
        return "".join(
            (
                _LOCKED.format(given=_ALL, finishable=_FINISHABLE),
                *(_KEPT, _RETRIED, _TRIED, _PRINTED, _FREED, _TIDIED, _TOLD, _ANSWER),
            )
        )
    deleted = _DELETED.format(
        given=_LEAN if lean else _ALL,
        values=_LEAN_VALUES if lean else ", d.becomes AS state",
        finishable=_FINISHABLE,
    )
    printed = "" if lean else _PRINTED
    return f"{deleted}{_KEPT}{_NOT_RETRIED}{_TRIED}{printed}{_FREED}{_TIDIED}{_TOLD}{_ANSWER}"


async def finish(through: Pool | Session, incarnation: int, finishes: Sequence[Finish]) -> Finished:
    """As `WorkerStore.finish`; `through` a pool, or a connection inside a transaction."""
    if not finishes:
        return Finished(accepted=(), followers=())
    ordered = sorted(finishes, key=lambda f: f.id)
    lean = all(map(_is_lean, ordered))
    retries = not lean and any(f.state == "scheduled" for f in ordered)
    (row,) = await through.fetch(
        finish_statement(lean=lean, retries=retries), incarnation, *_columns(ordered, lean=lean)
    )
    return Finished(accepted=row["accepted"], followers=row["followers"])


async def give_back(pool: Pool, incarnation: int, given: Sequence[GiveBack]) -> None:
    """As `DispatchStore.give_back`."""
    if not given:
        return
    ordered = sorted(given, key=lambda g: g.id)
    await pool.fetch(
        GIVE_BACK,
        incarnation,
        [g.id for g in ordered],
        [g.fencing_token for g in ordered],
        [g.reason for g in ordered],
    )


async def checkpoints(pool: Pool, ids: Sequence[int]) -> dict[int, bytes]:
    """As `WorkerStore.checkpoints`: an execution's own, else its job's."""
    rows: list[asyncpg.Record] = await pool.fetch(_CHECKPOINTS, list(ids)) if ids else []
    return {row["id"]: row["value"] for row in rows}


def _is_lean(finish: Finish) -> bool:
    return (
        finish.state == "succeeded"
        and finish.attempt_state == "succeeded"
        and finish.spends == "none"
        and finish.result is None
        and finish.output is None
        and finish.exit_code is None
        and finish.error is None
        and finish.reason is None
    )


def _columns(finishes: Sequence[Finish], *, lean: bool) -> tuple[list[object], ...]:
    proof: tuple[list[object], ...] = (
        [f.id for f in finishes],
        [f.fencing_token for f in finishes],
        [f.started_ns // 1000 for f in finishes],
        [f.finished_ns // 1000 for f in finishes],
    )
    if lean:
        return proof
    outputs = [f.output for f in finishes]
    return (
        *proof,
        [f.attempt_state for f in finishes],
        [f.state for f in finishes],
        [f.spends for f in finishes],
        [f.run_at for f in finishes],
        [f.reason for f in finishes],
        [f.exit_code for f in finishes],
        [f.error for f in finishes],
        [f.result for f in finishes],
        [None if o is None else o.head for o in outputs],
        [None if o is None else o.tail for o in outputs],
        [None if o is None else o.omitted_bytes for o in outputs],
    )
