"""What the store holds of jobs before a change: versions in force, schedule rows, dependencies."""

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from functools import cache
from typing import Final, TypeVar

import msgspec

from protocols.errors import InvalidError, Problem
from protocols.jobs import JobSpec
from runtime.postgres.operations.session import Connection

Item = TypeVar("Item")
Part = TypeVar("Part", bound=msgspec.Struct)

CHUNK: Final = 2000
"""How many rows one statement carries, and how many jobs are worked on between two statements:
the node's loop beats on meanwhile."""


class StoredJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job as it stands; `spec` is read only where it differs from the one that was given."""

    job_key: int
    job_id: str
    version: int
    source: str
    paused: bool
    spec: JobSpec | None


class StoredSchedule(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule row, locked until the transaction ends."""

    job_key: int
    cursor: datetime
    next_fire_at: datetime | None
    catchup_from: datetime | None
    catchup_until: datetime | None
    anchor: datetime
    after_s: float | None


# Definitions of one tenant change one after the other; what fires goes by row locks.
_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('tickwright.definitions:' || $1, 0))"
# A first apply fills tables that statistics still take for empty: without this each chunk of it
# would read all that the chunks before it wrote.
_PIN: Final = """
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
    set_config('enable_mergejoin', 'off', true), set_config('enable_material', 'off', true),
    set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', 'off', true)
"""

# Indexes: jobs_name, job_versions_pkey. Of the indexes of jobs only jobs_name is in the order that
# is asked for; by jobs_newest all jobs of the tenant would be read for each.
_JOBS: Final = """
SELECT j.job_key, j.job_id, j.version, j.source, j.paused,
    CASE WHEN v.spec = n.spec::jsonb THEN NULL ELSE v.spec::text END AS spec
FROM unnest($2::text[], $3::text[]) AS n (job_id, spec)
CROSS JOIN LATERAL (
    SELECT * FROM jobs
    WHERE tenant = $1 AND job_id BETWEEN n.job_id AND n.job_id AND deleted_at IS NULL
    ORDER BY job_id LIMIT 1
) AS j
JOIN job_versions v ON v.job_key = j.job_key AND v.version = j.version
"""

# Index: jobs_name.
_KEYS: Final = """
SELECT j.job_id, j.job_key
FROM unnest($2::text[]) AS n (job_id)
CROSS JOIN LATERAL (
    SELECT job_id, job_key FROM jobs
    WHERE tenant = $1 AND job_id BETWEEN n.job_id AND n.job_id AND deleted_at IS NULL
    ORDER BY job_id LIMIT 1
) AS j
"""

# Index: jobs_source.
_OF_SOURCE: Final = """
SELECT job_id, job_key FROM jobs
WHERE tenant = $1 AND source = $2 AND deleted_at IS NULL AND NOT hidden
"""

# Index: schedules_pkey. Locked in the order of job keys, as every batch locks them.
_SCHEDULES: Final = """
SELECT job_key, cursor, next_fire_at, catchup_from, catchup_until, anchor, after_s
FROM schedules
WHERE job_key = ANY($1::bigint[])
ORDER BY job_key
FOR UPDATE
"""

# Every dependency on the way up from these jobs. Index: job_dependencies_child.
_ANCESTRY: Final = """
WITH RECURSIVE up (parent_key, child_key) AS (
    SELECT parent_key, child_key FROM job_dependencies WHERE child_key = ANY($1::bigint[])
    UNION
    SELECT d.parent_key, d.child_key FROM up JOIN job_dependencies d ON d.child_key = up.parent_key
)
SELECT p.job_id AS parent, c.job_id AS child
FROM up
JOIN jobs p ON p.job_key = up.parent_key
JOIN jobs c ON c.job_key = up.child_key
"""

# Indexes: job_dependencies_pkey, job_triggers_parent.
_DEPENDENTS: Final = """
SELECT DISTINCT p.job_id AS parent, c.job_id AS child, c.job_key AS child_key
FROM (
    SELECT parent_key, child_key FROM job_dependencies WHERE parent_key = ANY($1::bigint[])
    UNION
    SELECT parent_key, job_key FROM job_triggers WHERE parent_key = ANY($1::bigint[])
) d
JOIN jobs p ON p.job_key = d.parent_key
JOIN jobs c ON c.job_key = d.child_key AND c.deleted_at IS NULL
ORDER BY parent, child
"""

_SOME_IDS: Final = """
SELECT job_id FROM jobs
WHERE tenant = $1 AND deleted_at IS NULL AND NOT hidden
ORDER BY job_key DESC LIMIT 5000
"""


