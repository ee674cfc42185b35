"""What waits for its turn, its parents or a finish goes when it may, once, whoever looks."""

import anyio
import pytest

from runtime.postgres import waiting
from runtime.postgres.waiting import settle
from tests.contract.store.books import NOW, Books, at

pytestmark = pytest.mark.postgres


async def until_quiet(books: Books, now=NOW):
    """Settle everything until nothing changes any more."""
    while (await settle(books.pool, None, now=now)).more:
        pass


# --- turns ----------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_free_turn_goes_to_the_oldest(books: Books):
    job, other = await books.job("j"), await books.job("other")
    holder = await books.row(job, state="scheduled", holds_turn=True)
    late = await books.row(job, state="blocked", when=at(9), reason="overlap", overlap="queue")
    early = await books.row(
        job, state="blocked", when=at(3), reason="overlap", overlap="queue", pool="p"
    )
    alone = await books.row(other, state="blocked", reason="overlap", pool="q")

    assert (await settle(books.pool, [job], now=at(10))).pools == []
    await books.end(holder, "succeeded")
    assert (await settle(books.pool, [job], now=at(10))).pools == ["p"]
    assert await books.hot(job) == [
        (late, "blocked", "overlap", False),
        (early, "scheduled", None, True),
    ]
    assert await books.hot(other) == [(alone, "blocked", "overlap", False)]
    assert (await settle(books.pool, None, now=at(10))).pools == ["q"]
    assert (await settle(books.pool, None, now=at(10))).pools == []


@pytest.mark.asyncio
async def test_a_look_at_all_takes_in_so_many_jobs_and_says_where_to_go_on(
    books: Books, monkeypatch
):
    monkeypatch.setattr(waiting, "JOBS_AT_ONCE", 2)
    parent = await books.job("parent")
    jobs = [await books.job(f"j{n}") for n in range(5)]
    for job in jobs[:3]:
        await books.row(job, state="blocked", reason="overlap", overlap="queue", pool=f"p{job}")
    for job in jobs[3:]:
        await books.blocked(job, parent)
    await books.end(await books.row(parent, state="scheduled"), "succeeded")
    went, place = [], 0
    for _ in range(3):
        settled = await settle(books.pool, None, now=at(10), after=place)
        went.append(await books.one("SELECT count(*) FROM executions WHERE state = 'scheduled'"))
        place = settled.place
    assert (went, place) == ([2, 4, 5], 0)


@pytest.mark.asyncio
async def test_many_who_settle_at_once_give_a_turn_once(books: Books):
    jobs = [await books.job(f"j{n}") for n in range(20)]
    for job in jobs:
        for n in range(3):
            await books.row(job, state="blocked", when=at(n), reason="overlap", overlap="queue")
    async with books.another_node() as other, anyio.create_task_group() as group:
        for pool in (books.pool, other, books.pool, other):
            group.start_soon(lambda pool=pool: settle(pool, None, now=at(10)))
    assert await books.all(
        "SELECT state, holds_turn, count(*) FROM executions GROUP BY 1, 2 ORDER BY 1"
    ) == [("blocked", False, 40), ("scheduled", True, 20)]
    told = await books.all("SELECT unnest(ids) FROM events WHERE kind = 'settled'")
    assert len(told) == len(set(told)) == 20


@pytest.mark.asyncio
async def test_a_turn_taken_while_we_looked_is_not_given_twice(books: Books):
    job = await books.job("j")
    waiting = await books.row(job, state="blocked", reason="overlap")
    async with (
        books.owner.acquire() as other,
        anyio.create_task_group() as group,
        other.transaction(),
    ):
        taken = await other.fetchval(
            "INSERT INTO executions (created_at, tenant, job_id, job_key, version, origin, "
            "scheduled_for, pool, priority, state, overlap, holds_turn, run_at) "
            "VALUES ($1, 'default', 'j', $2, 1, 0, $3, 'default', 2, 'scheduled', 'skip', "
            "true, $1) RETURNING id",
            NOW,
            job,
            at(7),
        )
        group.start_soon(lambda: settle(books.pool, None, now=at(10)))
        await books.someone_waits()
    assert await books.hot(job) == [
        (waiting, "blocked", "overlap", False),
        (taken, "scheduled", None, True),
    ]


@pytest.mark.asyncio
async def test_what_is_cancelled_while_we_looked_is_given_no_turn(books: Books):
    job = await books.job("j")
    waiting = await books.row(job, state="blocked", reason="overlap")
    told: list = []

    async def look() -> None:
        told.append(await settle(books.pool, [job], now=at(10)))

    async with (
        books.owner.acquire() as other,
        anyio.create_task_group() as group,
        other.transaction(),
    ):
        await other.execute("DELETE FROM executions WHERE id = $1", waiting)
        group.start_soon(look)
        await books.someone_waits()
    assert told[0].pools == []
    assert await books.one("SELECT count(*) FROM events") == 0


