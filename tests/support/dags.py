"""DAGs put into a database by hand, and runs of them read back."""

from __future__ import annotations

from datetime import UTC, datetime

import asyncpg
import msgspec

from protocols.dags import POOL, DagTaskSpec, job_id_of
from protocols.jobs import JobSpec
from protocols.tasks import CommandTask

NOW = datetime(2026, 12, 1, 8, tzinfo=UTC)


def task(task_id: str, *dependencies: str, shell: str = "true", **fields) -> DagTaskSpec:
    """A task that runs a command, unless it waits or runs a DAG."""
    if "wait" not in fields and "dag" not in fields:
        fields.setdefault("task", CommandTask(shell=shell))
    given = {"task_id": task_id, "dependencies": dependencies, **fields}
    return msgspec.convert(msgspec.to_builtins(given), DagTaskSpec)


async def define(
    owner: asyncpg.Pool | asyncpg.Connection,
    dag_id: str,
    *tasks: DagTaskSpec,
    on_failure: str = "fail_downstream",
    timeout_s: float | None = None,
    **job: object,
) -> int:
    """Store version 1 of a DAG with these tasks, in topological order; returns its job key."""
    key = await _job(owner, dag_id)
    spec = {"job_id": dag_id, "pool": POOL, "overlap": "allow", "retry": {"max_lost": 32767}}
    spec["task"] = {"type": "none"}
    if timeout_s is not None:
        spec["timeout_s"] = timeout_s
    await _version(owner, key, spec)
    await owner.execute(
        "INSERT INTO dags (job_key, tenant, dag_id, version) VALUES ($1, 'default', $2, 1)",
        key,
        dag_id,
    )
    await owner.execute(
        "INSERT INTO dag_versions (job_key, version, tenant, on_failure, tasks, in_force_at) "
        "VALUES ($1, 1, 'default', $2, $3, $4)",
        key,
        on_failure,
        len(tasks),
        NOW,
    )
    names = [job_id_of(dag_id, t.task_id) for t in tasks]
    keys = [
        row["job_key"]
        for row in await owner.fetch(
            "INSERT INTO jobs (tenant, job_id, source, version, shard, created_at, updated_at) "
            "SELECT 'default', n.name, 's', 1, 0, $2, $2 "
            "FROM unnest($1::text[]) WITH ORDINALITY AS n(name, ord) ORDER BY ord "
            "RETURNING job_key",
            names,
            NOW,
        )
    ]
    specs = [
        msgspec.json.encode(
            JobSpec(job_id=name, task=t.task or CommandTask(shell="true"), overlap="allow", **job)
        ).decode()
        for name, t in zip(names, tasks, strict=True)
    ]
    await owner.executemany(
        "INSERT INTO job_versions (tenant, job_key, version, spec, in_force_at) "
        "VALUES ('default', $1, 1, $2::text::jsonb, $3)",
        [(k, s, NOW) for k, s in zip(keys, specs, strict=True)],
    )
    numbers = {t.task_id: n for n, t in enumerate(tasks)}
    await owner.executemany(
        "INSERT INTO dag_version_tasks (job_key, version, number, tenant, task_id, task_key, "
        "parents, trigger, role, spec) VALUES ($1, 1, $2, 'default', $3, $4, $5, $6, $7, "
        "$8::text::jsonb)",
        [
            (
                key,
                n,
                t.task_id,
                keys[n],
                len(t.dependencies),
                t.trigger,
                t.role,
                msgspec.json.encode(t).decode(),
            )
            for n, t in enumerate(tasks)
        ],
    )
    await owner.executemany(
        "INSERT INTO task_dependencies (job_key, version, parent, child, tenant) "
        "VALUES ($1, 1, $2, $3, 'default')",
        [(key, numbers[d], n) for n, t in enumerate(tasks) for d in t.dependencies],
    )
    return key


async def define_job(owner: asyncpg.Pool | asyncpg.Connection, job_id: str) -> int:
    """Store version 1 of a job that is no DAG; returns its key."""
    key = await _job(owner, job_id)
    spec = JobSpec(job_id=job_id, task=CommandTask(shell="true"), overlap="allow")
    await _version(owner, key, msgspec.to_builtins(spec))
    return key


async def _job(owner, job_id: str) -> int:
    return await owner.fetchval(
        "INSERT INTO jobs (tenant, job_id, source, version, shard, created_at, updated_at) "
        "VALUES ('default', $1, 's', 1, 0, $2, $2) RETURNING job_key",
        job_id,
        NOW,
    )


async def _version(owner, key: int, spec: dict) -> None:
    await owner.execute(
        "INSERT INTO job_versions (tenant, job_key, version, spec, in_force_at) "
        "VALUES ('default', $1, 1, $2::text::jsonb, $3)",
        key,
        msgspec.json.encode(spec).decode(),
        NOW,
    )


async def states(owner, run: int, *, items: bool = False) -> dict[str, str]:
    """The states of a run's tasks, with reasons: `skipped: upstream_failed (a)`."""
    rows = await owner.fetch(
        "SELECT task_id, item, state, reason, cause FROM dag_tasks WHERE run = $1 "
        "AND (item = -1 OR $2) ORDER BY number, item",
        run,
        items,
    )
    return {
        row["task_id"] + (f"[{row['item']}]" if row["item"] >= 0 else ""): _shown(row)
        for row in rows
    }


def _shown(row) -> str:
    shown = row["state"]
    if row["reason"] is not None:
        shown += f": {row['reason']}"
    if row["cause"] is not None:
        shown += f" ({row['cause']})"
    return shown


async def run_state(owner, run: int) -> str:
    """The run's state."""
    return await owner.fetchval("SELECT state FROM dag_runs WHERE run = $1", run)
