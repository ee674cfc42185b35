"""What a dispatcher asks: which lanes have work, and a share of it, each row for one node only."""

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Final

from protocols.instants import from_epoch_ns
from protocols.ports.store import Budget, Claimed, Lane, Lanes
from runtime.postgres.moves import guard
from runtime.postgres.pool import Pool

CLAIMABLE: Final = f"state IN {guard('running')}"

# A loose index scan: one probe of executions_due (executions_due_limited) finds the next lane,
# one more in each lane that is due finds its next row to come. The backlog is never read.
_LANES: Final = f"""
WITH RECURSIVE plain AS (
    (
        SELECT tenant, priority, run_at FROM executions
        WHERE pool = $1 AND {CLAIMABLE} AND limit_key IS NULL AND needs <= $3
        ORDER BY tenant, priority, run_at, id LIMIT 1
    )
    UNION ALL
    SELECT n.* FROM plain p CROSS JOIN LATERAL (
        SELECT e.tenant, e.priority, e.run_at FROM executions e
        WHERE e.pool = $1 AND {CLAIMABLE} AND e.limit_key IS NULL AND e.needs <= $3
            AND (e.tenant, e.priority) > (p.tenant, p.priority)
        ORDER BY e.tenant, e.priority, e.run_at, e.id LIMIT 1
    ) AS n
), limited AS (
    (
        SELECT tenant, priority, limit_key, run_at FROM executions
        WHERE pool = $1 AND {CLAIMABLE} AND limit_key IS NOT NULL AND needs <= $3
        ORDER BY tenant, priority, limit_key, run_at, id LIMIT 1
    )
    UNION ALL
    SELECT n.* FROM limited p CROSS JOIN LATERAL (
        SELECT e.tenant, e.priority, e.limit_key, e.run_at FROM executions e
        WHERE e.pool = $1 AND {CLAIMABLE} AND e.limit_key IS NOT NULL AND e.needs <= $3
            AND (e.tenant, e.priority, e.limit_key) > (p.tenant, p.priority, p.limit_key)
        ORDER BY e.tenant, e.priority, e.limit_key, e.run_at, e.id LIMIT 1
    ) AS n
)
SELECT tenant, priority, NULL::text AS limit_key, run_at <= $2 AS due,
    CASE WHEN run_at > $2 THEN run_at ELSE (
        SELECT e.run_at FROM executions e
        WHERE e.pool = $1 AND {CLAIMABLE} AND e.limit_key IS NULL AND e.needs <= $3
            AND e.tenant = plain.tenant AND e.priority = plain.priority AND e.run_at > $2
        ORDER BY e.run_at LIMIT 1
    ) END AS next_run_at
FROM plain
UNION ALL
SELECT tenant, priority, limit_key, run_at <= $2 AND (
        SELECT cardinality(l.holders) < l.most FROM limits l
        WHERE l.tenant = limited.tenant AND l.limit_key = limited.limit_key
    ),
    CASE WHEN run_at > $2 THEN run_at ELSE (
        SELECT e.run_at FROM executions e
        WHERE e.pool = $1 AND {CLAIMABLE} AND e.limit_key = limited.limit_key AND e.needs <= $3
            AND e.tenant = limited.tenant AND e.priority = limited.priority AND e.run_at > $2
        ORDER BY e.run_at LIMIT 1
    ) END
FROM limited
"""

# `able` locks the node's row against being declared dead, not against its beat: nothing can be
# left running in the name of an incarnation whose executions were declared lost before.
ABLE: Final = """
WITH able AS MATERIALIZED (
    SELECT FROM nodes n
    WHERE n.incarnation = $2 AND n.state = 'up' AND NOT (SELECT h.paused FROM house h)
    FOR KEY SHARE
)"""

# What has expired is the janitor's, who may come to it a moment later than a claim does.
_PLAIN: Final = """
    SELECT e.at
    FROM able
    CROSS JOIN unnest($5::text[], $6::smallint[], $7::integer[]) AS b(tenant, priority, most)
    CROSS JOIN LATERAL (
        SELECT x.ctid AS at FROM executions x
        WHERE x.pool = $1 AND x.{claimable} AND x.limit_key IS NULL AND x.tenant = b.tenant
            AND x.priority = b.priority AND x.run_at <= $3 AND x.needs <= $4
            AND (x.expires_at <= $3) IS NOT TRUE{unrefused}
        ORDER BY x.run_at, x.id
        LIMIT b.most
        FOR UPDATE SKIP LOCKED
    ) AS e"""

# Budgets come in the order of (tenant, limit_key): so are the limits locked. A key that several
# lanes name is shared out by priority.
_LIMITED: Final = """
    SELECT f.at
    FROM (
        SELECT e.at, l.room, row_number() OVER (
            PARTITION BY b.tenant, b.limit_key ORDER BY b.priority, e.run_at, e.id) AS place
        FROM able
        CROSS JOIN unnest(${first}::text[], ${second}::smallint[], ${third}::integer[],
            ${fourth}::text[]) AS b(tenant, priority, most, limit_key)
        CROSS JOIN LATERAL (
            SELECT k.most - cardinality(k.holders) AS room FROM limits k
            WHERE k.tenant = b.tenant AND k.limit_key = b.limit_key
            FOR UPDATE
        ) AS l
        CROSS JOIN LATERAL (
            SELECT x.ctid AS at, x.run_at, x.id FROM executions x
            WHERE x.pool = $1 AND x.{claimable} AND x.limit_key = b.limit_key
                AND x.tenant = b.tenant AND x.priority = b.priority AND x.run_at <= $3
                AND x.needs <= $4 AND (x.expires_at <= $3) IS NOT TRUE{unrefused}
            ORDER BY x.run_at, x.id
            LIMIT greatest(0, least(b.most, l.room))
            FOR UPDATE SKIP LOCKED
        ) AS e
    ) AS f
    WHERE f.place <= f.room"""

