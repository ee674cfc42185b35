"""What a DagActor does with runs: begin them, take account of what ended, wake, and end them."""

import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Final

import asyncpg
import msgspec

from actors.dag import rules
from protocols.dags import FINAL_RUN
from protocols.instants import to_epoch_ns
from protocols.ports.store import Finish
from protocols.ports.store.dags import Advanced, Glance
from runtime.postgres.dags.again import put_back
from runtime.postgres.dags.begin import make_runs
from runtime.postgres.dags.ends import Ended, Turned
from runtime.postgres.dags.inputs import why_refused
from runtime.postgres.dags.progress import Turn
from runtime.postgres.dags.rows import leave_looks, lock_runs, read_run, write_runs
from runtime.postgres.dags.shapes import Shapes
from runtime.postgres.dags.starting import by_turns
from runtime.postgres.finish import finish
from runtime.postgres.pool import Pool, Session

_NAMES_MAX: Final = 10
LOOKED_AT_ONCE: Final = 5_000
"""Tasks that the looks of one turn read, unless one run has more: a look reads its whole run."""
COSTLY_AT_ONCE: Final = 100
"""Tasks with expressions that the looks of one turn decide to start: it has time for no more."""

# Of a turn, which may work out expressions for some seconds before its next statement.
_PATIENT: Final = "set_config('idle_in_transaction_session_timeout', '20s', true)"


# dag_ended_pkey, then dag_tasks_execution. It is not waited for until it is on disk: what is built
# on it commits after it, and what a crash takes back is found again.
def _taking(order: str) -> str:
    return f"""
WITH ends AS MATERIALIZED (
    SELECT execution, state, reason, started_at, finished_at, result FROM dag_ended
    WHERE execution > 0 ORDER BY execution LIMIT $1 FOR UPDATE SKIP LOCKED
), looks AS MATERIALIZED (
    SELECT execution, state, reason, started_at, finished_at, result FROM dag_ended
    WHERE execution < 0 ORDER BY execution {order} LIMIT $1 FOR UPDATE SKIP LOCKED
), taken AS (
    SELECT * FROM ends UNION ALL SELECT * FROM looks
)
SELECT t.*, k.run, k.number, k.item, set_config('synchronous_commit', 'off', true),
    {_PATIENT}
FROM taken t
LEFT JOIN LATERAL (
    SELECT x.run, x.number, x.item FROM dag_tasks x WHERE x.execution = t.execution LIMIT 1
) AS k ON true
"""


# Looks that are left come back: where there are too many, none is to be always the last.
_TAKE: Final = _taking("ASC")
_TAKE_BACKWARDS: Final = _taking("DESC")
_LAZY: Final = f"SELECT set_config('synchronous_commit', 'off', true), {_PATIENT}"

# dag_tasks_wake; dag_runs_open, as many rows as there are open runs.
_DUE: Final = """
SELECT w.run, w.number, w.item FROM dag_tasks w
WHERE w.wake_at <= $1 AND w.wake_at IS NOT NULL AND w.state = 'waiting'
ORDER BY w.wake_at LIMIT $2
"""
_LATE: Final = """
SELECT r.run FROM dag_runs r
WHERE r.finished_at IS NULL AND r.deadline <= $1 AND r.handlers = 'none'
    AND r.reason IS DISTINCT FROM 'timeout' AND NOT r.cancelling
ORDER BY r.run LIMIT $2
"""
# What is first of either, due or to come, and whether a hint was missed. dag_ended_pkey.
_GLANCE: Final = """
SELECT (
    SELECT w.wake_at FROM dag_tasks w
    WHERE w.wake_at IS NOT NULL AND w.state = 'waiting'
    ORDER BY w.wake_at LIMIT 1
) AS wake_at, (
    SELECT min(r.deadline) FROM dag_runs r
    WHERE r.finished_at IS NULL AND r.handlers = 'none' AND NOT r.cancelling
        AND r.reason IS DISTINCT FROM 'timeout'
) AS deadline, (
    SELECT e.execution FROM dag_ended e ORDER BY e.execution LIMIT 1
) IS NOT NULL AS ends
"""

