"""What the outbox reads: each change once, in order, as it was; by whoever holds the claim."""
# ruff: noqa: A001, A002 - a row's key is called id everywhere

from datetime import timedelta

import pytest

from protocols.ids import execution_id
from runtime.postgres import restored
from runtime.postgres.events import read_events
from runtime.postgres.outbox import _READ, PostgresOutbox
from runtime.postgres.partitions import keep_days, make_days
from runtime.postgres.task_calls import emit
from tests.contract.store.books import NOW, Books, at
from tests.contract.store.test_restored import restore
from tests.contract.store.test_triggers import follow

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]

TTL_S = 60.0
MANY = {"events": 100, "changes": 1000}


async def held(books: Books, incarnation: int = 1) -> tuple[PostgresOutbox, int]:
    outbox = PostgresOutbox(books.pool)
    return outbox, await outbox.take(incarnation, 0, ttl_s=TTL_S)


async def log(books: Books, job: int, *ids: int, kind: str = "fired", state: str = "scheduled"):
    """Append an event as a statement of a writer does."""
    await books.owner.execute(
        "INSERT INTO events (at, kind, ids, job_keys, states) VALUES ($1, $2, $3, $4, $5)",
        NOW,
        kind,
        list(ids),
        [job] * len(ids),
        [state] * len(ids),
    )


def facts(batch):
    return [(c.job_id, c.state, c.reason, c.attempt, c.node) for c in batch.changes]


# --- the claim -------------------------------------------------------------------------------


async def test_one_holds_the_claim_and_its_token_only_grows(books: Books):
    outbox = PostgresOutbox(books.pool)
    assert (await outbox.look()).free
    first = await outbox.take(1, 0, ttl_s=TTL_S)
    assert not (await outbox.look()).free
    assert await outbox.take(2, 0, ttl_s=TTL_S) is None
    assert await outbox.take(2, first, ttl_s=TTL_S) is None
    assert await outbox.take(1, first, ttl_s=TTL_S) == first
    await outbox.release(first)
    assert (await outbox.look()).free
    second = await outbox.take(2, 0, ttl_s=0.0)
    assert second > first
    await outbox.release(first)  # of one that is over already
    third = await outbox.take(1, first, ttl_s=TTL_S)
    assert third > second
    assert await outbox.take(2, second, ttl_s=TTL_S) is None


async def test_a_claim_that_ran_out_and_nobody_took_goes_on(books: Books):
    outbox = PostgresOutbox(books.pool)
    token = await outbox.take(1, 0, ttl_s=0.0)
    assert await outbox.take(1, token, ttl_s=TTL_S) == token


async def test_a_stale_token_reads_and_advances_nothing(books: Books):
    outbox = PostgresOutbox(books.pool)
    stale = await outbox.take(1, 0, ttl_s=0.0)
    job = await books.job("j")
    await log(books, job, await books.row(job, state="scheduled"))
    batch = await outbox.read(stale, **MANY)
    fresh = await outbox.take(2, 0, ttl_s=TTL_S)
    assert await outbox.read(stale, **MANY) is None
    assert not await outbox.advance(stale, batch, ttl_s=TTL_S)
    again = await outbox.read(fresh, **MANY)
    assert again == batch
    assert await outbox.advance(fresh, again, ttl_s=TTL_S)
    assert not await outbox.advance(fresh, again, ttl_s=TTL_S)
    assert (await outbox.read(fresh, **MANY)).events == 0


async def test_what_a_node_did_before_there_was_anybody_to_tell_is_not_told(books: Books):
    job = await books.job("j")
    await books.ended(job, "succeeded")
    outbox, token = await held(books)
    assert (await outbox.look()).events == 0
    await books.ended(job, "succeeded", at(1))
    assert len((await outbox.read(token, **MANY)).changes) == 1


# --- what is read ----------------------------------------------------------------------------