@pytest.mark.asyncio
async def test_what_is_meant_for_later_waits_its_turn_then(books: Books):
    job, free = await books.job("j"), await books.job("free")
    holder = await books.row(job, state="scheduled", holds_turn=True)
    waits = await books.row(
        job, state="blocked", when=at(1), reason="delayed", run_at=at(60), origin=7
    )
    goes = await books.row(
        free, state="blocked", when=at(1), reason="delayed", run_at=at(60), origin=8
    )
    await until_quiet(books, at(59))
    assert await books.hot(free) == [(goes, "blocked", "delayed", False)]
    await until_quiet(books, at(60))
    assert await books.hot(free) == [(goes, "scheduled", None, True)]
    assert await books.hot(job) == [
        (holder, "scheduled", None, True),
        (waits, "blocked", "overlap", False),
    ]


# --- parents --------------------------------------------------------------------------------


async def child_of(books: Books, *parents: int, when=NOW, job_id: str = "child", **spec):
    """Make a scheduled child and its execution of an instant, blocked."""
    child = await books.job(job_id, parents=parents, **spec)
    await books.schedule(child, cursor=when, next_fire_at=when.replace(year=2030))
    return child, await books.blocked(child, *parents, when=when, **spec)


@pytest.mark.asyncio
async def test_a_child_runs_when_each_parent_of_its_instant_has_succeeded(books: Books):
    one, two = await books.job("one"), await books.job("two")
    for parent in (one, two):
        await books.schedule(parent, cursor=NOW, next_fire_at=at(3600))
    first = await books.row(one, state="running", incarnation=1)
    second = await books.row(two, state="scheduled")
    child, row = await child_of(books, one, two)
    await until_quiet(books)
    assert await books.hot(child) == [(row, "blocked", "dependency", False)]

    await books.end(first, "succeeded", at(1))
    assert (await settle(books.pool, [one], now=at(1))).pools == []
    assert await books.hot(child) == [(row, "blocked", "dependency", False)]

    await books.end(second, "succeeded", at(2))
    assert (await settle(books.pool, [two], now=at(2))).pools == ["default"]
    assert await books.hot(child) == [(row, "scheduled", None, True)]
    assert await books.one("SELECT count(*) FROM wait_edges") == 0


@pytest.mark.asyncio
@pytest.mark.parametrize("state", ["dead", "cancelled", "skipped"])
@pytest.mark.parametrize(
    ("policy", "left", "ended"),
    [
        (None, [], [("skipped", "dependency")]),
        ("wait", [("blocked", "dependency")], []),
        ("run", [("scheduled", None)], []),
    ],
)
async def test_a_parent_that_failed(books: Books, state, policy, left, ended):
    parent = await books.job("p")
    await books.schedule(parent, cursor=NOW, next_fire_at=at(3600))
    child, _ = await child_of(
        books, parent, **({"on_dependency_failure": policy} if policy else {})
    )
    await books.ended(parent, state)
    await until_quiet(books, at(1))
    assert [row[1:3] for row in await books.hot(child)] == left
    assert [row[1:3] for row in await books.final(child)] == ended


@pytest.mark.asyncio
async def test_a_failure_goes_down_all_generations_in_one_call(books: Books):
    parent = await books.job("p")
    await books.ended(parent, "dead")
    keys = [parent]
    for n in range(5):
        child, _ = await child_of(books, keys[-1], job_id=f"c{n}")
        keys.append(child)
    await settle(books.pool, [parent], now=at(1))
    assert await books.all("SELECT DISTINCT state, reason FROM executions") == []
    assert (
        await books.one("SELECT count(*) FROM execution_history WHERE reason = 'dependency'") == 5
    )


@pytest.mark.asyncio
async def test_a_parent_that_may_still_come_to_the_instant_is_waited_for(books: Books):
    parent = await books.job("p")
    await books.ended(parent, "succeeded", at(-3600))
    await books.schedule(parent, cursor=at(-3600), next_fire_at=NOW)
    child, row = await child_of(books, parent)
    await until_quiet(books)
    assert await books.hot(child) == [(row, "blocked", "dependency", False)]

    await books.owner.execute(
        "UPDATE schedules SET cursor = $2, next_fire_at = $3 WHERE job_key = $1",
        parent,
        NOW,
        at(3600),
    )
    await until_quiet(books)
    assert await books.hot(child) == [(row, "scheduled", None, True)]


@pytest.mark.asyncio
async def test_an_instant_still_to_be_caught_up_is_waited_for(books: Books):
    parent = await books.job("p")
    await books.ended(parent, "succeeded", at(-3600))
    await books.schedule(parent, cursor=at(600), next_fire_at=at(3600))
    await books.owner.execute(
        "UPDATE schedules SET catchup_from = $2, catchup_until = $3 WHERE job_key = $1",
        parent,
        at(-1),
        at(500),
    )
    child, row = await child_of(books, parent)
    await until_quiet(books)
    assert await books.hot(child) == [(row, "blocked", "dependency", False)]


