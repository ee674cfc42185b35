"""Lets go what waited: turns that came free, parents that finished, `@after` that may count on.

Every step looks at what is committed, not at what it was told, so each may be run by any number
of nodes at once, again after a lost answer, or not at all until the next poll.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from protocols.ports.store import Settled
from runtime.postgres.dependencies import decide, gather
from runtime.postgres.moves import guard, logged
from runtime.postgres.pool import Pool
from runtime.postgres.steps import AT_ONCE, Step, changed, step

JOBS_AT_ONCE: Final = 1_000
"""Jobs with something blocked that one look at all takes in; each costs it 50 to 100 us."""

# Jobs with something blocked, by skipping through executions_blocked from where the last look was.
_JOBS: Final = """
WITH RECURSIVE blocked_jobs (job_key, place) AS (
    (SELECT job_key, 1 FROM executions
    WHERE state = 'blocked' AND job_key > $1
    ORDER BY job_key LIMIT 1)
    UNION ALL
    SELECT (SELECT e.job_key FROM executions e
        WHERE e.state = 'blocked' AND e.job_key > b.job_key
        ORDER BY e.job_key LIMIT 1), b.place + 1
    FROM blocked_jobs b WHERE b.job_key IS NOT NULL AND b.place < $2
)
SELECT job_key FROM blocked_jobs WHERE job_key IS NOT NULL
"""

# executions_delayed: what was asked for later, once that moment has come, waits its turn.
_WAKE = f"""
WITH due AS (
    SELECT id FROM executions
    WHERE state = 'blocked' AND reason = 'delayed' AND run_at <= $1
    ORDER BY run_at LIMIT {AT_ONCE}
), chosen AS MATERIALIZED (
    SELECT e.id, e.job_key, e.pool, CASE e.overlap WHEN 'allow' THEN 'scheduled' ELSE 'blocked' END
        AS state
    FROM (SELECT id FROM due ORDER BY id) AS d
    CROSS JOIN LATERAL (
        SELECT * FROM executions e
        WHERE e.id = d.id AND e.state = 'blocked' AND e.reason = 'delayed'
        FOR UPDATE
    ) AS e
), woken AS (
    UPDATE executions e SET
        state = CASE e.overlap WHEN 'allow' THEN 'scheduled' ELSE 'blocked' END,
        reason = CASE e.overlap WHEN 'allow' THEN NULL ELSE 'overlap' END
    WHERE e.id = ANY(ARRAY(SELECT id FROM chosen)) AND e.state IN {guard("scheduled")}
), told AS (
    {logged("chosen", kind="'settled'", at="$1", states="state")}
)
{changed("chosen", pools="CASE state WHEN 'scheduled' THEN pool END")}
"""

_GRANT = f"""
WITH oldest AS (
    SELECT b.id FROM unnest($1::bigint[]) AS j(job_key)
    CROSS JOIN LATERAL (
        SELECT id FROM executions
        WHERE job_key = j.job_key AND state = 'blocked' AND reason = 'overlap'
        ORDER BY scheduled_for, id LIMIT 1
    ) AS b
    WHERE NOT EXISTS (
        SELECT FROM executions t WHERE t.job_key = j.job_key AND t.holds_turn
    )
    LIMIT {AT_ONCE}
), chosen AS MATERIALIZED (
    SELECT e.id, e.job_key, e.pool
    FROM (SELECT id FROM oldest ORDER BY id) AS o
    CROSS JOIN LATERAL (
        SELECT * FROM executions e
        WHERE e.id = o.id AND e.state = 'blocked' AND e.reason = 'overlap'
        FOR UPDATE
    ) AS e
), granted AS (
    UPDATE executions SET state = 'scheduled', reason = NULL, holds_turn = true
    WHERE id = ANY(ARRAY(SELECT id FROM chosen)) AND state IN {guard("scheduled")}
), told AS (
    {logged("chosen", kind="'settled'", at="$2", states="'scheduled'")}
)
{changed("chosen")}
"""

# schedules_after: those that wait for a finish. It has come as soon as nothing of the schedule is
# left among the hot rows and nobody has the job's turn; a run by hand counts as one, too. Past the
# schedule's end it counts no more, and is looked at no more.
_REARM = f"""
WITH waiting AS MATERIALIZED (
    SELECT s.job_key, s.after_s, s.cursor, greatest(
            coalesce(greatest(fired.finished_at, latest.finished_at), s.cursor)
                + make_interval(secs => s.after_s),
            s.cursor + interval '1 microsecond'
        ) AS next, defined.until
    FROM schedules s
    LEFT JOIN LATERAL (
        SELECT (v.spec -> 'schedule' ->> 'end')::timestamptz AS until FROM job_versions v
        WHERE v.job_key = s.job_key AND v.version = s.version LIMIT 1
    ) AS defined ON true
    LEFT JOIN LATERAL (
        SELECT h.finished_at FROM execution_history h
        WHERE h.job_key = s.job_key AND h.origin = 0
        ORDER BY h.scheduled_for DESC LIMIT 1
    ) AS fired ON true
    LEFT JOIN LATERAL (
        SELECT h.finished_at FROM execution_history h
        WHERE h.job_key = s.job_key
        ORDER BY h.scheduled_for DESC LIMIT 1
    ) AS latest ON true
    WHERE s.after_s IS NOT NULL AND s.next_fire_at IS NULL
        AND ($1::bigint[] IS NULL OR s.job_key = ANY($1))
        AND NOT EXISTS (
            SELECT FROM executions e WHERE e.job_key = s.job_key AND e.origin = 0
            UNION ALL
            SELECT FROM executions e WHERE e.job_key = s.job_key AND e.holds_turn
        )
    LIMIT {AT_ONCE}
), chosen AS MATERIALIZED (
    SELECT w.job_key, w.next, w.until
    FROM (SELECT * FROM waiting ORDER BY job_key) AS w
    CROSS JOIN LATERAL (
        SELECT FROM schedules s
        WHERE s.job_key = w.job_key AND s.next_fire_at IS NULL AND s.after_s = w.after_s
            AND s.cursor = w.cursor
        FOR UPDATE
    ) AS s
), armed AS (
    UPDATE schedules s SET
        next_fire_at = CASE WHEN (c.next > c.until) IS NOT TRUE THEN c.next END,
        after_s = CASE WHEN (c.next > c.until) IS NOT TRUE THEN s.after_s END
    FROM chosen c
    WHERE s.job_key = c.job_key
    RETURNING s.job_key
)
{changed("armed", pools="NULL::text")}
"""


# What there is to look at, in one look: most of the time nothing. Each is a partial index that is
# empty then.
_LOOK_ALL: Final = """
SELECT
    EXISTS (SELECT FROM executions WHERE state = 'blocked') AS blocked,
    EXISTS (
        SELECT FROM executions WHERE state = 'blocked' AND reason = 'delayed' AND run_at <= $1
    ) AS delayed,
    EXISTS (SELECT FROM job_dependencies WHERE met_at IS NOT NULL) AS met,
    EXISTS (SELECT FROM schedules WHERE after_s IS NOT NULL AND next_fire_at IS NULL) AS after
