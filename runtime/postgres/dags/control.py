"""What people do to runs: cancel, pause, resume, retry, mark, and signal.

Each changes rows under the run's lock, in the caller's transaction, and leaves a note by which the
next DagActor that looks does what follows. Who and why is the caller's to write down.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal

import msgspec

from actors.dag import rules
from actors.dag.shape import Shape
from protocols.durations import shown
from protocols.errors import ConflictError, NotFoundError
from runtime.postgres.dags.again import decide_anew, go_on, own_rows, put_back
from runtime.postgres.dags.rows import (
    RunRow,
    TaskRow,
    leave_looks,
    lock_runs,
    read_run,
    write_runs,
)
from runtime.postgres.dags.shapes import read_shape
from runtime.postgres.operations.entries import enter
from runtime.postgres.operations.executions import find_execution
from runtime.postgres.operations.reopen import take_back
from runtime.postgres.operations.session import Connection

# dag_signals_pkey.
_SIGNAL: Final = """
INSERT INTO dag_signals (run, name, tenant, payload, who, at)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (run, name) DO NOTHING
RETURNING name
"""


class Controlled(msgspec.Struct, frozen=True, kw_only=True):
    """A run after it was changed; `tasks` are those that were."""

    run: int
    dag_id: str
    state: str
    tasks: tuple[str, ...] = ()


async def cancel_run(conn: Connection, *, tenant: str, run: str, now: datetime) -> Controlled:
    """Stop a run: what runs is cancelled, what has not begun is skipped, then its `finally` runs.

    One that comes while a handler runs cancels that, but leaves `finally`; where the run was
    cancelled before, that is stopped or skipped, too.

    Raises:
        NotFoundError: there is no such run.
        ConflictError: it is over already, or has not begun.
    """
    record = await _open_run(conn, tenant, run)
    if record.handlers == "running":
        record.reason = rules.AGAIN if record.cancelling else None
    record.cancelling = True
    if record.state == "paused":
        record.state = "running"
    return await _leave(conn, record, now=now)


async def pause_run(
    conn: Connection, *, tenant: str, run: str, reason: str | None = None, now: datetime
) -> Controlled:
    """Start no more tasks of a run; those that run go on. Raises as `cancel_run`."""
    record = await _open_run(conn, tenant, run)
    if record.cancelling:
        raise ConflictError(f"the run {shown(run)} is being cancelled")
    record.state = "paused"
    if record.reason is None or record.reason.startswith(_PAUSED):
        record.reason = None if reason is None else f"{_PAUSED}{reason}"
    return await _leave(conn, record, now=now)


_PAUSED: Final = "paused: "


async def resume_run(conn: Connection, *, tenant: str, run: str, now: datetime) -> Controlled:
    """Let a run go on. Raises as `cancel_run`."""
    record = await _open_run(conn, tenant, run)
    record.state = "running"
    if record.reason is not None and record.reason.startswith(_PAUSED):
        record.reason = None
    return await _leave(conn, record, now=now)


async def retry_tasks(
    conn: Connection,
    *,
    tenant: str,
    run: str,
    tasks: Sequence[str] | Literal["failed"],
    downstream: bool = False,
    now: datetime,
) -> Controlled:
    """Run tasks again that are over, and what follows from them; what succeeded elsewhere stays.

    Args:
        conn: in a transaction of the tenant.
        tenant: whose run it is.
        run: its public id.
        tasks: ids; or `failed`: all that failed, was cancelled, or was skipped as the run stopped.
        downstream: also what succeeded after them.
        now: the instant.

    Raises:
        NotFoundError: there is no such run, or task.
        ConflictError: a task is not over, none has failed, or the run succeeded as a whole, or is
            being stopped, or at its handlers.
    """
    record, shape, rows = await _whole(conn, tenant, run)
    if _stopped(record) or (record.finished_at is None and record.handlers == "running"):
        raise ConflictError(f"the run {shown(run)} is coming to its end: wait until it is over")
    own = own_rows(rows)
    targets: list[int] | Literal["failed"] = "failed"
    if tasks != "failed":
        targets = [_number(shape, name) for name in tasks]
        for number in targets:
            _refuse_handler(shape, number)
            if not own[number].final:
                raise ConflictError(
                    f"{shape.tasks[number].task_id} is {own[number].state}: only a task that is "
                    "over can be retried"
                )
    if downstream and targets != "failed":
        for number in shape.descendants(targets):
            if own[number].state in ("scheduled", "running", "waiting"):
                raise ConflictError(
                    f"{shape.tasks[number].task_id}, which comes after it, is under way"
                )
    chosen = rules.to_reset(shape, own, targets, downstream=downstream)
    if not chosen - set(shape.handlers):
        raise ConflictError(f"no task of the run {shown(run)} has failed")
    await _reopen(conn, record, tenant=tenant, now=now)
    changed = await put_back(conn, record, shape, rows, targets, downstream=downstream, now=now)
    return await _leave(conn, record, changed, shape=shape, now=now)


async def mark_task(
    conn: Connection,
    *,
    tenant: str,
    run: str,
    task: str,
    state: Literal["succeeded", "skipped"],
    who: str,
    result: bytes | None = None,
    now: datetime,
) -> Controlled:
    """Set what became of a task by hand; what was skipped because of it is decided anew.

    A run that is being stopped begins nothing by it; one that was stays as it ended, until what was
    stopped in it is retried.

    Raises:
        NotFoundError: there is no such run, or task.
        ConflictError: the task is under way, or a handler; or the run succeeded as a whole.
    """
    record, shape, rows = await _whole(conn, tenant, run)
    number = _number(shape, task)
    _refuse_handler(shape, number)
    own = own_rows(rows)
    row = own[number]
    if row.state in ("scheduled", "running") or (row.state == "waiting" and row.execution):
        raise ConflictError(f"{task} is under way: cancel its execution first")
    await _reopen(conn, record, tenant=tenant, now=now)
    behind = rules.behind_mark(shape, own, number, stopped=_stopped(record))
    over = record.finished_at is not None
    row.end(state, rules.MARKED)
    row.marked_by, row.finished_at, row.wake_at, row.dirty = who, now, None, True
    row.result = result if result is not None else b"null"
    again = behind | (set(shape.handlers) if over else set())
    await decide_anew(conn, record, shape, own, again)
    stop, cancelling, handlers = record.reason, record.cancelling, record.handlers
    await go_on(conn, record, shape, own, now=now)
    if not over or rules.has_stopped(shape, own):
        record.reason, record.cancelling = stop, cancelling
    if not over:
        record.handlers = handlers
    changed = [row, *(own[n] for n in sorted(behind))]
    return await _leave(conn, record, changed, shape=shape, now=now)


async def send_signal(
    conn: Connection,
    *,
    tenant: str,
    run: str,
    name: str,
    payload: bytes | None,
    who: str,
    now: datetime,
) -> Controlled:
    """Send a signal to a run: a task that waits for it, now or later, has `payload` as its result.

    Raises:
        NotFoundError: there is no such run, or none of its tasks waits for such a signal.
        ConflictError: it was sent already, or the run is over, or has not begun.
    """
    record = await _open_run(conn, tenant, run)
    shape = await read_shape(conn, record.job_key, record.version)
    if name not in shape.waiting_for:
        known = ", ".join(sorted(shape.waiting_for)) or "none"
        raise NotFoundError(f"no task waits for a signal {shown(name)}; signals: {known}")
    if await conn.fetchval(_SIGNAL, record.run, name, tenant, payload, who, now) is None:
        raise ConflictError(f"the run {shown(run)} was sent {shown(name)} already")
    await leave_looks(conn, [(record.run, tenant)], now=now)
    waiting = tuple(shape.tasks[n].task_id for n in shape.waiting_for[name])
    return Controlled(run=record.run, dag_id=record.dag_id, state=record.state, tasks=waiting)


# --- what they share ----------------------------------------------------------------------------


async def _run(conn: Connection, tenant: str, run: str) -> RunRow:
    found = await find_execution(conn, tenant, run)
    rows = await lock_runs(conn, [found["id"]], roots_anew=True)
    if found["id"] not in rows:
        raise ConflictError(f"{shown(run)} is no run of a DAG, or has not begun")
    return rows[found["id"]]


async def _open_run(conn: Connection, tenant: str, run: str) -> RunRow:
    record = await _run(conn, tenant, run)
    if record.finished_at is not None:
        raise ConflictError(f"the run {shown(run)} is over: it {_became(record)}")
    return record


def _stopped(record: RunRow) -> bool:
    """Whether it goes on, and begins nothing more."""
    return record.finished_at is None and (record.cancelling or record.reason in rules.STOPS)


def _became(record: RunRow) -> str:
    return "was cancelled" if record.state == "cancelled" else record.state


async def _whole(conn: Connection, tenant: str, run: str) -> tuple[RunRow, Shape, list[TaskRow]]:
    record = await _run(conn, tenant, run)
    shape = await read_shape(conn, record.job_key, record.version)
    return record, shape, await read_run(conn, record.run)


async def _reopen(conn: Connection, record: RunRow, *, tenant: str, now: datetime) -> None:
    """Have the run's own execution run again, if it has ended."""
    if record.reason == rules.INPUT:
        raise ConflictError("the run's DAG does not take its input: trigger it anew with another")
    if record.finished_at is None or record.born_at is not None:
        return
    entries = await take_back(conn, [record.run], tenant=tenant, now=now)
    if not entries:
        raise ConflictError("the run succeeded, or its DAG was deleted: trigger it anew")
    await enter(conn, entries, tenant=tenant, kind="reopened", now=now)
    record.root_now = entries[0].run


async def _leave(
    conn: Connection,
    record: RunRow,
    changed: Sequence[TaskRow] = (),
    *,
    shape: Shape | None = None,
    now: datetime,
) -> Controlled:
    """Write the run, have it looked at, and say how it is."""
    await write_runs(conn, [record])
    await leave_looks(conn, [(record.run, record.tenant)], now=now)
    names = () if shape is None else tuple(shape.tasks[t.number].task_id for t in changed)
    return Controlled(run=record.run, dag_id=record.dag_id, state=record.state, tasks=names)


def _number(shape: Shape, name: str) -> int:
    number = shape.number_of(name)
    if number is None:
        raise NotFoundError(f"there is no task {shown(name)} in this version of the DAG")
    return number


def _refuse_handler(shape: Shape, number: int) -> None:
    task = shape.tasks[number]
    if task.role != "task":
        raise ConflictError(f"{task.task_id} is a handler: it runs when all else is over")
