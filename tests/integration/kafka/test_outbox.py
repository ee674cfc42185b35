"""What happened reaches Kafka in order, at least once, whatever becomes of whoever publishes it."""

import uuid

import anyio
import asyncpg
import pytest
import pytest_asyncio

from actors.outbox import OutboxActor, OutboxStatus
from protocols.ports.outbox import PublishError
from runtime.kafka import publisher
from runtime.kernel import ActorSystem
from runtime.postgres.outbox import PostgresOutbox
from tests.contract.store.books import NOW, Books, at, migrated, node_pool
from tests.integration.kafka.conftest import until
from tests.integration.kafka.outbox import dead_letters, opened, public_id, published
from tests.support.postgres import fresh_database

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]


@pytest_asyncio.fixture
async def books(postgres_server):
    """Give a migrated database, and a node's pool on it."""
    async with fresh_database(postgres_server, migrate=migrated) as settings:
        owner = await asyncpg.create_pool(**settings.arguments(), min_size=0, max_size=4)
        async with node_pool(settings) as pool:
            yield Books(pool, owner, settings)
        await owner.close()


@pytest.fixture
def name():
    return f"test-{uuid.uuid4().hex[:12]}"


async def ran(books: Books, job: int, count: int, *, first: int = 0) -> list[int]:
    """Let executions of a job be fired and succeed, each by events of its own."""
    ids = []
    for n in range(first, first + count):
        ids.append(id := await books.row(job, state="scheduled", when=at(n)))  # noqa: A001
        await books.owner.execute(
            "INSERT INTO events (at, kind, ids, job_keys, states) "
            "VALUES ($1, 'fired', ARRAY[$2::bigint], ARRAY[$3::bigint], ARRAY['scheduled'])",
            at(n),
            id,
            job,
        )
        await books.end(id, "succeeded", at(n))
    return ids


def told(records):
    """What each record tells: execution, state, sequence; by partition in its order."""
    return [(key, value["state"], value["sequence"]) for _, key, value, _ in records]


def distinct(records):
    """The same without repeats, as a reader drops them."""
    return list(dict.fromkeys(told(records)))


async def test_each_jobs_events_are_in_one_partition_in_order(books, kafka_settings, name):
    node = await books.node()
    jobs = {await books.job(f"j{n}"): f"j{n}" for n in range(12)}
    async with opened(books, kafka_settings, name) as outbox:
        await outbox.begin(node)
        ids = {key: [] for key in jobs}
        for turn in range(10):
            for key in jobs:
                ids[key] += await ran(books, key, 1, first=turn)
        assert await outbox.drain(events=32) > 5
    records = await published(kafka_settings, name)
    assert len(records) == 12 * 10 * 2
    for key, job_id in jobs.items():
        here = [r for r in records if r[2]["job_id"] == job_id]
        assert len({partition for partition, *_ in here}) == 1
        assert [(k, v["state"]) for _, k, v, _ in here] == [
            (await public_id(books, id), state)
            for id in ids[key]  # noqa: A001
            for state in ("scheduled", "succeeded")
        ]
        sequences = [v["sequence"] for _, _, v, _ in here]
        assert sequences == sorted(set(sequences))
    assert len({partition for partition, *_ in records}) > 1


@pytest.mark.parametrize("form", ["json", "msgpack"])
async def test_a_record_says_what_happened_in_both_formats(books, kafka_settings, name, form):
    node = await books.node("alpha")
    job = await books.job("j")
    async with opened(books, kafka_settings, name, form) as outbox:
        await outbox.begin(node)
        id = await books.row(job, state="scheduled", attempt=1, incarnation=node)  # noqa: A001
        await books.end(id, "succeeded", at(3))
        await outbox.drain()
    ((_, key, value, headers),) = await published(kafka_settings, name)
    assert key == await public_id(books, id)
    assert value == {
        "execution_id": key,
        "tenant": "default",
        "job_id": "j",
        "scheduled_for": "2026-12-01T08:00:00.000000Z",
        "state": "succeeded",
        "reason": None,
        "attempt": 1,
        "node": "alpha",
        "kind": "finished",
        "at": "2026-12-01T08:00:03.000000Z",
        "sequence": value["sequence"],
    }
    assert headers == {
        "kind": b"finished",
        "tenant": b"default",
        "job_id": b"j",
        "sequence": str(value["sequence"]).encode(),
        "content-type": f"application/{form}".encode(),
    }