@pytest.mark.asyncio
async def test_where_the_parent_has_no_such_instant_its_latest_end_decides(books: Books):
    parent = await books.job("p")
    await books.schedule(parent, cursor=at(-600), next_fire_at=at(3000))
    child, row = await child_of(books, parent)
    await until_quiet(books)
    assert await books.hot(child) == [(row, "blocked", "dependency", False)]  # none yet: waits
    await books.ended(parent, "dead", at(-1200))
    await books.ended(parent, "succeeded", at(-600))
    await until_quiet(books)
    assert await books.hot(child) == [(row, "scheduled", None, True)]


@pytest.mark.asyncio
async def test_a_child_gives_up_at_its_timeout_else_at_its_next_instant(books: Books):
    parent = await books.job("p")
    await books.row(parent, state="running", incarnation=1)
    patient, _ = await child_of(books, parent, job_id="patient", dependency_timeout_s=90.0)
    usual, row = await child_of(books, parent, job_id="usual")
    await until_quiet(books, at(89))
    assert await books.final(patient) == []
    await until_quiet(books, at(90))
    assert [row[1:] for row in await books.final(patient)] == [("skipped", "dependency")]
    assert await books.hot(usual) == [(row, "blocked", "dependency", False)]

    following = await books.blocked(usual, parent, when=at(100))
    await until_quiet(books, at(99))
    assert len(await books.hot(usual)) == 2
    await until_quiet(books, at(100))
    assert await books.hot(usual) == [(following, "blocked", "dependency", False)]
    assert await books.final(usual) == [(row, "skipped", "dependency")]


@pytest.mark.asyncio
async def test_what_its_parents_let_go_takes_its_turn_by_the_overlap_rule(books: Books):
    parent = await books.job("p")
    await books.ended(parent, "succeeded")
    ends = {}
    for overlap in ("skip", "queue", "allow", "cancel_running"):
        child, row = await child_of(books, parent, job_id=overlap, overlap=overlap)
        holds = overlap != "allow"
        holder = await books.row(
            child, state="running", when=at(-60), incarnation=1, overlap=overlap, holds_turn=holds
        )
        ends[overlap] = (child, holder, row)
    await until_quiet(books, at(1))

    child, holder, row = ends["skip"]
    assert await books.hot(child) == [(holder, "running", None, True)]
    assert await books.final(child) == [(row, "skipped", "overlap")]
    child, _, row = ends["queue"]
    assert (await books.hot(child))[0] == (row, "blocked", "overlap", False)
    child, _, row = ends["allow"]
    assert (await books.hot(child))[0] == (row, "scheduled", None, False)
    child, holder, row = ends["cancel_running"]
    assert (await books.hot(child))[0] == (row, "blocked", "overlap", False)
    assert await books.all("SELECT id FROM executions WHERE cancel_requested") == [(holder,)]


@pytest.mark.asyncio
async def test_a_met_child_cancels_what_has_its_turn_and_has_not_begun(books: Books):
    parent = await books.job("p")
    await books.ended(parent, "succeeded")
    child, row = await child_of(books, parent, overlap="cancel_running")
    holder = await books.row(
        child, state="scheduled", when=at(-60), overlap="cancel_running", holds_turn=True
    )
    await until_quiet(books, at(1))
    assert await books.hot(child) == [(row, "scheduled", None, True)]
    assert await books.final(child) == [(holder, "cancelled", "overlap")]


@pytest.mark.asyncio
async def test_a_hundred_at_most_wait_in_a_queue(books: Books):
    parent = await books.job("p")
    await books.ended(parent, "succeeded")
    child, _ = await child_of(books, parent, overlap="queue")
    await books.row(
        child, state="running", when=at(-60), incarnation=1, overlap="queue", holds_turn=True
    )
    for n in range(99):
        await books.row(
            child, state="blocked", when=at(-50 + n / 9), reason="overlap", overlap="queue"
        )
    over = await books.blocked(child, parent, when=at(2), overlap="queue")
    await until_quiet(books, at(3))
    assert await books.final(child) == [(over, "skipped", "overlap")]
    assert len(await books.hot(child)) == 101


@pytest.mark.asyncio
async def test_many_who_settle_at_once_let_a_child_go_once(books: Books):
    parent = await books.job("p")
    await books.ended(parent, "succeeded")
    for n in range(30):
        await child_of(books, parent, job_id=f"c{n}", overlap="allow" if n % 2 else "skip")
    async with books.another_node() as other, anyio.create_task_group() as group:
        for pool in (books.pool, other, books.pool, other):
            group.start_soon(lambda pool=pool: settle(pool, None, now=at(10)))
    assert await books.all("SELECT DISTINCT state, reason FROM executions") == [("scheduled", None)]
    told = await books.all(
        "SELECT id, count(*) FROM events, unnest(ids, states) AS e(id, state) "
        "WHERE kind = 'settled' AND state = 'scheduled' GROUP BY id"
    )
    assert [count for _, count in told] == [1] * 30