# dag_tasks_pkey.
_FAILED: Final = """
SELECT k.task_id FROM dag_tasks k
WHERE k.run = $1 AND k.item = -1 AND k.state = 'failed'
ORDER BY k.run, k.number LIMIT $2
"""
_OVER: Final = """
SELECT u.run FROM unnest($1::bigint[]) AS u(run)
CROSS JOIN LATERAL (
    SELECT FROM dag_runs r WHERE r.run = u.run AND r.finished_at IS NOT NULL LIMIT 1
) AS r
"""


async def begin(
    pool: Pool,
    shapes: Shapes,
    incarnation: int,
    roots: Sequence[tuple[int, int]],
    *,
    now: datetime,
) -> Advanced:
    """As `DagStore.begin_runs`.

    Waited for until it is on disk: who holds the root does not look whether its run is still there.
    """
    more = False

    async def work(session: Session) -> Turned:
        nonlocal more
        await session.execute(f"SELECT {_PATIENT}")
        await make_runs(session, incarnation, roots, now=now)
        turn = Turn(session, shapes, now=now)
        await turn.lock(root for root, _ in roots)
        # Whoever has one of these run again: it stays as it ended, since its input does.
        refused = {
            run.run: run
            for run in turn.runs.values()
            if run.finished_at is not None and run.reason == rules.INPUT
        }
        for run in turn.runs.values():
            if run.run in refused:
                run.root_run = run.root_now or run.root_run
            elif run.finished_at is not None and (run.root_now or 0) > run.root_run:
                # Somebody had the run's own execution run again: as if they had retried its tasks.
                rows = await read_run(session, run.run)
                await put_back(
                    session, run, turn.shapes[run.run], rows, "failed", downstream=False, now=now
                )
        left = await _look(turn, sorted(turn.runs))
        await leave_looks(session, [(run, turn.runs[run].tenant) for run in left], now=now)
        more = bool(left)
        turned = await turn.settle()
        if not refused:
            return turned
        await write_runs(session, refused.values())
        return msgspec.structs.replace(turned, over=(*turned.over, *refused))

    return _told(await _transact(pool, work), more=more)


async def advance(pool: Pool, shapes: Shapes, *, now: datetime, limit: int) -> Advanced:
    """As `DagStore.advance`."""
    more = False

    async def work(session: Session) -> Turned:
        nonlocal more
        rows = await session.fetch(random.choice((_TAKE, _TAKE_BACKWARDS)), limit)  # noqa: S311 - fairness
        taken_looks = sum(row["execution"] < 0 for row in rows)
        more = max(taken_looks, len(rows) - taken_looks) >= limit
        if not rows:
            return Turned()
        # Who was looked at in vain, and left, comes after all who were not.
        looks = [abs(row["execution"]) for row in sorted(rows, key=itemgetter("finished_at"))]
        turn = Turn(session, shapes, now=now)
        located = [row for row in rows if row["run"] is not None]
        # What is no task's is a run's own, or that of a task that was begun anew since; and a run
        # whose own execution has ended must not go on without it.
        alone = {
            row["execution"] for row in rows if row["run"] is None or row["state"] != "succeeded"
        }
        await turn.lock({row["run"] for row in located} | {abs(key) for key in alone})
        await turn.end([_ended(row) for row in located])
        left = await _look(turn, [run for run in dict.fromkeys(looks) if run in turn.runs])
        more = more or bool(left)
        turn.accounted = [row["execution"] for row in rows if abs(row["execution"]) not in left]
        return await turn.settle()

    return _told(await _transact(pool, work), more=more)


async def _look(turn: Turn, runs: Sequence[int]) -> set[int]:
    """Look at these runs, as many as a turn has the time for, by turns of tenants; the others."""
    size, left = 0, set()
    for run in by_turns(runs, lambda run: turn.runs[run].tenant):
        tasks = 0 if turn.runs[run].finished_at is not None else len(turn.shapes[run].tasks)
        if size and (size + tasks > LOOKED_AT_ONCE or turn.costly >= COSTLY_AT_ONCE):
            left.add(run)
            continue
        await turn.look(run)
        size += max(tasks, len(turn.by_run[run]))
    return left


