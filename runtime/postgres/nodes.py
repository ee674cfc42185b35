"""Nodes in the books: who lives, by the database's own clock, and what the dead had in hand.

A node is marked dead first and its executions are collected by a statement after it, in the same
transaction: the mark waits for a claim under way, which holds the node's row FOR SHARE, and only
a later snapshot sees what that claim took. What one call does not get to stays marked (a node
that has ended keeps `ended_at` empty until nothing of it runs), and the next call takes it up.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

import asyncpg
import msgspec

from protocols.errors import NameHeldError, UnavailableError
from protocols.ports.store import NodeInfo, Peer, Pulse
from runtime.postgres.moves import guard, into_history, logged
from runtime.postgres.partitions import make_days
from runtime.postgres.pool import Pool, Session

LOST_AT_ONCE: Final = 10_000
"""Executions that one transaction declares lost; the caller asks again while there are nodes."""
FORGOTTEN_AT_ONCE: Final = 1_000
_JOIN_TRIES: Final = 5
_BEAT_S_MIN: Final = 1.0

_CLOCK = "SELECT clock_timestamp() AS now"

_JOIN = """
INSERT INTO nodes (name, url, pid, host, version, level, pools, started_at, last_beat_at)
SELECT $1, $2, $3, $4, $5, $6,
    (SELECT coalesce(jsonb_object_agg(p.key, jsonb_build_object('slots', p.value, 'running', 0)),
        '{}') FROM jsonb_each($7::text::jsonb) AS p),
    $8, clock_timestamp()
RETURNING incarnation
"""

_BEAT = """
WITH beat AS (
    UPDATE nodes SET
        last_beat_at = clock_timestamp(),
        clock_offset_s = $4,
        leads = $3::text::jsonb,
        pools = (
            SELECT coalesce(jsonb_object_agg(p.key, p.value || jsonb_build_object('running',
                coalesce($2::text::jsonb -> p.key, '0'))), '{}')
            FROM jsonb_each(nodes.pools) AS p
        )
    WHERE incarnation = $1 AND state IN ('up', 'draining')
    RETURNING state
)
SELECT coalesce((SELECT state FROM beat), 'dead') AS state, paused AS house_paused,
    (SELECT count(*) FROM leaderships) AS leaderships,
    (SELECT coalesce(jsonb_agg(jsonb_build_object('incarnation', n.incarnation, 'name', n.name,
        'pools', n.pools)), '[]') FROM nodes AS n
    WHERE n.ended_at IS NULL AND n.state IN ('up', 'draining')
        AND (n.incarnation = $1
            OR n.last_beat_at >= clock_timestamp() - make_interval(secs => $5)))::text AS peers
FROM house
"""

_HOLDER = """
SELECT incarnation, pid, host, last_beat_at FROM nodes
WHERE name = $1 AND state IN ('up', 'draining')
"""

_BURY = """
UPDATE nodes SET state = 'dead', leads = '{}'
WHERE incarnation = $1 AND last_beat_at <= $2 AND state IN ('up', 'draining')
"""

_LEAVE = """
UPDATE nodes SET state = 'stopped' WHERE incarnation = $1 AND state IN ('up', 'draining')
"""

# No row of history may name it any more, and no leadership does.
_FORGET = f"""
DELETE FROM nodes WHERE incarnation = ANY(ARRAY(
    SELECT n.incarnation FROM nodes n
    WHERE n.ended_at < $1
        AND NOT EXISTS (SELECT FROM leaderships l WHERE l.incarnation = n.incarnation)
    ORDER BY n.incarnation LIMIT {FORGOTTEN_AT_ONCE} FOR UPDATE SKIP LOCKED))
