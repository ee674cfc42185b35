"""Nodes join, beat, leave and die; what the dead had in hand is lost once, whoever looks."""
# ruff: noqa: A001 - a row's key is called id everywhere

import anyio
import pytest

from runtime.postgres import nodes
from tests.contract.store.books import NOW, Books, at

pytestmark = pytest.mark.postgres


@pytest.mark.asyncio
async def test_a_beat_tells_the_books_and_is_told_by_them(books: Books):
    one = await books.node()
    pulse = await nodes.beat(
        books.pool, one, running={"default": 3}, leads={0: 7}, clock_offset_s=0.25, ttl_s=5
    )
    assert (pulse.state, pulse.house_paused, pulse.leaderships) == ("up", False, 1)
    row = await books.owner.fetchrow("SELECT * FROM nodes")
    assert row["pools"] == '{"default": {"slots": 4, "running": 3}}'
    assert (row["leads"], row["clock_offset_s"]) == ('{"0": 7}', 0.25)

    await books.owner.execute("UPDATE house SET paused = true")
    await books.owner.execute("UPDATE nodes SET state = 'draining'")
    pulse = await nodes.beat(books.pool, one, running={}, leads={}, clock_offset_s=0, ttl_s=5)
    assert (pulse.state, pulse.house_paused) == ("draining", True)


@pytest.mark.asyncio
async def test_a_beat_changes_nothing_that_an_index_names(books: Books):
    one = await books.node()
    for _ in range(20):
        await nodes.beat(
            books.pool, one, running={"default": 1}, leads={}, clock_offset_s=0, ttl_s=5
        )
    async with books.owner.acquire() as session:
        await session.execute("SELECT pg_stat_force_next_flush()")
    await books.pool.fetch("SELECT pg_stat_force_next_flush()")
    updates, hot = (
        await books.all(
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_all_tables WHERE relname = 'nodes'"
        )
    )[0]
    assert updates == hot > 0


@pytest.mark.asyncio
async def test_who_has_left_or_was_never_there_is_dead_to_the_books(books: Books):
    one = await books.node()
    await nodes.leave(books.pool, one, now=at(1))
    for incarnation in (one, one + 100):
        pulse = await nodes.beat(
            books.pool, incarnation, running={}, leads={}, clock_offset_s=0, ttl_s=5
        )
        assert pulse.state == "dead"
    assert await books.all("SELECT state, ended_at FROM nodes") == [("stopped", at(1))]


@pytest.mark.asyncio
async def test_what_a_dead_node_ran_is_lost_once(books: Books):
    silent, alive = await books.node("a"), await books.node("b")
    job = await books.job("j")
    kept = await books.row(job, state="running", when=at(0), incarnation=alive)
    again = await books.row(job, state="running", when=at(1), incarnation=silent, losses=4)
    spent = await books.row(job, state="running", when=at(2), incarnation=silent, losses=5)
    unique = await books.row(
        job, state="running", when=at(3), incarnation=silent, at_most_once=True
    )
    asked = await books.row(
        job, state="running", when=at(4), incarnation=silent, cancel_requested=True
    )
    token = await books.token(again)
    await books.silence(silent)

    assert await nodes.declare_dead(books.pool, ttl_s=5, now=at(60)) == [silent]
    assert await nodes.declare_dead(books.pool, ttl_s=5, now=at(61)) == []

    assert await books.all(
        "SELECT id, state, reason, run_at, losses, attempt, fencing_token FROM executions "
        "ORDER BY id"
    ) == [
        (kept, "running", None, at(0), 0, 1, await books.token(kept)),
        (again, "scheduled", None, at(60), 5, 1, None),
    ]
    assert await books.final(job) == [
        (spent, "dead", "lost"),
        (unique, "dead", "lost"),
        (asked, "cancelled", None),
    ]
    assert await books.all(
        "SELECT id, state, fencing_token, started_at, finished_at FROM attempts ORDER BY id LIMIT 1"
    ) == [(again, "lost", token, at(1), at(60))]
    assert await books.one("SELECT count(*) FROM attempts") == 4
    assert await books.all("SELECT ids, states FROM events WHERE kind = 'lost'") == [
        ([again, spent, unique, asked], ["scheduled", "dead", "dead", "cancelled"])
    ]
    assert await books.all("SELECT state, ended_at FROM nodes ORDER BY incarnation") == [
        ("dead", at(60)),
        ("up", None),
    ]


@pytest.mark.asyncio
async def test_limits_held_by_the_dead_are_free_again(books: Books):
    silent, alive = await books.node("a"), await books.node("b")
    job = await books.job("j", overlap="allow")
    lost = await books.row(
        job, state="running", when=at(1), incarnation=silent, limit_key="job:1", overlap="allow"
    )
    kept = await books.row(
        job, state="running", when=at(2), incarnation=alive, limit_key="job:1", overlap="allow"
    )
    await books.owner.execute(
        "INSERT INTO limits (tenant, limit_key, most, holders) VALUES ('default', 'job:1', 2, $1)",
        [lost, kept],
    )
    await books.silence(silent)
    await nodes.declare_dead(books.pool, ttl_s=5, now=at(60))
    assert await books.one("SELECT holders FROM limits") == [kept]


