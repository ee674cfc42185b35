"""P1's yardstick: plain SQL that drains the product's own tables, in the same batches of 500.

Nothing here runs a job, keeps a limit or knows an actor: a claim, a finish with its event row, both
durable, on two sessions, overlapped. What the product drains in the same database is held against
it. Claims leave no event, as in the product.
"""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg
import msgspec
import uvloop

from runtime.postgres.pool import Session
from scripts.bench.report import ROOT, summary
from scripts.bench.server import postgres

BATCH: Final = 500
TENANT: Final = "bench"
POOL: Final = "yardstick"
NORMAL: Final = 2

# Plans are pinned: the statistics of a table that fills and empties are wrong at some hour.
SESSION: Final = {
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_material": "off",
}

INSERT: Final = """
WITH added AS (
    INSERT INTO executions (id, created_at, tenant, job_id, job_key, version, origin,
        scheduled_for, pool, priority, state, overlap, run_at, input)
    SELECT id, $2, $3, 'noop', $4, 1, id, $2, $5, $6, 'scheduled', 'allow', $2, '{}'
    FROM (SELECT nextval('execution_ids') AS id FROM generate_series(1, $1)) AS new
    RETURNING id, job_key
)
INSERT INTO events (at, kind, ids, job_keys)
SELECT $2, 'triggered', array_agg(id), array_agg(job_key) FROM added
"""

# Served by executions_due.
CLAIM: Final = f"""
WITH picked AS MATERIALIZED (
    SELECT ctid FROM executions
    WHERE pool = $1 AND tenant = $2 AND priority = $3
      AND state = 'scheduled' AND limit_key IS NULL AND run_at <= $4
    ORDER BY run_at, id LIMIT {BATCH} FOR UPDATE SKIP LOCKED
),
taken AS (
    UPDATE executions AS e SET state = 'running', fencing_token = nextval('fencing_tokens'),
        incarnation = $5, attempt = attempt + 1, started_at = $6
    WHERE e.ctid = ANY (ARRAY(SELECT ctid FROM picked))
    RETURNING e.id, e.fencing_token, e.created_at, e.tenant, e.job_id, e.job_key, e.version,
        e.scheduled_for, e.attempt, e.failures, e.losses, e.input
)
SELECT * FROM taken
"""

# Served by executions_pkey, whatever the statistics say: a clause with ANY is no merge clause, so
# that a walk over a whole index in join order is not even considered.
FINISH: Final = """
WITH gone AS (
    DELETE FROM executions AS e
    USING unnest($1::bigint[], $2::bigint[], $3::text[], $4::timestamptz[], $5::timestamptz[],
        $6::integer[], $7::text[], $8::bytea[])
        AS d(id, token, state, started_at, finished_at, exit_code, error, result)
    WHERE e.id = ANY (ARRAY[d.id]) AND e.fencing_token = d.token
    RETURNING e.*, d.state AS final, d.started_at AS began, d.finished_at, d.exit_code, d.error,
        d.result
),
kept AS (
    INSERT INTO execution_history (id, created_at, tenant, job_id, job_key, version, needs, origin,
        scheduled_for, run, pool, priority, state, reason, attempt, failures, losses,
        fencing_token, incarnation, started_at, finished_at, exit_code, error, result, input)
    SELECT id, created_at, tenant, job_id, job_key, version, needs, origin, scheduled_for, run,
        pool, priority, final, NULL, attempt, failures, losses, fencing_token, incarnation, began,
        finished_at, exit_code, error, result, input FROM gone
),
event AS (
    INSERT INTO events (at, kind, ids, job_keys, states)
    SELECT $9, 'finished', array_agg(id), array_agg(job_key), array_agg(final)
    FROM gone HAVING count(*) > 0
)
SELECT id FROM gone
"""

FINISHED_ROWS: Final = """
INSERT INTO {partition} (id, created_at, tenant, job_id, job_key, version, origin, scheduled_for,
    pool, priority, state, attempt, fencing_token, incarnation, started_at, finished_at, result,
    input)
SELECT -g, at, 'bench', 'noop', 1, 1, -g, at, 'default', 2,
    CASE WHEN g % 100 = 0 THEN 'dead' ELSE 'succeeded' END, 1, g, 1, at, at, 'null', '{{}}'
FROM generate_series(1, $1::bigint) AS g,
    LATERAL (SELECT $2::timestamptz + g * interval '1 millisecond' AS at) AS t
"""


class Drained(msgspec.Struct, frozen=True, kw_only=True):
    """One drain: from the first claim to the last durable finish."""

    jobs: int
    seconds: float
    claim_s: list[float]
    finish_s: list[float]

    @property
    def jobs_per_s(self) -> float:
        """What P1 compares."""
        return self.jobs / self.seconds


async def fill(db: Session, jobs: int, *, now: datetime, job_key: int = 1) -> None:
    """Insert `jobs` due executions, outside the time that is measured."""
    for low in range(0, jobs, BATCH):
        count = min(BATCH, jobs - low)
        await db.execute(INSERT, count, now, TENANT, job_key, POOL, NORMAL)