async def glance(pool: Pool) -> Glance:
    """As `DagStore.glance`."""
    (row,) = await pool.fetch(_GLANCE)
    instants = [at for at in (row["wake_at"], row["deadline"]) if at is not None]
    return Glance(next_at=min(instants, default=None), ends=row["ends"])


async def wake(pool: Pool, shapes: Shapes, *, now: datetime, limit: int) -> Advanced:
    """As `DagStore.wake`."""
    due = await pool.fetch(_DUE, now, limit)
    late = await pool.fetch(_LATE, now, limit)
    if not due and not late:
        return Advanced()

    async def work(session: Session) -> Turned:
        await session.execute(_LAZY)
        turn = Turn(session, shapes, now=now)
        await turn.lock({row["run"] for row in (*due, *late)})
        keys = [(row["run"], row["number"], row["item"]) for row in due]
        await turn.wake([key for key in keys if key[0] in turn.runs])
        for row in late:
            await turn.expire(row["run"])
        return await turn.settle()

    more = len(due) >= limit or len(late) >= limit
    return _told(await _transact(pool, work), more=more)


async def over(pool: Pool, runs: Sequence[int]) -> Sequence[int]:
    """As `DagStore.runs_over`."""
    return [row["run"] for row in await pool.fetch(_OVER, sorted(runs))] if runs else []


async def finish_roots(
    pool: Pool, incarnation: int, roots: Sequence[tuple[int, int]], *, now: datetime
) -> tuple[Sequence[int], Sequence[int]]:
    """As `DagStore.finish_runs`.

    Under the runs' locks: one that a retry has opened again meanwhile is left alone, and so is one
    whose own execution was run again, until `begin` has made a retry of that.
    """
    tokens = dict(roots)

    async def work(session: Session) -> tuple[Sequence[int], Sequence[int]]:
        runs = await lock_runs(session, tokens)
        ends = []
        for run in runs.values():
            if run.state not in FINAL_RUN or (run.root_now or 0) > run.root_run:
                continue
            failed = run.state == "failed"
            ends.append(
                Finish(
                    id=run.run,
                    fencing_token=tokens[run.run],
                    attempt_state="succeeded"
                    if run.state == "succeeded"
                    else ("cancelled" if run.state == "cancelled" else "failed"),
                    state="succeeded"
                    if run.state == "succeeded"
                    else ("cancelled" if run.state == "cancelled" else "dead"),
                    started_ns=to_epoch_ns(run.started_at),
                    finished_ns=to_epoch_ns(run.finished_at or now),
                    reason=("timed_out" if run.reason == "timeout" else "failed")
                    if failed
                    else ("cancelled" if run.state == "cancelled" else None),
                    error=await _error(session, run.run, run.reason) if failed else None,
                )
            )
        done = await finish(session, incarnation, ends)
        return [end.id for end in ends], done.followers

    return await pool.transact(work)


async def _error(session: Session, run: int, reason: str | None) -> str:
    rows = await session.fetch(_FAILED, run, _NAMES_MAX + 1)
    names = [row["task_id"] for row in rows[:_NAMES_MAX]]
    more = ", and others" if len(rows) > _NAMES_MAX else ""
    if reason == rules.INPUT:
        return await why_refused(session, run)
    parts = ["the run took longer than its timeout"] if reason == "timeout" else []
    if reason == "fail_fast" and not names:
        parts.append("fail_fast stopped it")
    if names:
        parts.append(f"failed: {', '.join(names)}{more}")
    return "; ".join(parts)


async def _transact(pool: Pool, work: Callable[[Session], Awaitable[Turned]]) -> Turned:
    """A turn that a job's turn was taken from meanwhile is run again, as any that lost a race."""
    return await pool.transact(work, also=(asyncpg.UniqueViolationError,))


def _ended(row: asyncpg.Record) -> Ended:
    return Ended(
        execution=row["execution"],
        key=(row["run"], row["number"], row["item"]),
        state=row["state"],
        reason=row["reason"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        result=row["result"],
    )


def _told(turned: Turned, *, more: bool) -> Advanced:
    return Advanced(
        pools=turned.pools, over=turned.over, asked=turned.asked, more=more or turned.more
    )