"""
_LOOK_AT: Final = """
SELECT
    EXISTS (
        SELECT FROM executions WHERE state = 'blocked' AND job_key = ANY($2)
        UNION ALL
        SELECT FROM wait_edges WHERE parent_key = ANY($2)
    ) AS blocked,
    EXISTS (
        SELECT FROM executions WHERE state = 'blocked' AND reason = 'delayed' AND run_at <= $1
    ) AS delayed,
    EXISTS (
        SELECT FROM job_dependencies WHERE met_at IS NOT NULL AND child_key = ANY($2)
    ) AS met,
    EXISTS (
        SELECT FROM schedules
        WHERE after_s IS NOT NULL AND next_fire_at IS NULL AND job_key = ANY($2)
    ) AS after
"""


async def settle(
    pool: Pool, job_keys: Sequence[int] | None, *, now: datetime, after: int = 0
) -> Settled:
    """Unblock all that may run now, of these jobs and of those that wait for them, or of all.

    As the port says: of all, the first jobs `after` that key with something blocked.
    """
    here = None if job_keys is None else list(job_keys)
    look = (_LOOK_ALL, now) if here is None else (_LOOK_AT, now, here)
    (seen,) = await pool.fetch(*look)
    steps: list[Step] = []
    jobs, place = [] if here is None else here, 0
    if here is None and seen["blocked"]:
        jobs = [row["job_key"] for row in await pool.fetch(_JOBS, after, JOBS_AT_ONCE)]
        place = jobs[-1] if len(jobs) >= JOBS_AT_ONCE else 0
    if seen["delayed"]:
        steps.append(await step(pool, _WAKE, now))
    if jobs and seen["blocked"]:
        steps += await decide(pool, jobs, now=now)
    if seen["met"]:
        steps.append(await gather(pool, here, now=now))
    if seen["blocked"] or any(one.job_keys for one in steps):
        turns = {*jobs, *(key for one in steps for key in one.job_keys)}
        steps.append(await take_turns(pool, sorted(turns), now=now))
    armed = await step(pool, _REARM, here) if seen["after"] else Step()
    return Settled(
        pools=sorted({name for one in steps for name in one.pools}),
        schedules_changed=armed.done > 0,
        more=any(one.done >= AT_ONCE for one in (*steps, armed)),
        place=place,
    )


async def take_turns(pool: Pool, job_keys: Sequence[int], *, now: datetime) -> Step:
    """Give each free turn of these jobs to what waits for it longest."""
    return await step(pool, _GRANT, job_keys, now)
