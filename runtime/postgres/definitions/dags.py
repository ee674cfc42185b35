"""Writes what DAGs are: their versions, their tasks and what each waits for; checks sub-DAGs.

The tasks themselves are hidden jobs, and are written as jobs are. All that there is of a DAG has
one version number, so that a run which keeps its version keeps that of every task.
"""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from itertools import pairwise
from typing import Final

import msgspec

from protocols.dags import DagTask, dag_of, is_hidden, job_id_of
from protocols.durations import shown
from protocols.errors import InvalidError, Problem
from protocols.jobs import JobSpec
from protocols.nearest import Nearest
from runtime.postgres.definitions.dependencies import find_cycle
from runtime.postgres.definitions.stored import StoredJob, chunks
from runtime.postgres.definitions.write import Change
from runtime.postgres.operations.session import Connection

_DAGS: Final = """
INSERT INTO dags (job_key, tenant, dag_id, version)
SELECT n.job_key, $1, n.dag_id, n.version
FROM unnest($2::bigint[], $3::text[], $4::integer[]) AS n (job_key, dag_id, version)
ON CONFLICT (job_key) DO UPDATE SET version = excluded.version
"""
# Jobs that were DAGs, and are others now.
_NO_DAGS: Final = "DELETE FROM dags WHERE job_key = ANY($1::bigint[])"
_VERSIONS: Final = """
INSERT INTO dag_versions (job_key, version, tenant, on_failure, tasks, in_force_at)
SELECT n.job_key, n.version, $1, n.on_failure, n.tasks, $2
FROM unnest($3::bigint[], $4::integer[], $5::text[], $6::integer[])
    AS n (job_key, version, on_failure, tasks)
"""
_TASKS: Final = """
INSERT INTO dag_version_tasks (
    job_key, version, number, tenant, task_id, task_key, parents, trigger, role, spec
)
SELECT $1, $2, n.number, $3, n.task_id, n.task_key, n.parents, n.trigger, n.role, n.spec::jsonb
FROM unnest($4::integer[], $5::text[], $6::bigint[], $7::integer[], $8::text[], $9::text[],
    $10::text[]) AS n (number, task_id, task_key, parents, trigger, role, spec)
"""
_EDGES: Final = """
INSERT INTO task_dependencies (job_key, version, parent, child, tenant)
SELECT $1, $2, n.parent, n.child, $3
FROM unnest($4::integer[], $5::integer[]) AS n (parent, child)
"""

# The tasks of DAGs that come into a new version for another reason than their file.
# Indexes: jobs_name, dags_pkey, dag_version_tasks_pkey.
_IN_FORCE: Final = """
SELECT j.source, v.spec::text AS spec
FROM unnest($2::text[]) AS n (dag_id)
JOIN dags d ON d.tenant = $1 AND d.dag_id = n.dag_id
JOIN dag_version_tasks t ON t.job_key = d.job_key AND t.version = d.version
JOIN jobs j ON j.job_key = t.task_key
JOIN job_versions v ON v.job_key = t.task_key AND v.version = t.version
"""

# Which DAG of a tenant runs which other. Indexes: dags_name, dag_version_tasks_sub.
_SUB_DAGS: Final = """
SELECT d.dag_id, t.task_id, t.spec -> 'dag' ->> 'dag_id' AS runs
FROM dags d
JOIN dag_version_tasks t ON t.tenant = $1 AND t.job_key = d.job_key AND t.version = d.version
    AND jsonb_exists(t.spec, 'dag')
WHERE d.tenant = $1
"""
_ALL_DAGS: Final = "SELECT dag_id FROM dags WHERE tenant = $1"


def grown_dags(specs: Sequence[JobSpec], stored: Mapping[str, StoredJob]) -> dict[str, int]:
    """The next version of every DAG of which anything is new or differs."""
    dags = {spec.job_id for spec in specs if isinstance(spec.task, DagTask)}
    changed = set()
    for spec in specs:
        old = stored.get(spec.job_id)
        if old is None or old.spec is not None:
            changed.add(dag_of(spec.job_id))
    versions = {}
    for dag_id in dags & changed:
        before = stored.get(dag_id)
        versions[dag_id] = 1 if before is None else before.version + 1
    return versions


async def read_tasks(
    conn: Connection, tenant: str, jobs: Sequence[JobSpec]
) -> list[tuple[str, JobSpec]]:
    """(source, version in force) of the hidden jobs of those of these jobs that are DAGs."""
    dags = [spec.job_id for spec in jobs if isinstance(spec.task, DagTask)]
    if not dags:
        return []
    return [
        (row["source"], msgspec.json.decode(row["spec"], type=JobSpec))
        for row in await conn.fetch(_IN_FORCE, tenant, dags)
    ]