# By ctid: the rows are locked, and a second walk down an index would cost as much as the first.
# Instants travel as microseconds: a batch shares most of them, and asyncpg makes each anew.
# One that was changed since the snapshot is not found so, and is merely left for the next claim.
TAKE: Final = """, taken AS (
    UPDATE executions e SET state = 'running', fencing_token = nextval('fencing_tokens'),
        attempt = e.attempt + 1, incarnation = $2, started_at = $3, reason = NULL
    WHERE e.ctid = ANY (ARRAY(SELECT at FROM picked))
    RETURNING e.id, (date_part('epoch', e.created_at) * 1e6)::bigint AS created_us, e.tenant,
        e.job_id, e.job_key, e.version, e.priority,
        (date_part('epoch', e.scheduled_for) * 1e6)::bigint AS scheduled_us, e.attempt,
        e.failures, e.losses, e.fencing_token, e.input, e.limit_key
)"""

HELD: Final = """, held AS (
    UPDATE limits l SET holders = l.holders || t.ids
    FROM (
        SELECT tenant, limit_key, array_agg(id) AS ids FROM taken
        WHERE limit_key IS NOT NULL GROUP BY tenant, limit_key
    ) AS t
    WHERE l.tenant = t.tenant AND l.limit_key = t.limit_key
)"""


@lru_cache
def claim_statement(*, plain: bool, limited: bool, refused: bool) -> str:
    """The statement for what a claim asks for: what it has not costs nothing."""
    number = 7 if plain else 4
    unrefused = ""
    if refused:
        at = number + (4 if limited else 0) + 1
        unrefused = (
            f" AND NOT EXISTS (SELECT FROM unnest(${at}::bigint[], ${at + 1}::integer[]) "
            "AS r(job_key, version) WHERE r.job_key = x.job_key AND r.version = x.version)"
        )
    parts = []
    if plain:
        parts.append(_PLAIN.format(claimable=CLAIMABLE, unrefused=unrefused))
    if limited:
        names = {
            name: number + place
            for place, name in enumerate(("first", "second", "third", "fourth"), 1)
        }
        parts.append(_LIMITED.format(claimable=CLAIMABLE, unrefused=unrefused, **names))
    picked = "\n    UNION ALL".join(parts)
    return (
        f"{ABLE}, picked AS MATERIALIZED ({picked}\n){TAKE}{HELD if limited else ''}"
        "\nSELECT * FROM taken"
    )


@lru_cache(maxsize=1024)  # a batch was mostly born in one statement, for one instant
def _instant(us: int) -> datetime:
    return from_epoch_ns(us * 1000)


async def lanes(pool: Pool, name: str, *, now: datetime, level: int) -> Lanes:
    """As `DispatchStore.lanes`, of the worker pool `name`."""
    rows = await pool.fetch(_LANES, name, now, level)
    coming = [row["next_run_at"] for row in rows if row["next_run_at"] is not None]
    return Lanes(
        tuple(Lane(row["tenant"], row["priority"], row["limit_key"]) for row in rows if row["due"]),
        min(coming, default=None),
    )


async def claim(
    pool: Pool,
    name: str,
    incarnation: int,
    budgets: Sequence[Budget],
    *,
    now: datetime,
    level: int,
    refused: Sequence[tuple[int, int]] = (),
) -> Sequence[Claimed]:
    """As `DispatchStore.claim`, from the worker pool `name`."""
    plain = [b for b in budgets if b.lane.limit_key is None and b.count > 0]
    limited = sorted(
        (b for b in budgets if b.lane.limit_key is not None and b.count > 0),
        key=lambda b: (b.lane.tenant, b.lane.limit_key or "", b.lane.priority),
    )
    if not plain and not limited:
        return ()
    arguments: list[object] = [name, incarnation, now, level]
    if plain:
        arguments += _columns(plain)
    if limited:
        arguments += [*_columns(limited), [b.lane.limit_key for b in limited]]
    if refused:
        arguments += [[key for key, _ in refused], [version for _, version in refused]]
    statement = claim_statement(plain=bool(plain), limited=bool(limited), refused=bool(refused))
    return [
        Claimed(
            id=row[0],
            created_at=_instant(row[1]),
            tenant=row[2],
            job_id=row[3],
            job_key=row[4],
            version=row[5],
            priority=row[6],
            scheduled_for=_instant(row[7]),
            attempt=row[8],
            failures=row[9],
            losses=row[10],
            fencing_token=row[11],
            input=row[12],
        )
        for row in await pool.fetch(statement, *arguments)
    ]


def _columns(budgets: Sequence[Budget]) -> list[object]:
    return [
        [b.lane.tenant for b in budgets],
        [b.lane.priority for b in budgets],
        [b.count for b in budgets],
    ]
