"""Writes jobs and versions, two thousand a statement; locks and checks were done before."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from protocols.jobs import JobSpec
from protocols.messages import PROTOCOL_LEVEL
from runtime.postgres.definitions.shards import shard_of
from runtime.postgres.definitions.stored import StoredJob, chunks
from runtime.postgres.operations.session import Connection


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A job that is new, or that becomes another version; `text` is `spec` as it is stored."""

    spec: JobSpec
    text: str
    source: str
    version: int
    """The version that this change brings into force: of a DAG's task, the DAG's."""
    old: StoredJob | None = None


_INSERT: Final = """
WITH given AS MATERIALIZED (
    SELECT n.job_id, n.source, n.version, n.shard, n.enabled, n.spec::jsonb AS spec
    FROM unnest($4::text[], $5::text[], $6::integer[], $7::smallint[], $8::boolean[], $9::text[])
        AS n (job_id, source, version, shard, enabled, spec)
), made AS (
    INSERT INTO jobs (
        tenant, job_id, source, version, shard, enabled, tags, created_at, updated_at
    )
    SELECT $1, job_id, source, version, shard, enabled,
        ARRAY(SELECT jsonb_array_elements_text(spec -> 'tags')), $2, $2
    FROM given
    RETURNING job_key, job_id
), versions AS (
    INSERT INTO job_versions (tenant, job_key, version, spec, needs, in_force_at)
    SELECT $1, m.job_key, g.version, g.spec, $3, $2 FROM made m JOIN given g USING (job_id)
)
SELECT job_id, job_key FROM made
"""

_UPDATE: Final = """
WITH given AS MATERIALIZED (
    SELECT n.job_key, n.source, n.version, n.enabled, n.spec::jsonb AS spec
    FROM unnest($4::bigint[], $5::text[], $6::integer[], $7::boolean[], $8::text[])
        AS n (job_key, source, version, enabled, spec)
), moved AS (
    UPDATE jobs j
    SET version = g.version, source = g.source, enabled = g.enabled, updated_at = $2,
        tags = ARRAY(SELECT jsonb_array_elements_text(g.spec -> 'tags'))
    FROM given g
    WHERE j.job_key = g.job_key
    RETURNING j.job_key
)
INSERT INTO job_versions (tenant, job_key, version, spec, needs, in_force_at)
SELECT $1, g.job_key, g.version, g.spec, $3, $2 FROM given g JOIN moved USING (job_key)
"""

_ADOPT: Final = """
UPDATE jobs SET source = $1, updated_at = $2 WHERE job_key = ANY($3::bigint[])
"""

_FORGET_LINKS: Final = (
    "DELETE FROM job_tags WHERE job_key = ANY($1::bigint[])",
    "DELETE FROM job_triggers WHERE job_key = ANY($1::bigint[])",
)
_TAGS: Final = """
INSERT INTO job_tags (tenant, tag, job_key)
SELECT $1, n.tag, n.job_key FROM unnest($2::text[], $3::bigint[]) AS n (tag, job_key)
ON CONFLICT DO NOTHING
"""
# An edge that stays keeps what it knows of its parent's last success.
_FORGET_DEPENDENCIES: Final = """
DELETE FROM job_dependencies
WHERE child_key = ANY($1::bigint[]) AND (parent_key, child_key) NOT IN (
    SELECT n.parent_key, n.child_key
    FROM unnest($2::bigint[], $3::bigint[]) AS n (parent_key, child_key)
)
"""
_DEPENDENCIES: Final = """
INSERT INTO job_dependencies (tenant, parent_key, child_key)
SELECT $1, n.parent_key, n.child_key
FROM unnest($2::bigint[], $3::bigint[]) AS n (parent_key, child_key)
ON CONFLICT DO NOTHING
"""
_TRIGGERS: Final = """
INSERT INTO job_triggers (tenant, job_key, number, event, parent_key, state, filter,
    kafka_topic, kafka_group, kafka_key)
SELECT $1, n.job_key, n.number, n.event, n.parent_key, n.state, n.filter::jsonb,
    n.kafka_topic, n.kafka_group, n.kafka_key
FROM unnest(
    $2::bigint[], $3::smallint[], $4::text[], $5::bigint[], $6::text[], $7::text[],
    $8::text[], $9::text[], $10::text[]
) AS n (job_key, number, event, parent_key, state, filter, kafka_topic, kafka_group, kafka_key)
"""


