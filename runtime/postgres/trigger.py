"""Executions that no schedule fired: asked for by people, programs and events, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Final

import asyncpg

from protocols.errors import KeyReusedError, NotFoundError, UnavailableError
from protocols.ports.store import Triggered, TriggerRequest
from runtime.postgres.placement import VERSION_COLUMNS, placing, retry_placing
from runtime.postgres.pool import Pool, Session

Answer = Triggered | NotFoundError | KeyReusedError

_TRIES: Final = 5

# jobs_name or jobs_pkey, which alone are in these orders: jobs_newest or jobs_source would serve
# the tenant, and then read all of it. What is named by no job here finds nothing, and is told so.
# The lock waits for a delete under way, and holds up one that comes: nothing is left to run of a
# job that is gone.
_NAMED: Final = """
WITH named AS MATERIALIZED (
    SELECT r.ord, nextval('execution_ids') AS id, j.job_key, j.version, j.tenant, j.job_id,
        r.input, r.run_at, r.gated, r.by_event AND j.paused AS stopped, {keys}
    FROM unnest($2::text[], $3::text[], $4::bigint[], $5::bytea[], $6::timestamptz[],
            $7::boolean[], $8::boolean[]{key_arrays})
        WITH ORDINALITY AS r(tenant, job_id, job_key, input, run_at, gated, by_event{key_names},
            ord)
    CROSS JOIN LATERAL (
        SELECT x.* FROM (
            SELECT a.job_key, a.version, a.tenant, a.job_id, a.paused FROM jobs a
            WHERE r.job_key IS NULL AND a.tenant = r.tenant
                AND a.job_id BETWEEN r.job_id AND r.job_id AND a.deleted_at IS NULL
                AND NOT a.hidden
            ORDER BY a.job_id LIMIT 1
            FOR KEY SHARE
        ) AS x
        UNION ALL
        SELECT y.* FROM (
            SELECT b.job_key, b.version, b.tenant, b.job_id, b.paused FROM jobs b
            WHERE r.job_key IS NOT NULL AND b.job_key BETWEEN r.job_key AND r.job_key
                AND b.tenant = r.tenant AND b.deleted_at IS NULL
            ORDER BY b.job_key LIMIT 1
            FOR KEY SHARE
        ) AS y
    ) AS j
), """

# A key in use is in `known`. One that another session is just inserting makes `fresh` wait, and
# then come back without it: that request is told `raced`, and is asked again; so is the second
# of two in one batch.
_KEYS: Final = """known AS MATERIALIZED (
    SELECT n.id, n.ord, n.job_key, k.body_hash, k.answer
    FROM named n
    CROSS JOIN LATERAL (
        SELECT i.body_hash, i.answer FROM idempotency_keys i
        WHERE i.tenant = n.tenant AND i.scope = n.scope AND i.key = n.key
            AND (i.expires_at > $1) IS TRUE  -- not by idempotency_keys_expiry
        LIMIT 1
    ) AS k
    WHERE n.key IS NOT NULL
), fresh AS (
    INSERT INTO idempotency_keys AS k (tenant, scope, key, body_hash, answer, expires_at)
    SELECT DISTINCT ON (n.tenant, n.scope, n.key) n.tenant, n.scope, n.key, n.body_hash,
        jsonb_build_object('id', n.id, 'created_at', $1::timestamptz),
        $1 + interval '24 hours'
    FROM named n
    WHERE n.key IS NOT NULL AND (n.id IN (SELECT id FROM known)) IS NOT TRUE
    ORDER BY n.tenant, n.scope, n.key, n.ord
    ON CONFLICT (tenant, scope, key) DO UPDATE SET
        body_hash = excluded.body_hash, answer = excluded.answer, expires_at = excluded.expires_at
    WHERE k.expires_at <= $1
    RETURNING (answer ->> 'id')::bigint AS id
), """

_PLACE: Final = """asked AS MATERIALIZED (
    SELECT n.ord, n.id, n.id AS origin, n.job_key, n.version,
        coalesce(n.run_at, $1) AS scheduled_for, coalesce(n.run_at, $1) AS run_at, n.input,
        NULL::timestamptz AS last, 1 AS instants, CASE WHEN n.stopped THEN 'paused' END AS skip,
        v.overlap = 'skip' AS patient, coalesce(n.run_at > $1, false) AS delayed,
        n.gated AND v.dependent AS gated, {version_columns}
    FROM named n
    CROSS JOIN LATERAL (
        SELECT * FROM job_versions j WHERE j.job_key = n.job_key AND j.version = n.version LIMIT 1
    ) AS v
    {only_fresh}
), {placing}
SELECT ord, id, $1::timestamptz AS created_at, job_key, state, pool, NULL::bytea AS body_hash,
    'placed' AS what
