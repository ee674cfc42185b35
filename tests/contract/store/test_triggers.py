"""What follows from events: each counts once, whoever reads the log and whenever a reader dies."""
# ruff: noqa: A001 - a row's key is called id everywhere

from functools import partial

import anyio
import msgspec
import pytest

from protocols.ids import execution_id
from runtime.postgres.task_calls import emit
from runtime.postgres.triggers import run_triggers
from runtime.postgres.waiting import settle
from tests.contract.store.books import NOW, Books, at

pytestmark = pytest.mark.postgres


async def follow(books: Books, *, now=NOW, limit: int = 100) -> set[str]:
    pools: set[str] = set()
    while True:
        settled = await run_triggers(books.pool, now=now, limit=limit)
        pools.update(settled.pools)
        if not settled.more:
            return pools


def event(name: str, wanted=None):
    return (name, None, None, wanted or {})


async def inputs(books: Books, job: int):
    rows = await books.all("SELECT input FROM executions WHERE job_key = $1 ORDER BY id", job)
    return [None if value is None else msgspec.json.decode(value) for (value,) in rows]


# --- on: event ------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_an_event_triggers_the_jobs_that_name_it_once(books: Books):
    job = await books.job("j", triggers=[event("e"), event("e")], pool="p", priority=1)
    other = await books.job("other", triggers=[event("f")])
    await emit(books.pool, "default", "e", b'{"n": 1}', now=NOW)
    await emit(books.pool, "another", "e", b'{"n": 2}', now=NOW)
    assert await follow(books, now=at(5)) == {"p"}
    assert await follow(books, now=at(6)) == set()
    row = dict(await books.owner.fetchrow("SELECT * FROM executions"))
    assert (row["job_key"], row["origin"], row["scheduled_for"]) == (job, row["id"], at(5))
    assert (row["state"], row["holds_turn"], row["pool"], row["priority"]) == (
        "scheduled",
        True,
        "p",
        1,
    )
    assert await inputs(books, job) == [{"n": 1}]
    assert await books.hot(other) == []
    assert await books.all("SELECT ids, states FROM events WHERE kind = 'triggered'") == [
        ([row["id"]], ["scheduled"])
    ]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("wanted", "payload", "holds"),
    [
        ({}, None, True),
        ({"a.b": 1}, {"a": {"b": 1}}, True),
        ({"a.b": 1}, {"a": {"b": 1.0}}, True),
        ({"a.b": 1}, {"a": {"b": "1"}}, False),
        ({"a.b": 1}, {"a": 3}, False),
        ({"a.b": 1}, None, False),
        ({"a": None}, {"a": None}, True),
        ({"a": None}, {}, False),
        ({"a": 1, "b": True}, {"a": 1, "b": True, "c": 0}, True),
        ({"a": 1, "b": True}, {"a": 1, "b": False}, False),
        ({"list.1": "x"}, {"list": ["w", "x"]}, True),
        ({"a": {"x": [1, 2]}}, {"a": {"x": [1, 2]}}, True),
    ],
)
async def test_a_filter_holds_for_equal_values_at_its_paths(books: Books, wanted, payload, holds):
    job = await books.job("j", triggers=[event("e", wanted)])
    body = None if payload is None else msgspec.json.encode(payload)
    await emit(books.pool, "default", "e", body, now=NOW)
    await follow(books)
    assert await inputs(books, job) == ([payload] if holds else [])


@pytest.mark.asyncio
async def test_what_events_trigger_waits_its_turn_in_their_order(books: Books):
    skip = await books.job("skip", triggers=[event("e")])
    queue = await books.job("queue", triggers=[event("e")], overlap="queue")
    allow = await books.job("allow", triggers=[event("e")], overlap="allow")
    paused = await books.job("paused", triggers=[event("e")], paused=True)
    for n in range(105):
        await emit(books.pool, "default", "e", b"%d" % n, now=NOW)
    await follow(books, limit=50)
    for job, waiting in ((skip, 104), (queue, 100)):
        rows = await books.hot(job)
        assert rows[0][1:] == ("scheduled", None, True)
        assert [row[1:] for row in rows[1:]] == [("blocked", "overlap", False)] * waiting
        assert await inputs(books, job) == list(range(waiting + 1))
    assert [row[1:] for row in await books.final(queue)] == [("skipped", "overlap")] * 4
    assert {row[1:] for row in await books.hot(allow)} == {("scheduled", None, False)}
    assert [row[1:] for row in await books.final(paused)] == [("skipped", "paused")] * 105


@pytest.mark.asyncio
async def test_many_readers_and_dying_ones_count_each_event_once(books: Books):
    job = await books.job("j", triggers=[event("e")], overlap="allow")
    for n in range(60):
        await emit(books.pool, "default", "e", b"%d" % n, now=NOW)

    async def read(pool) -> None:
        while (await run_triggers(pool, now=NOW, limit=7)).more:
            pass

    async with books.another_node() as other:
        # A reader whose node ended in the middle leaves nothing behind.
        async with books.owner.acquire() as dying:
            transaction = dying.transaction()
            await transaction.start()
            await dying.execute("SELECT FROM event_readers WHERE name = 'triggers' FOR UPDATE")
            await transaction.rollback()
        async with anyio.create_task_group() as group:
            for pool in (books.pool, other, books.pool, other):
                group.start_soon(read, pool)
    await follow(books)
    assert sorted(await inputs(books, job)) == list(range(60))