async def write_jobs(
    conn: Connection, changes: Sequence[Change], *, tenant: str, now: datetime
) -> dict[str, int]:
    """Insert and update these jobs and their versions; returns their keys by id."""
    keys = {c.spec.job_id: c.old.job_key for c in changes if c.old is not None}
    for part in chunks([c for c in changes if c.old is None]):
        rows = await conn.fetch(
            _INSERT,
            tenant,
            now,
            PROTOCOL_LEVEL,
            [c.spec.job_id for c in part],
            [c.source for c in part],
            [c.version for c in part],
            [shard_of(tenant, c.spec.job_id) for c in part],
            [c.spec.enabled for c in part],
            [c.text for c in part],
        )
        keys.update((row["job_id"], row["job_key"]) for row in rows)
    for part in chunks([c for c in changes if c.old is not None]):
        await conn.execute(
            _UPDATE,
            tenant,
            now,
            PROTOCOL_LEVEL,
            [keys[c.spec.job_id] for c in part],
            [c.source for c in part],
            [c.version for c in part],
            [c.spec.enabled for c in part],
            [c.text for c in part],
        )
    return keys


async def adopt_jobs(conn: Connection, keys: Sequence[int], *, source: str, now: datetime) -> None:
    """Make these jobs, whose versions stay, belong to `source`."""
    if keys:
        await conn.execute(_ADOPT, source, now, keys)


async def write_links(
    conn: Connection, changes: Sequence[Change], *, tenant: str, keys: dict[str, int]
) -> None:
    """Write tags, dependencies and triggers of these versions, in place of older ones.

    Args:
        conn: within a transaction of the tenant.
        changes: whose versions have been written.
        tenant: theirs.
        keys: the keys of these jobs and of every job that they name. A job that is not enabled
            is triggered by nothing.
    """
    own = [(keys[c.spec.job_id], c.spec) for c in changes]
    edges = [(keys[parent], key) for key, spec in own for parent in spec.dependencies]
    old = [c.old.job_key for c in changes if c.old is not None]
    await forget_links(conn, old, but=edges)
    tags = [(tag, key) for key, spec in own for tag in spec.tags]
    for part in chunks(tags):
        await conn.execute(_TAGS, tenant, [t for t, _ in part], [k for _, k in part])
    for edge_part in chunks(edges):
        await conn.execute(
            _DEPENDENCIES, tenant, [p for p, _ in edge_part], [c for _, c in edge_part]
        )
    triggers = [
        (key, number, on) for key, spec in own if spec.enabled for number, on in enumerate(spec.on)
    ]
    for trigger_part in chunks(triggers):
        await conn.execute(
            _TRIGGERS,
            tenant,
            [key for key, _, _ in trigger_part],
            [number for _, number, _ in trigger_part],
            [on.event for _, _, on in trigger_part],
            [None if on.job is None else keys[on.job] for _, _, on in trigger_part],
            [None if on.job is None else on.state for _, _, on in trigger_part],
            [msgspec.json.encode(on.filter).decode() for _, _, on in trigger_part],
            [None if on.kafka is None else on.kafka.topic for _, _, on in trigger_part],
            [None if on.kafka is None else on.kafka.group for _, _, on in trigger_part],
            [None if on.kafka is None else on.kafka.key for _, _, on in trigger_part],
        )


async def forget_links(
    conn: Connection, keys: Sequence[int], *, but: Sequence[tuple[int, int]] = ()
) -> None:
    """Remove tags, triggers and dependencies of these jobs, but for some (parent, child)."""
    if keys:
        for statement in _FORGET_LINKS:
            await conn.execute(statement, keys)
        await conn.execute(_FORGET_DEPENDENCIES, keys, [p for p, _ in but], [c for _, c in but])