async def bury(db: asyncpg.Connection, rows: int, *, day: datetime) -> None:
    """Put `rows` finished executions into `day`'s partition of history.

    A partition that is not there yet is filled before it is attached, so that its indexes are
    built once and not row by row: ten million take two minutes instead of ten.
    """
    partition = f"execution_history_{day:%Y%m%d}"
    missing = await db.fetchval("SELECT to_regclass($1) IS NULL", partition)
    if missing:
        await db.execute(
            f"CREATE TABLE {partition} (LIKE execution_history INCLUDING DEFAULTS "
            "INCLUDING CONSTRAINTS)"
        )
    await db.execute("SET synchronous_commit = off")
    await db.execute(FINISHED_ROWS.format(partition=partition), rows, day)
    await db.execute("RESET synchronous_commit")
    if missing:
        await db.execute(
            f"ALTER TABLE execution_history ATTACH PARTITION {partition} "
            f"FOR VALUES FROM ('{day}') TO ('{day + timedelta(days=1)}')"
        )
    await db.execute(f"VACUUM ANALYZE {partition}")


async def take(db: Session, *, now: datetime) -> list[asyncpg.Record]:
    """Claim a batch of what `fill` inserted."""
    return await db.fetch(CLAIM, POOL, TENANT, NORMAL, now, 1, now)


async def end(db: Session, got: list[asyncpg.Record], *, now: datetime) -> int:
    """Finish what was claimed; how many there were."""
    return len(await db.fetch(FINISH, *_done(got, now)))


async def drain(claims: Session, finishes: Session, jobs: int, *, now: datetime) -> Drained:
    """Drain what `fill` inserted: claim on one session, finish on the other, both at once."""
    claimed: asyncio.Queue[list[asyncpg.Record]] = asyncio.Queue(4)
    claim_s: list[float] = []
    finish_s: list[float] = []

    async def claiming() -> None:
        taken = 0
        while taken < jobs:
            began = time.perf_counter()
            got = await take(claims, now=now)
            claim_s.append(time.perf_counter() - began)
            if not got:
                raise RuntimeError(f"only {taken} of {jobs} executions could be claimed")
            taken += len(got)
            await claimed.put(got)

    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        claimer = group.create_task(claiming())
        left = jobs
        while left:
            got = await claimed.get()
            began = time.perf_counter()
            left -= await end(finishes, got, now=now)
            finish_s.append(time.perf_counter() - began)
        seconds = time.perf_counter() - start
        await claimer
    return Drained(jobs=jobs, seconds=seconds, claim_s=claim_s, finish_s=finish_s)


def _done(got: list[asyncpg.Record], now: datetime) -> list[Any]:
    """Arguments of one finish, in id order, so that two finishes cannot deadlock."""
    count = len(got)
    got = sorted(got, key=lambda row: row[0])
    return [
        [row[0] for row in got],
        [row[1] for row in got],
        ["succeeded"] * count,
        [now] * count,
        [now] * count,
        [None] * count,
        [None] * count,
        [b"null"] * count,
        now,
    ]


SCHEMA: Final = ROOT / "runtime" / "postgres" / "schema"
DAY: Final = datetime(2026, 1, 15, tzinfo=UTC)


async def _all(socket: str, repeat: int, finished: int, jobs: int) -> dict[str, Any]:
    async def session(database: str, **settings: str) -> asyncpg.Connection:
        return await asyncpg.connect(
            host=socket, user="postgres", database=database, server_settings=settings
        )

    owner = await session("postgres")
    names = {"empty history": "empty", f"behind {finished} finished rows": "full"}
    for name in names.values() if finished else ("empty",):
        await owner.execute(f'CREATE DATABASE "{name}"')
        db = await session(name)
        for part in sorted(SCHEMA.glob("*.sql")):
            await db.execute(part.read_text(encoding="utf-8"))
        await bury(db, finished if name == "full" else 0, day=DAY)
        await db.close()
    await owner.close()
    now = DAY + timedelta(hours=20)
    rates: dict[str, list[float]] = {}
    for _ in range(repeat):
        for title, name in names.items():
            if name == "full" and not finished:
                continue
            claims, finishes = await session(name, **SESSION), await session(name, **SESSION)
            await fill(claims, jobs, now=now)
            measured = await drain(claims, finishes, jobs, now=now)
            rates.setdefault(title, []).append(measured.jobs_per_s)
            await claims.close()
            await finishes.close()
    return {title: {"jobs_per_s": summary(values)} for title, values in rates.items()}


def run(*, repeat: int, finished: int = 0, jobs: int = 100_000) -> dict[str, Any]:
    """The yardstick alone, on the product's schema in a throw-away server."""
    with postgres() as socket:
        figures = uvloop.run(_all(socket, repeat, finished, jobs))
    return {"name": "yardstick", "what": f"plain SQL drain of {jobs} jobs", **figures}
