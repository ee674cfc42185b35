"""What keeps the books small: expiry, days made and dropped, long runs folded."""
# ruff: noqa: A001 - a row's key is called id everywhere

from datetime import UTC, date, datetime, timedelta

import anyio
import asyncpg
import pytest

from runtime.postgres import folds, task_calls
from runtime.postgres.upkeep import expire, tidy
from runtime.postgres.waiting import settle
from tests.contract.store.books import NOW, Books, at

pytestmark = pytest.mark.postgres

DAY = timedelta(days=1)
KEEP_S = 30 * 86400.0
PARENTS = ("attempts", "events", "execution_history", "outputs")


async def days(books: Books) -> dict[str, list[date]]:
    rows = await books.all("SELECT parent, day FROM days ORDER BY day")
    return {parent: [day for name, day in rows if name == parent] for parent in PARENTS}


# --- expiry ---------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_what_did_not_start_in_time_is_skipped(books: Books):
    parent, job, free = await books.job("p"), await books.job("j"), await books.job("free")
    held = await books.row(job, state="scheduled", holds_turn=True, expires_at=at(60))
    behind = await books.row(job, state="blocked", when=at(1), reason="overlap", overlap="queue")
    gated = await books.blocked(free, parent)
    await books.owner.execute("UPDATE executions SET expires_at = $1 WHERE id = $2", at(60), gated)
    runs = await books.row(free, state="running", when=at(2), incarnation=1, expires_at=at(1))
    waits = await books.row(free, state="scheduled", when=at(3), expires_at=at(61))

    assert await expire(books.pool, now=at(59), limit=10) == 0
    assert await expire(books.pool, now=at(60), limit=10) == 2
    assert await expire(books.pool, now=at(60), limit=10) == 0
    assert await books.final(job) == [(held, "skipped", "expired")]
    assert await books.final(free) == [(gated, "skipped", "expired")]
    assert [row[:2] for row in await books.hot(free)] == [(runs, "running"), (waits, "scheduled")]
    assert await books.one("SELECT count(*) FROM wait_edges") == 0
    await settle(books.pool, None, now=at(60))
    assert await books.hot(job) == [(behind, "scheduled", None, True)]


@pytest.mark.asyncio
async def test_expiry_is_bounded_and_done_once_by_many(books: Books):
    job = await books.job("j", overlap="allow")
    for n in range(40):
        await books.row(job, state="scheduled", when=at(n), overlap="allow", expires_at=at(60))
    done: list[int] = []

    async def some(pool) -> None:
        done.append(await expire(pool, now=at(60), limit=15))

    assert await expire(books.pool, now=at(60), limit=5) == 5
    async with books.another_node() as other, anyio.create_task_group() as group:
        for pool in (books.pool, other, books.pool):
            group.start_soon(some, pool)
    while await expire(books.pool, now=at(60), limit=15):
        pass
    assert len(await books.final(job)) == 40
    told = await books.all("SELECT unnest(ids) AS id FROM events WHERE kind = 'skipped'")
    assert len(told) == len(set(told)) == 40


@pytest.mark.asyncio
async def test_a_claim_that_is_quicker_keeps_what_it_took(books: Books):
    job = await books.job("j")
    id = await books.row(job, state="scheduled", expires_at=at(60))
    done: list[int] = []

    async def overdue() -> None:
        done.append(await expire(books.pool, now=at(60), limit=10))

    async with (
        books.owner.acquire() as claim,
        anyio.create_task_group() as group,
        claim.transaction(),
    ):
        await claim.execute(
            "UPDATE executions SET state = 'running', fencing_token = 1, incarnation = 1 "
            "WHERE id = $1",
            id,
        )
        group.start_soon(overdue)
        await books.someone_waits()
    assert done == [0]
    assert await books.hot(job) == [(id, "running", None, False)]