@pytest.mark.parametrize("form", ["json", "msgpack"])
async def test_a_dead_letter_has_the_fields_that_were_promised(books, kafka_settings, name, form):
    node = await books.node("alpha")
    job = await books.job("j")
    async with opened(books, kafka_settings, name, form) as outbox:
        await outbox.begin(node)
        id = await books.row(  # noqa: A001
            job, state="scheduled", attempt=3, failures=3, incarnation=node
        )
        await books.owner.execute(
            "INSERT INTO attempts (id, scheduled_for, tenant, attempt, run, state, fencing_token, "
            "incarnation, started_at, finished_at, error) "
            "VALUES ($1, $2, 'default', 3, 1, 'timed_out', 9, $3, $2, $4, 'no answer')",
            id,
            NOW,
            node,
            at(3),
        )
        await books.end(id, "dead", at(3), "timed_out")
        await ran(books, job, 1, first=5)
        await outbox.drain()
    assert await dead_letters(kafka_settings, name) == [
        {
            "job_id": "j",
            "execution_id": await public_id(books, id),
            "tenant": "default",
            "scheduled_for": "2026-12-01T08:00:00.000000Z",
            "attempt": 3,
            "retry_count": 2,
            "failure_reason": "timed_out",
            "error": "no answer",
            "node": "alpha",
            "timestamp": "2026-12-01T08:00:03.000000Z",
        }
    ]
    states = [value["state"] for _, _, value, _ in await published(kafka_settings, name)]
    assert states == ["dead", "scheduled", "succeeded"]


async def test_who_dies_between_publishing_and_noting_it_is_repeated_in_order(
    books, kafka_settings, name
):
    node = await books.node()
    job = await books.job("j")
    async with opened(books, kafka_settings, name) as first:
        await first.begin(node, ttl_s=0.0)
        await ran(books, job, 5)
        batch = await first.read(events=4)
        await first.publisher.publish(batch.changes)
    async with opened(books, kafka_settings, name) as second:
        await second.begin(node)
        await second.drain(events=4)
        assert not await first.store.advance(first.token, batch, ttl_s=1.0)
    records = await published(kafka_settings, name)
    assert told(records)[:8] == told(records)[:4] * 2
    assert len(records) == 14
    assert len(distinct(records)) == 10
    sequences = [sequence for _, _, sequence in distinct(records)]
    assert sequences == sorted(sequences)


async def test_a_publisher_that_wakes_up_too_late_publishes_nothing(books, kafka_settings, name):
    node = await books.node()
    job = await books.job("j")
    async with (
        opened(books, kafka_settings, name) as stale,
        opened(books, kafka_settings, name) as fresh,
    ):
        await stale.begin(node, ttl_s=0.0)
        await ran(books, job, 3)
        batch = await stale.read()
        await fresh.begin(node)
        await fresh.drain()
        with pytest.raises(PublishError, match="kafka: "):
            await stale.publisher.publish(batch.changes)
        assert not await stale.store.advance(stale.token, batch, ttl_s=1.0)
        # One that begins once more is let in by Kafka, and stopped by the books.
        await stale.publisher.begin()
        assert await stale.read() is None
        await ran(books, job, 1, first=3)
        again = await fresh.read()
        with pytest.raises(PublishError):
            await fresh.publisher.publish(again.changes)
        await fresh.begin(node)
        await fresh.drain()
    records = await published(kafka_settings, name)
    assert told(records) == distinct(records)
    assert len(records) == 8