async def check_dags(
    conn: Connection, tenant: str, jobs: Sequence[JobSpec], *, dropped: Mapping[str, int]
) -> None:
    """Hold the sub-DAGs that these name against what is there.

    Args:
        conn: within a transaction of the tenant.
        tenant: whose.
        jobs: what is applied; a problem's path begins with `jobs` and its place here.
        dropped: what is deleted at the same time.

    Raises:
        InvalidError: A sub-DAG is unknown, or DAGs run each other in a circle.
    """
    given = {spec.job_id for spec in jobs if not is_hidden(spec.job_id)}
    runs = sub_dags(jobs)
    if not runs:
        return
    dags = {spec.job_id for spec in jobs if isinstance(spec.task, DagTask)}
    stored = {row["dag_id"] for row in await conn.fetch(_ALL_DAGS, tenant)}
    known = dags | (stored - given - dropped.keys())
    problems = sub_dag_problems(jobs, known)
    if problems:
        raise InvalidError(tuple(problems))
    for row in await conn.fetch(_SUB_DAGS, tenant):
        if row["dag_id"] not in given:
            runs.setdefault(row["dag_id"], set()).add(row["runs"])
    problem = sub_dag_cycle(jobs, runs)
    if problem is not None:
        raise InvalidError((problem,))


def sub_dags(jobs: Sequence[JobSpec]) -> dict[str, set[str]]:
    """Which of these DAGs runs which others, by ids."""
    found: dict[str, set[str]] = {}
    for _, dag_id, _, runs in _named(jobs):
        found.setdefault(dag_id, set()).add(runs)
    return found


def sub_dag_problems(jobs: Sequence[JobSpec], known: AbstractSet[str]) -> list[Problem]:
    """A problem for each sub-DAG that is not known, at the task that names it."""
    places = {spec.job_id: number for number, spec in enumerate(jobs)}
    nearest = Nearest(sorted(known))
    problems = []
    for number, dag_id, task_id, runs in _named(jobs):
        if runs in known:
            continue
        near = nearest.to(runs)
        hint = f": did you mean {shown(near)}?" if near else ""
        place = places.get(job_id_of(dag_id, task_id), number)
        problems.append(Problem(("jobs", place, "dag"), f"there is no DAG {shown(runs)}{hint}"))
    return problems


def sub_dag_cycle(jobs: Sequence[JobSpec], runs: Mapping[str, AbstractSet[str]]) -> Problem | None:
    """The problem of DAGs that run each other in a circle, at the first task in it given here."""
    cycle = find_cycle(runs)
    if cycle is None:
        return None
    places = {spec.job_id: number for number, spec in enumerate(jobs)}
    steps = set(pairwise(cycle))
    at = next(
        (
            places.get(job_id_of(dag_id, task_id), number)
            for number, dag_id, task_id, sub in _named(jobs)
            if (dag_id, sub) in steps
        ),
        0,
    )
    text = f"the DAGs run each other in a circle: {' -> '.join(cycle)}"
    return Problem(("jobs", at, "dag"), text)


def _named(jobs: Sequence[JobSpec]) -> Iterator[tuple[int, str, str, str]]:
    """(place, DAG, task, the DAG that it runs) of every sub-DAG."""
    for number, spec in enumerate(jobs):
        if isinstance(spec.task, DagTask):
            for task in spec.task.tasks:
                if task.dag is not None:
                    yield number, spec.job_id, task.task_id, task.dag.dag_id


async def write_dags(
    conn: Connection,
    changes: Sequence[Change],
    *,
    tenant: str,
    keys: Mapping[str, int],
    now: datetime,
) -> None:
    """Write the versions of those of these jobs that are DAGs; their hidden jobs stand already.

    Args:
        conn: within a transaction of the tenant.
        changes: no hidden ones.
        tenant: theirs.
        keys: of these jobs and of the hidden ones.
        now: when they take force.
    """
    dags = [(c, c.spec.task) for c in changes if isinstance(c.spec.task, DagTask)]
    others = [
        c.old.job_key
        for c in changes
        if c.old is not None
        and c.old.spec is not None
        and isinstance(c.old.spec.task, DagTask)
        and not isinstance(c.spec.task, DagTask)
    ]
    if others:
        await conn.execute(_NO_DAGS, others)
    for part in chunks(dags):
        own = [keys[c.spec.job_id] for c, _ in part]
        versions = [c.version for c, _ in part]
        await conn.execute(_DAGS, tenant, own, [c.spec.job_id for c, _ in part], versions)
        await conn.execute(
            _VERSIONS,
            tenant,
            now,
            own,
            versions,
            [dag.on_failure for _, dag in part],
            [len(dag.tasks) for _, dag in part],
        )
    for change, dag in dags:
        await _write_tasks(conn, change, dag, tenant=tenant, keys=keys)


async def _write_tasks(
    conn: Connection, change: Change, dag: DagTask, *, tenant: str, keys: Mapping[str, int]
) -> None:
    dag_id, version = change.spec.job_id, change.version
    key = keys[dag_id]
    numbers = {task.task_id: number for number, task in enumerate(dag.tasks)}
    edges = []
    for part in chunks(dag.tasks):
        await conn.execute(
            _TASKS,
            key,
            version,
            tenant,
            [numbers[t.task_id] for t in part],
            [t.task_id for t in part],
            [keys[job_id_of(dag_id, t.task_id)] for t in part],
            [len(t.dependencies) for t in part],
            [t.trigger for t in part],
            [t.role for t in part],
            [msgspec.json.encode(t).decode() for t in part],
        )
        edges += [(numbers[p], numbers[t.task_id]) for t in part for p in t.dependencies]
    for edge_part in chunks(edges):
        await conn.execute(
            _EDGES, key, version, tenant, [p for p, _ in edge_part], [c for _, c in edge_part]
        )