def chunks(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Cut a sequence into parts of at most `CHUNK`."""
    return (items[at : at + CHUNK] for at in range(0, len(items), CHUNK))


async def lock_definitions(conn: Connection, tenant: str) -> None:
    """Wait until nobody else changes this tenant's definitions, until the transaction ends."""
    await conn.execute(_LOCK, tenant)
    await conn.execute(_PIN)


async def read_jobs(
    conn: Connection, tenant: str, given: Sequence[tuple[str, str]]
) -> dict[str, StoredJob]:
    """Those of the (job id, spec as JSON) given that exist, by id."""
    found = {}
    for part in chunks(given):
        rows = await conn.fetch(_JOBS, tenant, [i for i, _ in part], [text for _, text in part])
        for row in rows:
            spec = row["spec"]
            found[row["job_id"]] = StoredJob(
                job_key=row["job_key"],
                job_id=row["job_id"],
                version=row["version"],
                source=row["source"],
                paused=row["paused"],
                spec=None if spec is None else msgspec.json.decode(spec, type=JobSpec),
            )
    return found


async def read_keys(conn: Connection, tenant: str, ids: Iterable[str]) -> dict[str, int]:
    """The keys of those of these jobs that exist."""
    rows = await conn.fetch(_KEYS, tenant, list(dict.fromkeys(ids)))
    return {row["job_id"]: row["job_key"] for row in rows}


async def read_absent(
    conn: Connection, tenant: str, source: str, given: AbstractSet[str]
) -> dict[str, int]:
    """Jobs of this source, by id, that are not among those given."""
    rows = await conn.fetch(_OF_SOURCE, tenant, source)
    return {row["job_id"]: row["job_key"] for row in rows if row["job_id"] not in given}


async def lock_schedules(conn: Connection, keys: Iterable[int]) -> dict[int, StoredSchedule]:
    """The schedule rows of these jobs, by key; none can fire until the transaction ends."""
    found = {}
    for part in chunks(sorted(keys)):
        for row in await conn.fetch(_SCHEDULES, part):
            found[row["job_key"]] = StoredSchedule(**dict(row))
    return found


async def read_ancestry(conn: Connection, keys: Iterable[int]) -> dict[str, set[str]]:
    """What these jobs depend on, and these in turn: parents by child, all by job id."""
    parents: dict[str, set[str]] = {}
    for row in await conn.fetch(_ANCESTRY, list(keys)):
        parents.setdefault(row["child"], set()).add(row["parent"])
    return parents


async def read_dependents(conn: Connection, keys: Iterable[int]) -> list[tuple[str, str]]:
    """(job, who needs it) for every other job that depends on, or is triggered by, these."""
    ours = set(keys)
    rows = await conn.fetch(_DEPENDENTS, list(ours))
    return [(r["parent"], r["child"]) for r in rows if r["child_key"] not in ours]


async def some_ids(conn: Connection, tenant: str) -> list[str]:
    """The newest job ids of a tenant, enough to find the one that was meant."""
    return [row["job_id"] for row in await conn.fetch(_SOME_IDS, tenant)]


def spec_text(spec: JobSpec, path: tuple[str | int, ...] = ()) -> str:
    """A version as it is stored.

    Raises:
        InvalidError: it holds what JSON or PostgreSQL cannot (NUL, half of a surrogate pair).
    """
    try:
        encoded = msgspec.json.encode(_canonical(spec))
    except (UnicodeEncodeError, TypeError, ValueError) as error:
        problem = Problem(path, f"cannot be stored as JSON: {error}")
        raise InvalidError((problem,)) from error
    # PostgreSQL keeps no NUL in jsonb; a doubled backslash before it is text, not an escape.
    if b"\\u0000" in encoded.replace(b"\\\\", b""):
        raise InvalidError((Problem(path, "holds a NUL character: take it out"),))
    return encoded.decode()


_fields = cache(msgspec.structs.fields)


def _canonical(spec: Part) -> Part:
    """The same, every value that equals its default being that default.

    msgspec leaves out a text only where it is the default itself: without this, an explicit
    `timezone: UTC` would make another version of a job that has not changed.
    """
    changed: dict[str, object] = {}
    for field in _fields(type(spec)):
        value = getattr(spec, field.name)
        if isinstance(value, msgspec.Struct):
            value = _canonical(value)
        elif isinstance(value, tuple) and value and isinstance(value[0], msgspec.Struct):
            parts = tuple(_canonical(part) for part in value)
            if any(new is not old for new, old in zip(parts, value, strict=True)):
                value = parts
        elif value == field.default and type(value) is type(field.default):
            value = field.default
        if value is not getattr(spec, field.name):
            changed[field.name] = value
    return msgspec.structs.replace(spec, **changed) if changed else spec