async def test_a_change_is_told_as_it_was_though_more_has_happened_since(books: Books):
    node = await books.node("alpha")
    other = await books.node("beta")
    outbox, token = await held(books, node)
    job = await books.job("j")
    id = await books.row(job, state="scheduled")
    await log(books, job, id)
    await _fail(books, job, id, attempt=1, node=node, how="failed", becomes="scheduled", when=at(1))
    await _fail(books, job, id, attempt=2, node=other, how="lost", becomes="scheduled", when=at(2))
    await books.owner.execute(
        "UPDATE executions SET attempt = 3, failures = 2, incarnation = $2 WHERE id = $1", id, node
    )
    await _attempt(books, id, 3, node, "timed_out", at(3), "it hung")
    await books.end(id, "dead", at(3), "timed_out")
    batch = await outbox.read(token, **MANY)
    assert facts(batch) == [
        ("j", "scheduled", None, 0, None),
        ("j", "scheduled", "failed", 1, "alpha"),
        ("j", "scheduled", "lost", 2, "beta"),
        ("j", "dead", "timed_out", 3, "alpha"),
    ]
    last = batch.changes[-1]
    assert (last.error, last.retry_count, last.at) == ("it hung", 1, at(3))
    assert last.execution_id == execution_id(id, NOW)
    assert last.tenant == "default"
    assert last.scheduled_for == NOW


async def test_what_was_skipped_or_cancelled_says_why_and_ran_nowhere(books: Books):
    node = await books.node("alpha")
    outbox, token = await held(books, node)
    job = await books.job("j")
    skipped = await books.row(job, state="scheduled")
    await books.end(skipped, "skipped", NOW, "overlap")
    cancelled = await books.row(job, state="scheduled", when=at(1), incarnation=None)
    await books.end(cancelled, "cancelled", at(1))
    assert facts(await outbox.read(token, **MANY)) == [
        ("j", "skipped", "overlap", 0, None),
        ("j", "cancelled", None, 0, None),
    ]


@pytest.mark.parametrize("days", [-400, -20, 20])
async def test_an_execution_of_any_day_is_found(books: Books, days):
    for ahead in range(-21, 1):
        await make_days(books.pool, now=NOW + timedelta(days=ahead))
    outbox, token = await held(books)
    job = await books.job("j")
    when = NOW + timedelta(days=days)
    id = await books.row(job, state="scheduled", when=when)
    await books.end(id, "succeeded", NOW)
    (change,) = (await outbox.read(token, **MANY)).changes
    assert (change.scheduled_for, change.execution_id) == (when, execution_id(id, when))


async def test_what_is_gone_and_what_users_emit_is_passed_over(books: Books):
    outbox, token = await held(books)
    job = await books.job("j")
    gone = await books.row(job, state="scheduled")
    await log(books, job, gone)
    await books.owner.execute("DELETE FROM executions WHERE id = $1", gone)
    await emit(books.pool, "default", "e", b"1", now=NOW)
    batch = await outbox.read(token, **MANY)
    assert (batch.events, batch.changes) == (2, [])
    assert await outbox.advance(token, batch, ttl_s=TTL_S)
    assert (await outbox.look()).events == 0


async def test_batches_are_bounded_by_events_and_by_changes(books: Books):
    outbox, token = await held(books)
    job = await books.job("j")
    ids = [await books.row(job, state="scheduled", when=at(n)) for n in range(6)]
    await log(books, job, *ids)
    for id in ids:
        await log(books, job, id)

    async def sizes(**bounds):
        found = []
        while (batch := await outbox.read(token, **bounds)).events:
            found.append((batch.events, len(batch.changes)))
            assert await outbox.advance(token, batch, ttl_s=TTL_S)
        return found

    assert await sizes(events=3, changes=7) == [(2, 7), (3, 3), (2, 2)]
    await log(books, job, *ids)
    assert await sizes(events=3, changes=2) == [(1, 6)]  # one at least


async def test_events_are_told_in_the_order_of_their_numbers_where_ids_say_otherwise(books: Books):
    """As of a transaction that wrote first, then waited for one with a later id."""
    outbox, token = await held(books)
    job = await books.job("j")
    ids = [await books.row(job, state="scheduled", when=at(n)) for n in range(3)]
    await books.ended(job, "succeeded", at(9))
    async with books.owner.acquire() as slow, slow.transaction():
        await slow.execute("SELECT pg_current_xact_id()")
        await log(books, job, ids[0])
        await log(books, job, ids[1])
        await slow.execute(
            "INSERT INTO events (at, kind, ids, job_keys, states) "
            "VALUES ($1, 'settled', $2, $3, ARRAY['scheduled'])",
            NOW,
            [ids[0]],
            [job],
        )
        # None of this is read while one is open that began before.
        assert len((await outbox.read(token, **MANY)).changes) == 1
    batch = await outbox.read(token, events=1, changes=1)
    assert await outbox.advance(token, batch, ttl_s=TTL_S)
    batch = await outbox.read(token, **MANY)
    assert [change.kind for change in batch.changes] == ["fired", "fired", "settled"]
    # And no batch ends between them.
    batch = await outbox.read(token, events=3, changes=3)
    assert [change.kind for change in batch.changes] == ["fired", "fired", "settled"]