@pytest.mark.asyncio
async def test_a_claim_under_way_leaves_nothing_behind(books: Books):
    """The claim holds the node's row FOR SHARE; what it takes meanwhile is lost with the rest."""
    silent = await books.node()
    job = await books.job("j")
    id = await books.row(job, state="scheduled")
    await books.silence(silent)
    dead: list[int] = []

    async def declare() -> None:
        dead.extend(await nodes.declare_dead(books.pool, ttl_s=5, now=at(60)))

    async with (
        books.owner.acquire() as claim,
        anyio.create_task_group() as group,
        claim.transaction(),
    ):
        await claim.execute("SELECT FROM nodes WHERE incarnation = $1 FOR SHARE", silent)
        group.start_soon(declare)
        await books.someone_waits()
        await claim.execute(
            "UPDATE executions SET state = 'running', attempt = 1, started_at = $3, "
            "fencing_token = nextval('fencing_tokens'), incarnation = $2 WHERE id = $1",
            id,
            silent,
            NOW,
        )
    assert dead == [silent]
    assert await books.hot(job) == [(id, "scheduled", None, False)]


@pytest.mark.asyncio
async def test_two_janitors_declare_a_node_dead_once(books: Books):
    silent = await books.node()
    job = await books.job("j")
    for n in range(200):
        await books.row(job, state="running", when=at(n), incarnation=silent)
    await books.silence(silent)
    found: list[list[int]] = []

    async def declare(pool) -> None:
        found.append(list(await nodes.declare_dead(pool, ttl_s=5, now=at(60))))

    async with books.another_node() as other, anyio.create_task_group() as group:
        group.start_soon(declare, books.pool)
        group.start_soon(declare, other)
    assert sorted(found) == [[], [silent]]
    assert await books.one("SELECT count(*) FROM attempts") == 200
    assert await books.one("SELECT sum(losses) FROM executions") == 200


@pytest.mark.asyncio
async def test_a_finish_that_was_first_is_not_lost(books: Books):
    silent = await books.node()
    job = await books.job("j")
    id = await books.row(job, state="running", incarnation=silent)
    await books.silence(silent)

    async def declare() -> None:
        await nodes.declare_dead(books.pool, ttl_s=5, now=at(60))

    async with (
        books.owner.acquire() as finish,
        anyio.create_task_group() as group,
        finish.transaction(),
    ):
        await finish.execute("SELECT FROM executions WHERE id = $1 FOR UPDATE", id)
        group.start_soon(declare)
        await books.someone_waits()
        await finish.execute("DELETE FROM executions WHERE id = $1", id)
    assert await books.one("SELECT count(*) FROM attempts") == 0
    assert await books.hot(job) == []


@pytest.mark.asyncio
async def test_more_than_one_call_can_hold_is_taken_up_by_the_next(books: Books, monkeypatch):
    silent = await books.node()
    job = await books.job("j")
    many = nodes.LOST_AT_ONCE + 500
    await books.owner.execute(
        "INSERT INTO executions (created_at, tenant, job_id, job_key, version, scheduled_for, pool,"
        " priority, state, overlap, run_at, fencing_token, incarnation, started_at, attempt) "
        "SELECT $1, 'default', 'j', $2, 1, $1::timestamptz + make_interval(secs => n), 'default', "
        "2, 'running', 'skip', $1, n, $3, $1, 1 FROM generate_series(1, $4) AS n",
        NOW,
        job,
        silent,
        many,
    )
    await books.silence(silent)
    calls = 0
    while await nodes.declare_dead(books.pool, ttl_s=5, now=at(60)):
        calls += 1
    assert calls == 2
    assert await books.all("SELECT state, count(*) FROM executions GROUP BY state") == [
        ("scheduled", many)
    ]
    assert await books.one("SELECT count(*) FROM attempts") == many


@pytest.mark.asyncio
async def test_one_that_is_alone_knows_all_others_dead(books: Books):
    earlier = await books.node()
    job = await books.job("j")
    id = await books.row(job, state="running", incarnation=earlier)
    now_here = await books.node(alone=True)
    assert now_here > earlier
    assert await books.hot(job) == [(id, "scheduled", None, False)]
    assert await books.all("SELECT state FROM nodes ORDER BY incarnation") == [("dead",), ("up",)]


@pytest.mark.asyncio
async def test_what_a_leaving_node_could_not_give_back_is_lost(books: Books):
    one, other = await books.node("a"), await books.node("b")
    job = await books.job("j")
    mine = await books.row(job, state="running", when=at(1), incarnation=one)
    theirs = await books.row(job, state="running", when=at(2), incarnation=other)
    await nodes.leave(books.pool, one, now=at(5))
    assert await books.hot(job) == [
        (mine, "scheduled", None, False),
        (theirs, "running", None, False),
    ]