# --- days -----------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_days_are_made_ahead_by_a_node_that_may_nothing_else(books: Books):
    await tidy(books.pool, now=NOW, keep_s=KEEP_S)
    await tidy(books.pool, now=NOW, keep_s=KEEP_S)
    ahead = [date(2026, 12, 1) + n * DAY for n in range(4)]
    assert await days(books) == dict.fromkeys(PARENTS, ahead)
    for refused in (
        "CREATE TABLE t (a integer)",
        "DROP TABLE execution_history_20261201",
        "SELECT * FROM execution_history_20261201",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await books.pool.fetch(refused)
    for parent in ("jobs", "events; DROP TABLE jobs"):
        with pytest.raises(asyncpg.NoDataFoundError):
            await books.pool.fetch("SELECT make_day($1, '2026-12-01')", parent)


@pytest.mark.asyncio
async def test_a_day_takes_over_what_the_default_partition_has_of_it(books: Books):
    job = await books.job("j")
    late = datetime(2026, 12, 1, 23, 59, 59, 999999, tzinfo=UTC)
    instants = [NOW - 2 * DAY, NOW, late, NOW + 9 * DAY, NOW - 100 * DAY]
    for instant in instants:
        await books.ended(job, "succeeded", instant)
    await books.owner.execute("UPDATE execution_history SET finished_at = $1", NOW)
    before = await books.all("SELECT * FROM execution_history ORDER BY id")
    await tidy(books.pool, now=NOW, keep_s=KEEP_S)
    assert await books.all("SELECT * FROM execution_history ORDER BY id") == before
    assert await books.all(
        "SELECT tableoid::regclass::text, scheduled_for FROM execution_history ORDER BY id"
    ) == [
        ("execution_history_other", instants[0]),
        ("execution_history_20261201", instants[1]),
        ("execution_history_20261201", instants[2]),
        ("execution_history_other", instants[3]),
        ("execution_history_other", instants[4]),
    ]
    with pytest.raises(asyncpg.UniqueViolationError):
        await books.row(job, state="scheduled", when=NOW)
    # Every index of the parent is there, and an insert through the parent numbers events on.
    await task_calls.emit(books.pool, "default", "e", None, now=NOW)
    numbers = [n for (n,) in await books.all("SELECT number FROM events ORDER BY number")]
    assert numbers == [1, 2, 3, 4, 6]  # the fifth told of what is long past
    assert await books.one(
        "SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid "
        "WHERE c.relname = 'execution_history_20261201'"
    ) == await books.one(
        "SELECT count(*) FROM pg_index WHERE indrelid = 'execution_history'::regclass"
    )


@pytest.mark.asyncio
async def test_days_past_keeping_are_dropped_whole(books: Books):
    job = await books.job("j")
    for n in range(3):
        await tidy(books.pool, now=NOW + n * DAY, keep_s=KEEP_S)
    await books.ended(job, "succeeded", NOW)
    await books.ended(job, "succeeded", NOW + DAY)
    await tidy(books.pool, now=datetime(2026, 12, 31, 23, 59, tzinfo=UTC), keep_s=KEEP_S)
    assert len(await books.final(job)) == 2
    await tidy(books.pool, now=datetime(2027, 1, 1, tzinfo=UTC), keep_s=KEEP_S)
    assert (await days(books))["execution_history"][0] == date(2026, 12, 2)
    assert len(await books.final(job)) == 1


@pytest.mark.asyncio
async def test_what_no_day_holds_goes_by_when_it_ended(books: Books):
    job = await books.job("j")
    old = NOW - 400 * DAY
    gone, kept = await books.ended(job, "dead", old), await books.ended(job, "dead", old + DAY)
    hot = await books.row(job, state="scheduled", when=old + 2 * DAY)
    for id in (gone, kept, hot):
        await books.owner.execute(
            "INSERT INTO attempts (id, scheduled_for, tenant, attempt, run, state, fencing_token, "
            "incarnation, started_at, finished_at) "
            "VALUES ($1, $2, 'default', 1, 1, 'failed', 1, 1, $2, $2)",
            id,
            old,
        )
    await books.owner.execute(
        "UPDATE execution_history SET finished_at = $1 WHERE id = $2", NOW, kept
    )
    await tidy(books.pool, now=NOW, keep_s=KEEP_S)
    assert [row[0] for row in await books.final(job)] == [kept]
    assert await books.all("SELECT id FROM attempts ORDER BY id") == [(kept,), (hot,)]
    assert await books.one("SELECT count(*) FROM events WHERE at < $1", NOW - 300 * DAY) == 0


@pytest.mark.asyncio
async def test_two_janitors_and_a_busy_house_keep_the_days(books: Books):
    job = await books.job("j", overlap="allow")
    await tidy(books.pool, now=NOW - 31 * DAY, keep_s=KEEP_S)
    await books.node()

    async def work() -> None:
        for n in range(60):
            await books.ended(job, "succeeded", at(n))

    async with books.another_node() as other, anyio.create_task_group() as group:
        group.start_soon(work)
        for pool in (books.pool, other, books.pool, other):
            group.start_soon(lambda pool=pool: tidy(pool, now=NOW + DAY, keep_s=KEEP_S))
    assert {(made[0], made[-1], len(made)) for made in (await days(books)).values()} == {
        (date(2026, 11, 2), date(2026, 12, 5), 34)
    }
    assert len(await books.final(job)) == 60


@pytest.mark.asyncio
async def test_a_node_that_was_away_finds_the_days_it_will_catch_up(books: Books):
    await tidy(books.pool, now=NOW - 9 * DAY, keep_s=KEEP_S)
    await books.node()
    made = [date(2026, 11, 22) + n * DAY for n in range(13)]
    assert await days(books) == dict.fromkeys(PARENTS, made)


@pytest.mark.asyncio
async def test_a_long_reader_is_not_waited_for(books: Books):
    async with books.owner.acquire() as reader, reader.transaction():
        await reader.execute("LOCK TABLE events_other IN ACCESS SHARE MODE")
        await tidy(books.pool, now=NOW, keep_s=KEEP_S)
        made = await days(books)
        assert (len(made["attempts"]), len(made["events"])) == (4, 0)
    await tidy(books.pool, now=NOW, keep_s=KEEP_S)
    assert len((await days(books))["events"]) == 4


# --- folds ----------------------------------------------------------------------------------


async def skipped(books: Books, job: int, seconds, *, reason="paused", state="skipped") -> None:
    await books.owner.executemany(
        "INSERT INTO execution_history (id, created_at, tenant, job_id, job_key, version, "
        "scheduled_for, pool, priority, state, reason, finished_at) VALUES "
        "(nextval('execution_ids'), $2, 'default', 'j', $1, 1, $2, 'default', 2, $3, $4, $2)",
        [(job, at(s), state, reason if state == "skipped" else None) for s in seconds],
    )


async def shape(books: Books, job: int):
    """Return rows as (first second, last second, instants), those that stand for one as such."""
    rows = await books.all(
        "SELECT scheduled_for, last_scheduled_for, instants FROM execution_history "
        "WHERE job_key = $1 ORDER BY scheduled_for",
        job,
    )
    return [
        ((first - NOW).total_seconds(), (last or first) - NOW, count) for first, last, count in rows
    ]


def singles(seconds):
    return [(float(s), timedelta(seconds=s), 1) for s in seconds]


def run(first, last, count):
    return [(float(first), timedelta(seconds=last), count)]


@pytest.mark.asyncio
async def test_a_long_run_is_folded_once_and_grows(books: Books):
    job = await books.job("j")
    await skipped(books, job, range(250))
    for _ in range(2):
        await folds.fold(books.pool)
        assert await shape(books, job) == singles(range(100)) + run(100, 249, 150)
    await skipped(books, job, range(250, 253))
    await folds.fold(books.pool)
    assert await shape(books, job) == singles(range(100)) + run(100, 252, 153)


@pytest.mark.asyncio
async def test_a_run_ends_at_another_reason_or_anything_that_ran_or_may(books: Books):
    job, short = await books.job("j"), await books.job("short")
    await skipped(books, short, range(100))
    await skipped(books, job, range(102))
    await skipped(books, job, range(102, 204), reason="overlap")
    await skipped(books, job, [204], state="succeeded")
    await skipped(books, job, range(205, 307), reason="overlap")
    await books.row(job, state="scheduled", when=at(307))
    await skipped(books, job, range(308, 409), reason="overlap")
    await books.row(job, state="scheduled", when=at(350.5), origin=9)  # by hand: no instant
    await folds.fold(books.pool)
    assert await shape(books, job) == (
        singles(range(100))
        + run(100, 101, 2)
        + singles(range(102, 202))
        + run(202, 203, 2)
        + singles([204])
        + singles(range(205, 305))
        + run(305, 306, 2)
        + singles(range(308, 409))
    )
    assert await shape(books, short) == singles(range(100))


@pytest.mark.asyncio
async def test_a_folded_row_spans_a_week_at_most(books: Books):
    job = await books.job("j")
    hour = 3600
    await skipped(books, job, range(0, 600 * hour, hour))
    await folds.fold(books.pool)
    assert await shape(books, job) == (
        singles(range(0, 100 * hour, hour))
        + run(100 * hour, 267 * hour, 168)
        + run(268 * hour, 435 * hour, 168)
        + run(436 * hour, 599 * hour, 164)
    )


@pytest.mark.asyncio
async def test_two_who_fold_at_once_lose_no_instant(books: Books):
    jobs = [await books.job(f"j{n}") for n in range(6)]
    for job in jobs:
        await skipped(books, job, range(150))
    async with books.another_node() as other:
        for more in range(3):
            async with anyio.create_task_group() as group:
                for pool in (books.pool, other, books.pool, other):
                    group.start_soon(folds.fold, pool)
            for job in jobs:
                assert await shape(books, job) == singles(range(100)) + run(
                    100, 149 + 10 * more, 50 + 10 * more
                )
                await skipped(books, job, range(150 + 10 * more, 160 + 10 * more))


@pytest.mark.asyncio
async def test_a_run_longer_than_one_look_is_folded_by_the_next(books: Books):
    job = await books.job("j")
    await skipped(books, job, range(folds.ROWS_AT_ONCE + 500))
    for _ in range(3):
        await folds.fold(books.pool)
    assert await shape(books, job) == singles(range(100)) + run(
        100, folds.ROWS_AT_ONCE + 499, folds.ROWS_AT_ONCE + 400
    )


@pytest.mark.asyncio
async def test_a_folded_row_is_of_one_version(books: Books):
    job = await books.job("j")
    await skipped(books, job, range(400))
    await books.owner.execute(
        "UPDATE execution_history SET version = 2 WHERE scheduled_for >= $1", at(200)
    )
    await folds.fold(books.pool)
    assert await shape(books, job) == (
        singles(range(100)) + run(100, 199, 100) + singles(range(200, 300)) + run(300, 399, 100)
    )