async def test_the_read_scans_no_table_that_grows(books: Books):
    await make_days(books.pool, now=NOW)
    _, token = await held(books)
    async with books.pool.connections.acquire() as session:
        await session.execute(f"PREPARE reading (bigint, integer, bigint) AS {_READ}")
        rows = await session.fetch(f"EXPLAIN EXECUTE reading ({token}, 500, 1000)")
        await session.execute("DEALLOCATE reading")
    scans = {row[0].split(" on ")[1].split()[0] for row in rows if "Seq Scan on" in row[0]}
    assert scans <= {"outbox"}


# --- what becomes of it ----------------------------------------------------------------------


async def test_unread_events_are_dropped_with_their_day_but_counted(books: Books):
    await make_days(books.pool, now=NOW)
    outbox, token = await held(books)
    # Somebody publishes still, by the clock of these books.
    await books.owner.execute("UPDATE outbox SET held_until = $1", NOW + timedelta(days=40))
    job = await books.job("j")
    await books.ended(job, "succeeded")
    batch = await outbox.read(token, **MANY)
    await outbox.advance(token, batch, ttl_s=TTL_S)
    for n in range(3):
        await books.ended(job, "succeeded", at(1 + n))
    await books.ended(job, "succeeded", NOW + timedelta(days=1))
    await keep_days(books.pool, now=NOW + timedelta(days=3), keep_s=1.5 * 86400)
    assert (await outbox.look()).dropped == 3
    await keep_days(books.pool, now=NOW + timedelta(days=3), keep_s=1.5 * 86400)
    assert (await outbox.look()).dropped == 3
    assert [e.at for e in await read_events(books.pool, after=batch.until, limit=9)] == [
        NOW + timedelta(days=1)
    ]


async def test_where_nobody_publishes_any_more_nothing_is_lost_with_a_day(books: Books):
    await make_days(books.pool, now=NOW)
    outbox, _ = await held(books)
    await books.owner.execute("UPDATE outbox SET held_until = $1", NOW - timedelta(days=1))
    await books.ended(await books.job("j"), "succeeded")
    await keep_days(books.pool, now=NOW + timedelta(days=3), keep_s=86400.0)
    assert (await outbox.look()).dropped == 0


@pytest.mark.parametrize("behind", [False, True])
async def test_a_restored_database_is_told_from_its_beginning_on(books: Books, behind):
    outbox, token = await held(books)
    job = await books.job("j")
    await books.ended(job, "succeeded")
    await follow(books)
    await restore(books)
    place = "5" if behind else "1000000009"
    await books.owner.execute("UPDATE outbox SET xid = $1::text::xid8", place)
    stale = await outbox.read(token, **MANY)
    await restored.begin_anew(books.pool)
    assert not await outbox.advance(token, stale, ttl_s=TTL_S)
    await books.ended(job, "dead", at(1))
    assert [c.state for c in (await outbox.read(token, **MANY)).changes] == ["dead"]


async def _attempt(books: Books, id, attempt, node, how, when, error=None) -> None:
    await books.owner.execute(
        "INSERT INTO attempts (id, scheduled_for, tenant, attempt, run, state, fencing_token, "
        "incarnation, started_at, finished_at, error) "
        "VALUES ($1, $2, 'default', $3, 1, $4, 9, $5, $2, $6, $7)",
        id,
        NOW,
        attempt,
        how,
        node,
        when,
        error,
    )


async def _fail(books: Books, job, id, *, attempt, node, how, becomes, when) -> None:
    await _attempt(books, id, attempt, node, how, when)
    await books.owner.execute(
        "INSERT INTO events (at, kind, ids, job_keys, states) "
        "VALUES ($1, $2, ARRAY[$3::bigint], ARRAY[$4::bigint], ARRAY[$5])",
        when,
        "lost" if how == "lost" else "finished",
        id,
        job,
        becomes,
    )