"""

# nodes_open: those that live, and those that ended with work in hand.
_MARK_DEAD = """
WITH silent AS (
    SELECT incarnation FROM nodes
    WHERE ended_at IS NULL AND state IN ('up', 'draining')
        AND ($1::float8 IS NULL
            OR last_beat_at < clock_timestamp() - make_interval(secs => $1::float8))
    ORDER BY incarnation
    FOR UPDATE
)
UPDATE nodes SET state = 'dead', leads = '{}'
FROM silent WHERE nodes.incarnation = silent.incarnation
"""

# nodes_open. Most of the time the only question.
_SILENT_OR_ENDED: Final = """
SELECT incarnation FROM nodes
WHERE ended_at IS NULL AND (state IN ('dead', 'stopped')
    OR last_beat_at < clock_timestamp() - make_interval(secs => $1::float8))
ORDER BY incarnation LIMIT 1
"""

_ENDED = """
SELECT incarnation FROM nodes
WHERE ended_at IS NULL AND state IN ('dead', 'stopped')
    AND ($1::bigint IS NULL OR incarnation = $1)
ORDER BY incarnation
FOR UPDATE
"""

# There is no index on who runs what, since every claim would pay for it: this reads the whole
# hot table, once for a node's death.
_LOSE = f"""
WITH held AS MATERIALIZED (
    SELECT *, CASE
        WHEN cancel_requested THEN 'cancelled'
        WHEN at_most_once OR losses >= max_lost THEN 'dead'
        ELSE 'scheduled'
    END AS becomes
    FROM executions
    WHERE state = 'running' AND incarnation = ANY($1::bigint[])
    ORDER BY id
    LIMIT {LOST_AT_ONCE}
    FOR UPDATE
), again AS (
    UPDATE executions SET state = 'scheduled', reason = NULL, run_at = $2, losses = losses + 1,
        fencing_token = NULL, incarnation = NULL, started_at = NULL, expires_at = NULL
    WHERE id = ANY(ARRAY(SELECT id FROM held WHERE becomes = 'scheduled'))
        AND state IN {guard("scheduled")}
), gone AS (
    DELETE FROM executions
    WHERE id = ANY(ARRAY(SELECT id FROM held WHERE becomes <> 'scheduled'))
        AND state IN {guard("dead")}
), history AS (
    {
    into_history(
        "(SELECT id, created_at, tenant, job_id, job_key, version, needs, origin, "
        "scheduled_for, run, pool, priority, attempt, failures, losses + 1 AS losses, "
        "fencing_token, incarnation, started_at, input, becomes "
        "FROM held WHERE becomes <> 'scheduled') AS ended",
        state="becomes",
        reason="CASE becomes WHEN 'dead' THEN 'lost' END",
        finished_at="$2",
    )
}
), tried AS (
    INSERT INTO attempts (id, scheduled_for, tenant, attempt, run, state, reason, fencing_token,
        incarnation, started_at, finished_at)
    SELECT id, scheduled_for, tenant, attempt, run, 'lost', 'node', fencing_token, incarnation,
        coalesce(started_at, $2), $2
    FROM held
), held_limits AS MATERIALIZED (
    SELECT l.tenant, l.limit_key
    FROM (SELECT DISTINCT tenant, limit_key FROM held WHERE limit_key IS NOT NULL
        ORDER BY tenant, limit_key) AS k
    CROSS JOIN LATERAL (
        SELECT * FROM limits l
        WHERE l.tenant = k.tenant AND l.limit_key = k.limit_key FOR UPDATE
    ) AS l
), freed AS (
    UPDATE limits l SET holders = ARRAY(
        SELECT holder FROM unnest(l.holders) AS holder WHERE holder NOT IN (SELECT id FROM held)
    )
    FROM held_limits
    WHERE l.tenant = held_limits.tenant AND l.limit_key = held_limits.limit_key
), told AS (
    {logged("held", kind="'lost'", at="$2", states="becomes")}
)
SELECT count(*) FROM held
"""

_CLOSE = """
UPDATE nodes SET ended_at = $2 WHERE incarnation = ANY($1::bigint[]) AND ended_at IS NULL
"""


Lose = Callable[[int], None]
"""Told how many executions were declared lost, once that is durable."""


def _untold(count: int) -> None:
    del count


async def sample_clock(pool: Pool, *, within_s: float) -> datetime:
    """Return what the database's clock says now."""
    sampled: datetime = (await pool.fetch(_CLOCK, within_s=within_s))[0]["now"]
    return sampled


