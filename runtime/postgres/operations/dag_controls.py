"""Changes of runs by people's hands, each with its audit row in the same transaction."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Literal

from protocols.dag_views import RunControlled
from runtime.postgres.dags import control
from runtime.postgres.operations.audit import counted, record
from runtime.postgres.operations.cancel import cancel_execution
from runtime.postgres.operations.dag_runs import find_run
from runtime.postgres.operations.session import Connection

# Index: dag_runs_pkey.
_BEGUN: Final = "SELECT true FROM dag_runs WHERE tenant = $1 AND run = $2"


async def cancel_run(
    conn: Connection, *, tenant: str, run: str, who: str, now: datetime
) -> RunControlled:
    """Cancel a run: what has not begun is skipped, what runs is stopped, then `finally` runs.

    A run that has not begun is cancelled as the execution that it still is.

    Raises:
        NotFoundError: there is no such run.
        ConflictError: it is over already.
    """
    root = await find_run(conn, tenant, run)
    if not await conn.fetchval(_BEGUN, tenant, root["id"]):
        done = await cancel_execution(conn, tenant=tenant, execution=run, who=who, now=now)
        return RunControlled(
            run_id=run, dag_id=root["job_id"], state=done.execution.state, tasks=()
        )
    changed = await control.cancel_run(conn, tenant=tenant, run=run, now=now)
    return await _told(conn, "cancel run", changed, tenant=tenant, run=run, who=who, now=now)


async def pause_run(
    conn: Connection, *, tenant: str, run: str, reason: str | None, who: str, now: datetime
) -> RunControlled:
    """Let nothing more of a run begin; what runs goes on. As `cancel_run`."""
    changed = await control.pause_run(conn, tenant=tenant, run=run, reason=reason, now=now)
    detail = {} if reason is None else {"reason": reason}
    return await _told(
        conn, "pause run", changed, tenant=tenant, run=run, who=who, now=now, detail=detail
    )


async def resume_run(
    conn: Connection, *, tenant: str, run: str, who: str, now: datetime
) -> RunControlled:
    """Let a paused run go on. As `cancel_run`."""
    changed = await control.resume_run(conn, tenant=tenant, run=run, now=now)
    return await _told(conn, "resume run", changed, tenant=tenant, run=run, who=who, now=now)


async def retry_tasks(
    conn: Connection,
    *,
    tenant: str,
    run: str,
    tasks: Sequence[str] | Literal["failed"],
    downstream: bool,
    who: str,
    now: datetime,
) -> RunControlled:
    """Run tasks again, and what follows from them; what succeeded elsewhere is left alone.

    Raises:
        NotFoundError: there is no such run, or no such task.
        ConflictError: nothing of it can be run again now.
    """
    changed = await control.retry_tasks(
        conn, tenant=tenant, run=run, tasks=tasks, downstream=downstream, now=now
    )
    asked = tasks if tasks == "failed" else list(tasks)
    return await _told(
        conn,
        "retry run",
        changed,
        tenant=tenant,
        run=run,
        who=who,
        now=now,
        detail={"tasks": asked, "downstream": downstream, "put_back": counted(changed.tasks)},
    )


async def mark_task(
    conn: Connection,
    *,
    tenant: str,
    run: str,
    task: str,
    state: Literal["succeeded", "skipped"],
    reason: str,
    result: bytes | None,
    who: str,
    now: datetime,
) -> RunControlled:
    """Set a task's state by hand, and decide anew what hung on it.

    Raises:
        NotFoundError: there is no such run, or no such task.
        ConflictError: the task runs.
    """
    changed = await control.mark_task(
        conn, tenant=tenant, run=run, task=task, state=state, who=who, result=result, now=now
    )
    return await _told(
        conn,
        "mark task",
        changed,
        tenant=tenant,
        run=run,
        who=who,
        now=now,
        detail={"task": task, "state": state, "reason": reason},
    )


async def send_signal(
    conn: Connection,
    *,
    tenant: str,
    run: str,
    name: str,
    payload: bytes | None,
    who: str,
    now: datetime,
) -> RunControlled:
    """Send a run a signal, once under each name; a task that waits for it succeeds.

    Raises:
        NotFoundError: there is no such run.
        ConflictError: the run is over, or was sent that signal already.
    """
    changed = await control.send_signal(
        conn, tenant=tenant, run=run, name=name, payload=payload, who=who, now=now
    )
    return await _told(
        conn,
        "signal run",
        changed,
        tenant=tenant,
        run=run,
        who=who,
        now=now,
        detail={"signal": name},
    )


async def _told(
    conn: Connection,
    action: str,
    changed: control.Controlled,
    *,
    tenant: str,
    run: str,
    who: str,
    now: datetime,
    detail: dict[str, Any] | None = None,
) -> RunControlled:
    await record(
        conn,
        tenant=tenant,
        who=who,
        action=action,
        target=run,
        detail={"dag_id": changed.dag_id, **(detail or {})},
        now=now,
    )
    return RunControlled(
        run_id=run, dag_id=changed.dag_id, state=changed.state, tasks=changed.tasks
    )