FROM placed
"""

_ONLY_FRESH: Final = "WHERE n.key IS NULL OR (n.id IN (SELECT id FROM fresh)) IS TRUE"

_ANSWERED: Final = """
UNION ALL
SELECT ord, (answer ->> 'id')::bigint, (answer ->> 'created_at')::timestamptz, job_key, NULL, NULL,
    body_hash, 'known'
FROM known
UNION ALL
SELECT ord, id, $1, job_key, NULL, NULL, NULL, 'raced'
FROM named
WHERE key IS NOT NULL AND (id IN (SELECT id FROM fresh)) IS NOT TRUE
    AND (id IN (SELECT id FROM known)) IS NOT TRUE
"""


@lru_cache
def trigger_statement(*, keyed: bool) -> str:
    """The statement for a batch; what has no idempotency key does not pay for one."""
    named = _NAMED.format(
        keys="r.key, 'trigger ' || j.job_id AS scope, r.body_hash" if keyed else "NULL AS key",
        key_arrays=", $9::text[], $10::bytea[]" if keyed else "",
        key_names=", key, body_hash" if keyed else "",
    )
    place = _PLACE.format(
        version_columns=VERSION_COLUMNS,
        only_fresh=_ONLY_FRESH if keyed else "",
        placing=placing("triggered", by_tenant=True),
    )
    return f"{named}{_KEYS}{place}{_ANSWERED}" if keyed else f"{named}{place}"


async def trigger(
    through: Pool | Session, requests: Sequence[TriggerRequest], *, now: datetime
) -> Sequence[Answer]:
    """As `TriggerStore.trigger`.

    `through` is a pool, or a connection inside a transaction; there, a turn that somebody else
    took meanwhile is `asyncpg.UniqueViolationError`, since only the whole can be run again.
    """
    answers: dict[int, Answer] = {}
    waiting = list(range(len(requests)))
    for _ in range(_TRIES):
        rows = await _run(through, [requests[number] for number in waiting], now)
        told = {waiting[row["ord"] - 1]: row for row in rows}
        for number in waiting:
            row = told.get(number)
            if row is None or row["what"] != "raced":
                answers[number] = _answer(requests[number], row)
        waiting = [number for number in waiting if number not in answers]
        if not waiting:
            return [answers[number] for number in range(len(requests))]
    raise UnavailableError("others use the same idempotency keys all the time: try again")


async def _run(
    through: Pool | Session, requests: Sequence[TriggerRequest], now: datetime
) -> list[asyncpg.Record]:
    keyed = any(request.key is not None for request in requests)
    arguments: list[object] = [
        now,
        [r.tenant for r in requests],
        [r.job_id for r in requests],
        [r.job_key for r in requests],
        [r.input for r in requests],
        [r.run_at for r in requests],
        [r.with_dependencies for r in requests],
        [r.by_event for r in requests],
    ]
    if keyed:
        arguments += [[r.key for r in requests], [r.body_hash for r in requests]]
    statement = trigger_statement(keyed=keyed)
    if not isinstance(through, Pool):
        return await through.fetch(statement, *arguments)
    return await retry_placing(lambda _: through.fetch(statement, *arguments))


def _answer(request: TriggerRequest, row: asyncpg.Record | None) -> Answer:
    if row is None:
        name = request.job_id if request.job_id is not None else f"with key {request.job_key}"
        return NotFoundError(f"there is no job {name} in tenant {request.tenant}")
    known = row["what"] == "known"
    if known and row["body_hash"] != request.body_hash:
        return KeyReusedError(
            f"the idempotency key {request.key} was used with another body: take a new key"
        )
    return Triggered(
        id=row["id"],
        created_at=row["created_at"],
        job_key=row["job_key"],
        known=known,
        state=row["state"],
        pool=row["pool"],
    )