async def join(
    pool: Pool, node: NodeInfo, *, now: datetime, alone: bool, lose: Lose = _untold
) -> int:
    """Enter a new incarnation; with `alone`, all earlier ones are dead before it exists.

    The days that it will write into are made first. Raises `NameHeldError`.
    """
    if alone:
        while await _end(pool, silent_s=None, now=now, lose=lose):
            pass
    await make_days(pool, now=now)
    pools = msgspec.json.encode(node.pools).decode()
    arguments = (node.name, node.url, node.pid, node.host, node.version, node.level, pools, now)
    for _ in range(_JOIN_TRIES):
        try:
            (row,) = await pool.fetch(_JOIN, *arguments)
        except asyncpg.UniqueViolationError:
            for holder in await pool.fetch(_HOLDER, node.name):
                raise NameHeldError(node.name, **holder) from None
        else:
            incarnation: int = row["incarnation"]
            return incarnation
    raise UnavailableError(f"nodes of the name {node.name} come and go")


async def bury(
    pool: Pool,
    incarnation: int,
    *,
    silent_since: datetime,
    now: datetime,
    lose: Lose = _untold,
) -> None:
    """Declare one incarnation dead, unless it has beaten since; what it ran is lost."""
    await pool.fetch(_BURY, incarnation, silent_since)
    while await _end(pool, silent_s=None, now=now, only=incarnation, lose=lose):
        pass


async def beat(
    pool: Pool,
    incarnation: int,
    *,
    running: dict[str, int],
    leads: dict[int, int],
    clock_offset_s: float,
    ttl_s: float,
) -> Pulse:
    """Say that this node lives; an incarnation that the books do not know is `dead`."""
    (row,) = await pool.fetch(
        _BEAT,
        incarnation,
        msgspec.json.encode(running).decode(),
        msgspec.json.encode(leads).decode(),
        clock_offset_s,
        ttl_s,
        # What hangs must not keep the next from being heard: a TTL of silence is death.
        within_s=max(_BEAT_S_MIN, ttl_s / 2),
    )
    return Pulse(
        state=row["state"],
        house_paused=row["house_paused"],
        leaderships=row["leaderships"],
        peers=msgspec.json.decode(row["peers"], type=tuple[Peer, ...]),
    )


async def leave(pool: Pool, incarnation: int, *, now: datetime, lose: Lose = _untold) -> None:
    """End this incarnation; what it failed to give back is lost, as a dead node's work is."""
    await pool.fetch(_LEAVE, incarnation)
    while await _end(pool, silent_s=None, now=now, only=incarnation, lose=lose):
        pass


async def declare_dead(
    pool: Pool, *, ttl_s: float, now: datetime, lose: Lose = _untold
) -> Sequence[int]:
    """Declare dead who has not beaten for `ttl_s`, and lost what the ended still hold.

    Returns the incarnations that had something to be settled. A node may hold more than
    `LOST_AT_ONCE`, so the caller asks again until there are none.
    """
    if not await pool.fetch(_SILENT_OR_ENDED, ttl_s):
        return []
    return await _end(pool, silent_s=ttl_s, now=now, lose=lose)


async def forget(pool: Pool, *, before: datetime) -> None:
    """Delete incarnations that ended before then.

    What a node ran is kept by the day of its instant, which is no later than the node's end, so
    a day before all that is kept names no row.
    """
    await pool.fetch(_FORGET, before)


async def _end(
    pool: Pool, *, silent_s: float | None, now: datetime, lose: Lose, only: int | None = None
) -> list[int]:
    async def end(session: Session) -> tuple[list[int], int]:
        if only is None:
            await session.execute(_MARK_DEAD, silent_s)
        ended, lost = [row["incarnation"] for row in await session.fetch(_ENDED, only)], 0
        if ended:
            lost = await session.fetchval(_LOSE, ended, now)
            if lost < LOST_AT_ONCE:
                await session.execute(_CLOSE, ended, now)
        return ended, lost

    ended, lost = await pool.transact(end)
    lose(lost)
    return ended