async def test_what_a_publisher_left_open_is_not_seen(books, kafka_settings, name, monkeypatch):
    node = await books.node()
    job = await books.job("j")
    async with opened(books, kafka_settings, name) as first:
        await first.begin(node, ttl_s=0.0)
        await ran(books, job, 3)
        batch = await first.read()
        producer = first.publisher._producer

        async def die():
            raise ConnectionError("killed before the commit")

        monkeypatch.setattr(producer, "commit_transaction", die)
        with pytest.raises(PublishError, match="killed before"):
            await first.publisher.publish(batch.changes)
    async with opened(books, kafka_settings, name) as second:
        await second.begin(node)
        await second.drain()
    assert len(await published(kafka_settings, name)) == 6


async def test_ten_thousand_events_are_caught_up_with_in_bounded_batches(
    books, kafka_settings, name
):
    node = await books.node()
    job = await books.job("j", overlap="allow")
    async with opened(books, kafka_settings, name) as outbox:
        await outbox.begin(node)
        await books.owner.execute(
            "WITH made AS (INSERT INTO executions (job_key, state, scheduled_for, created_at, "
            "tenant, job_id, version, run_at, overlap, pool, priority) "
            "SELECT $1, 'scheduled', $2::timestamptz + n * interval '1 second', $2, 'default', "
            "'j', 1, $2, 'allow', 'default', 2 FROM generate_series(1, 10000) AS n RETURNING id) "
            "INSERT INTO events (at, kind, ids, job_keys, states) "
            "SELECT $2, 'fired', ARRAY[id], ARRAY[$1::bigint], ARRAY['scheduled'] FROM made",
            job,
            NOW,
        )
        backlog = await outbox.store.look()
        assert (backlog.events, backlog.oldest_at) == (10_000, NOW)
        assert await outbox.drain(events=500) >= 20
        assert (await outbox.store.look()).events == 0
    records = await published(kafka_settings, name)
    sequences = [sequence for _, _, sequence in told(records)]
    assert sequences == sorted(set(sequences))
    assert len(sequences) == 10_000


async def test_nodes_publish_on_while_kafka_and_each_other_go_away(
    books, kafka_settings, kafka_server, name, monkeypatch
):
    monkeypatch.setattr(publisher, "BEGIN_S", 5.0)
    monkeypatch.setattr(publisher, "PUBLISH_S", 5.0)
    monkeypatch.setattr("actors.outbox.POLL_S", 0.05)
    monkeypatch.setattr("actors.outbox.LOOK_S", 0.2)
    monkeypatch.setattr("actors.outbox.REST_S", 0.5)
    nodes = [await books.node("a"), await books.node("b")]
    job = await books.job("j")
    seen: dict[int, OutboxStatus] = {}

    ends = {node: anyio.Event() for node in nodes}

    async def live(node):
        async with opened(books, kafka_settings, name) as outbox, ActorSystem() as system:
            system.spawn(
                lambda: OutboxActor(
                    store=outbox.store,
                    publisher=outbox.publisher,
                    incarnation=node,
                    ttl_s=1.5,
                    on_status=lambda status: seen.__setitem__(node, status),
                )
            )
            await ends[node].wait()
        del seen[node]

    def publishing():
        return [node for node, status in seen.items() if status.publishing]

    async with anyio.create_task_group() as group:
        for node in nodes:
            group.start_soon(live, node)
        await until(publishing, "one publishes")
        await ran(books, job, 5)
        await caught_up(books)
        kafka_server.kill()
        await ran(books, job, 5, first=5)
        await until(lambda: any(status.error for status in seen.values()), "it is told")
        kafka_server.restart()
        await caught_up(books)
        await until(lambda: len(publishing()) == 1, "one publishes again")
        (leader,) = publishing()
        ends[leader].set()
        await until(lambda: leader not in seen, "it has ended")
        await ran(books, job, 5, first=10)
        await caught_up(books)
        await until(publishing, "the other publishes")
        for end in ends.values():
            end.set()
    records = await published(kafka_settings, name)
    sequences = [sequence for _, _, sequence in distinct(records)]
    assert len(sequences) == 30
    assert sequences == sorted(sequences)


async def caught_up(books: Books) -> None:
    """Wait until all is published that happened."""
    with anyio.fail_after(90):
        while (await PostgresOutbox(books.pool).look()).events:  # noqa: ASYNC110 - of the database
            await anyio.sleep(0.05)