@pytest.mark.asyncio
async def test_an_event_that_commits_late_is_not_passed_over(books: Books):
    job = await books.job("j", triggers=[event("e")], overlap="allow")
    async with books.owner.acquire() as slow:
        async with slow.transaction():
            await slow.execute(
                "INSERT INTO events (at, kind, tenant, name, payload) "
                "VALUES ($1, 'emitted', 'default', 'e', '1')",
                NOW,
            )
            await emit(books.pool, "default", "e", b"2", now=NOW)
            await follow(books)
            assert await inputs(books, job) == []
        await follow(books)
    assert await inputs(books, job) == [1, 2]


@pytest.mark.asyncio
async def test_a_quiet_log_is_read_without_a_write(books: Books):
    await books.job("j", triggers=[event("e")])
    await follow(books)
    before = await books.one("SELECT pg_current_xact_id()::text::bigint")
    for _ in range(5):
        await follow(books)
    assert await books.one("SELECT pg_current_xact_id()::text::bigint") == before + 1


# --- on: job --------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize("state", ["succeeded", "dead", "cancelled", "skipped"])
async def test_a_job_follows_the_end_of_another(books: Books, state):
    parent = await books.job("p")
    child = await books.job(
        "c",
        triggers=[
            (None, parent, state, {"job_id": "p", "state": state}),
            (None, parent, state, {"job_id": "other"}),
        ],
    )
    for n, end in enumerate(("succeeded", "dead", "cancelled", "skipped")):
        if end != state:
            await books.ended(parent, end, at(n))
    id = await books.ended(parent, state, at(60))
    await follow(books, now=at(61))
    assert await inputs(books, child) == [
        {
            "job_id": "p",
            "execution_id": execution_id(id, at(60)),
            "state": state,
            "scheduled_for": "2026-12-01T08:01:00.000000Z",
        }
    ]


@pytest.mark.asyncio
async def test_a_job_that_triggers_itself_makes_one_for_each_that_ends(books: Books):
    job = await books.job("j")
    await books.owner.execute(
        "INSERT INTO job_triggers (tenant, job_key, number, parent_key, state) "
        "VALUES ('default', $1, 0, $1, 'succeeded')",
        job,
    )
    await books.ended(job, "succeeded")
    for n in range(1, 4):
        await follow(books, now=at(n))
        ((id, *_),) = await books.hot(job)
        await books.end(id, "succeeded", at(n))
    assert len(await books.final(job)) == 4


# --- parents of jobs without a schedule -----------------------------------------------------


@pytest.mark.asyncio
async def test_a_job_without_a_schedule_runs_once_all_parents_have_succeeded(books: Books):
    one, two = await books.job("one"), await books.job("two")
    child = await books.job("c", parents=[one, two])
    await books.ended(one, "succeeded", at(1))
    await books.ended(one, "succeeded", at(2))
    await books.ended(two, "dead", at(3))
    await follow(books, now=at(4))
    assert await books.hot(child) == []

    await books.ended(two, "succeeded", at(5))
    assert await follow(books, now=at(6)) == {"default"}
    ((first, *rest),) = await books.hot(child)
    assert rest == ["scheduled", None, True]
    await books.ended(one, "succeeded", at(7))
    await follow(books, now=at(8))
    await books.end(first, "succeeded", at(9))
    await settle(books.pool, None, now=at(9))
    assert await books.hot(child) == []  # `two` has not succeeded since
    await books.ended(two, "succeeded", at(10))
    await follow(books, now=at(11))
    assert len(await books.hot(child)) == 1


@pytest.mark.asyncio
async def test_successes_during_a_run_make_one_run_after_it(books: Books):
    parent = await books.job("p")
    child = await books.job("c", parents=[parent])
    await books.ended(parent, "succeeded", at(1))
    await follow(books, now=at(1))
    ((first, *_),) = await books.hot(child)
    for n in range(2, 6):
        await books.ended(parent, "succeeded", at(n))
        await follow(books, now=at(n))
    assert len(await books.hot(child)) == 1
    await books.end(first, "dead", at(7))
    settled = await settle(books.pool, [child], now=at(7))
    assert settled.pools == ["default"]
    ((second, *rest),) = await books.hot(child)
    assert rest == ["scheduled", None, True]
    await books.end(second, "succeeded", at(8))
    await settle(books.pool, None, now=at(8))
    await follow(books, now=at(8))
    assert await books.hot(child) == []


@pytest.mark.asyncio
async def test_many_who_gather_at_once_make_one_run(books: Books):
    parents = [await books.job(f"p{n}") for n in range(3)]
    children = [await books.job(f"c{n}", parents=parents, overlap="allow") for n in range(10)]
    async with books.another_node() as other:
        for turn in range(3):
            for parent in parents:
                await books.ended(parent, "succeeded", at(turn))
            async with anyio.create_task_group() as group:
                for pool in (books.pool, other):
                    group.start_soon(partial(run_triggers, pool, now=at(turn), limit=2))
                    group.start_soon(partial(settle, pool, None, now=at(turn)))
            await follow(books, now=at(turn))
            await settle(books.pool, None, now=at(turn))
    for child in children:
        assert len(await books.hot(child)) == 3


@pytest.mark.asyncio
async def test_parents_of_a_scheduled_job_make_no_run_by_themselves(books: Books):
    parent = await books.job("p")
    child = await books.job("c", parents=[parent])
    await books.schedule(child, cursor=NOW, next_fire_at=at(3600))
    await books.ended(parent, "succeeded", at(1))
    await follow(books, now=at(2))
    await settle(books.pool, None, now=at(2))
    assert await books.hot(child) == []
