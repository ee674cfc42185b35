"""Which records of Kafka trigger which jobs, as the triggers stand when they are asked about."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import asyncpg

from protocols.errors import InvalidError, Problem
from protocols.ports.records import Subscription
from protocols.ports.store import Match
from runtime.postgres.pool import Pool
from runtime.postgres.triggers import HOLDS

_GROUP: Final = "coalesce(t.kafka_group, $1 || '.' || t.tenant || '.' || t.kafka_topic)"

# Index: job_triggers_kafka.
_WANTED: Final = f"""
SELECT DISTINCT t.kafka_topic AS topic, {_GROUP} AS "group"
FROM job_triggers t WHERE t.kafka_topic IS NOT NULL
"""

# Since the first version that names the topic: a later one that changes something else does not
# begin anew. Indexes: job_triggers_kafka, job_versions_pkey.
_SINCE: Final = f"""
SELECT min(v.in_force_at) AS since
FROM (
    SELECT DISTINCT t.job_key FROM job_triggers t WHERE t.kafka_topic = $2 AND {_GROUP} = $3
) AS t
JOIN job_versions v ON v.job_key = t.job_key
WHERE v.spec -> 'on' @> jsonb_build_array(jsonb_build_object(
    'kafka', jsonb_build_object('topic', $2::text)))
"""

# Index: job_triggers_kafka.
_MATCH: Final = f"""
WITH wanted AS MATERIALIZED (
    SELECT t.job_key, t.tenant, t.kafka_key, t.filter
    FROM job_triggers t WHERE t.kafka_topic = $2 AND {_GROUP} = $3
), given AS MATERIALIZED (
    SELECT r.place, r.key, r.value::jsonb AS payload
    FROM unnest($4::text[], $5::text[]) WITH ORDINALITY AS r(key, value, place)
)
SELECT DISTINCT p.place, t.tenant, t.job_key
FROM given p
JOIN wanted t ON t.kafka_key IS NULL OR t.kafka_key = p.key
WHERE {HOLDS}
ORDER BY p.place, t.job_key
"""

_UNKEPT: Final = (asyncpg.DataError, asyncpg.ProgramLimitExceededError)


async def subscriptions(pool: Pool, cluster: str) -> frozenset[Subscription]:
    """As `RecordStore.subscriptions`."""
    rows = await pool.fetch(_WANTED, cluster)
    return frozenset(Subscription(row["topic"], row["group"]) for row in rows)


async def followed_since(pool: Pool, cluster: str, subscription: Subscription) -> datetime | None:
    """As `RecordStore.followed_since`."""
    (row,) = await pool.fetch(_SINCE, cluster, subscription.topic, subscription.group)
    since: datetime | None = row["since"]
    return since


async def match_records(
    pool: Pool,
    cluster: str,
    subscription: Subscription,
    keys: Sequence[str | None],
    values: Sequence[str | None],
) -> Sequence[Match]:
    """As `RecordStore.match_records`."""
    try:
        rows = await pool.fetch(
            _MATCH, cluster, subscription.topic, subscription.group, keys, values
        )
    except _UNKEPT as error:
        raise InvalidError((Problem((), f"cannot be kept as JSON: {error}"),)) from error
    return [Match(row["place"] - 1, row["tenant"], row["job_key"]) for row in rows]
