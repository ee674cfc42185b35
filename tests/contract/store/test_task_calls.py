"""Checkpoints, `once` and events: by the token in force, once, and with races decided one way."""
# ruff: noqa: A001, A002 - a row's key is called id everywhere

import anyio
import pytest

from protocols.errors import InvalidError, KeyReusedError
from runtime.postgres import task_calls
from runtime.postgres.events import START, end_of_events, read_events
from tests.contract.store.books import NOW, Books, at

pytestmark = pytest.mark.postgres


async def running(books: Books, job: int, when: float = 0, **columns) -> tuple[int, int]:
    id = await books.row(job, state="running", when=at(when), incarnation=1, **columns)
    return id, await books.token(id)


async def next_attempt(books: Books, id: int) -> int:
    return await books.one(
        "UPDATE executions SET attempt = attempt + 1, fencing_token = nextval('fencing_tokens') "
        "WHERE id = $1 RETURNING fencing_token",
        id,
    )


# --- checkpoints ----------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_checkpoint_needs_the_token_in_force(books: Books):
    job = await books.job("j")
    id, token = await running(books, job)
    save = task_calls.save_checkpoint
    assert await save(books.pool, id, token, b"1", now=NOW)
    assert await save(books.pool, id, token, b"2", now=NOW)
    later = await next_attempt(books, id)
    assert not await save(books.pool, id, token, b"3", now=NOW)
    assert await books.all("SELECT execution, value, fencing_token FROM checkpoints") == [
        (id, b"2", token)
    ]
    assert await save(books.pool, id, later, b"4", now=NOW)
    assert await books.one("SELECT keeps FROM executions WHERE id = $1", id)
    await books.end(id, "succeeded")
    assert not await save(books.pool, id, later, b"5", now=NOW)
    assert await books.all("SELECT value FROM checkpoints") == [(b"4",)]


@pytest.mark.asyncio
async def test_a_checkpoint_of_the_job_outlives_its_execution(books: Books):
    job = await books.job("j", checkpoint="job")
    for n in range(2):
        id, token = await running(books, job, n)
        assert await task_calls.save_checkpoint(books.pool, id, token, b"%d" % n, now=NOW)
        await books.end(id, "succeeded")
    assert await books.all("SELECT execution, value FROM checkpoints") == [(0, b"1")]


@pytest.mark.asyncio
async def test_a_token_lost_while_we_ask_keeps_nothing(books: Books):
    job = await books.job("j")
    id, token = await running(books, job)
    said: list[bool] = []

    async def save() -> None:
        said.append(await task_calls.save_checkpoint(books.pool, id, token, b"1", now=NOW))

    async with (
        books.owner.acquire() as janitor,
        anyio.create_task_group() as group,
        janitor.transaction(),
    ):
        await janitor.execute(
            "UPDATE executions SET state = 'scheduled', fencing_token = NULL, "
            "incarnation = NULL WHERE id = $1",
            id,
        )
        group.start_soon(save)
        await books.someone_waits()
    assert said == [False]
    assert await books.one("SELECT count(*) FROM checkpoints") == 0


# --- once -----------------------------------------------------------------------------------


def once(books: Books, who: tuple[int, int], *, now=NOW, key: str = "k", pool=None):
    return task_calls.once(pool or books.pool, *who, key, 60.0, now=now)


@pytest.mark.asyncio
async def test_once_is_first_for_one_attempt_and_again_for_the_next(books: Books):
    job = await books.job("j", overlap="allow")
    mine, other = await running(books, job, 0), await running(books, job, 1)
    assert await once(books, mine) == "first"
    assert await once(books, mine) == "first"  # a repeat after a lost answer
    assert await once(books, other) == "no"
    assert await once(books, other, key="another") == "first"
    later = (mine[0], await next_attempt(books, mine[0]))
    assert await once(books, mine) is None
    assert await once(books, later) == "again"
    assert await once(books, later) == "again"
    assert await once(books, other) == "no"


@pytest.mark.asyncio
async def test_the_ttl_counts_from_success(books: Books):
    job = await books.job("j", overlap="allow")
    mine, other = await running(books, job, 0), await running(books, job, 1)
    assert await once(books, mine) == "first"
    assert await once(books, other, now=at(3600)) == "no"  # still running: no end in sight
    await books.owner.execute("UPDATE once_keys SET expires_at = $1", at(60))
    await books.end(mine[0], "succeeded")
    assert await once(books, other, now=at(59)) == "no"
    assert await once(books, other, now=at(60)) == "first"
    assert await books.all("SELECT execution, expires_at FROM once_keys") == [(other[0], None)]


@pytest.mark.asyncio
@pytest.mark.parametrize("state", ["dead", "cancelled"])
async def test_who_ended_without_success_leaves_its_keys(books: Books, state):
    job = await books.job("j", overlap="allow")
    mine, other = await running(books, job, 0), await running(books, job, 1)
    assert await once(books, mine) == "first"
    assert await once(books, mine, key="kept") == "first"
    await books.end(mine[0], state)
    assert await once(books, other) == "first"

    await books.owner.execute("DELETE FROM execution_history WHERE id = $1", mine[0])
    replay = await running(books, job, 0, id=mine[0], run=2)
    assert await once(books, replay) == "no"
    assert await once(books, replay, key="kept") == "again"


@pytest.mark.asyncio
async def test_of_many_who_ask_at_once_one_is_first(books: Books):
    job = await books.job("j", overlap="allow")
    everyone = [await running(books, job, n) for n in range(12)]
    dead = await running(books, job, 99)
    assert await once(books, dead, key="left") == "first"
    await books.end(dead[0], "dead")
    said: dict[str, list] = {"new": [], "left": []}

    async def ask(key, who, pool) -> None:
        said[key].append(await once(books, who, key=key, pool=pool))

    async with books.another_node() as other, anyio.create_task_group() as group:
        for n, who in enumerate(everyone):
            for key in said:
                group.start_soon(ask, key, who, other if n % 2 else books.pool)
    for answers in said.values():
        assert sorted(answers) == ["first"] + ["no"] * 11


@pytest.mark.asyncio
async def test_once_refuses_what_it_cannot_keep(books: Books):
    job = await books.job("j")
    id, token = await running(books, job)
    for key, ttl_s in (("a\0b", 1.0), ("k", 0.0), ("k", float("inf")), ("k", float("nan"))):
        with pytest.raises(InvalidError):
            await task_calls.once(books.pool, id, token, key, ttl_s, now=NOW)


# --- events ---------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_an_event_with_a_key_is_told_once(books: Books):
    async def emit(payload: bytes | None, *, now=NOW, key="k", tenant="default") -> None:
        await task_calls.emit(books.pool, tenant, "e", payload, now=now, key=key)

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(emit, b'{"a": 1}')
    with pytest.raises(KeyReusedError):
        await emit(b'{"a": 2}')
    await emit(b'{"a": 2}', tenant="other")
    await emit(b'{"a": 3}', now=at(24 * 3600))
    assert await books.all("SELECT tenant, payload FROM events ORDER BY number") == [
        ("default", '{"a": 1}'),
        ("other", '{"a": 2}'),
        ("default", '{"a": 3}'),
    ]


@pytest.mark.asyncio
@pytest.mark.parametrize("payload", [b"{", b"\xff", b'"\\u0000"', b""])
async def test_a_payload_that_cannot_be_kept_is_the_users_error(books: Books, payload):
    for key in (None, "k"):
        with pytest.raises(InvalidError, match="payload"):
            await task_calls.emit(books.pool, "default", "e", payload, now=NOW, key=key)
    assert await books.one("SELECT count(*) FROM events") == 0
    assert await books.one("SELECT count(*) FROM idempotency_keys") == 0


@pytest.mark.asyncio
async def test_a_reader_stops_before_what_may_still_be_preceded(books: Books):
    async def emit(name: str) -> None:
        await task_calls.emit(books.pool, "default", name, b"1", now=NOW)

    await emit("one")
    async with books.owner.acquire() as slow:
        async with slow.transaction():
            await slow.execute(
                "INSERT INTO events (at, kind, tenant, name) VALUES ($1, 'emitted', 't', 'slow')",
                NOW,
            )
            await emit("two")
            read = await read_events(books.pool, after=START, limit=10)
            assert [event.name for event in read] == ["one"]
            assert read[0].payload == b"1"
        rest = await read_events(books.pool, after=read[0].place, limit=10)
    assert [event.name for event in rest] == ["slow", "two"]
    assert await read_events(books.pool, after=rest[-1].place, limit=10) == []

    end = await end_of_events(books.pool)
    await emit("three")
    assert [e.name for e in await read_events(books.pool, after=end, limit=10)] == ["three"]
    assert len(await read_events(books.pool, after=START, limit=2)) == 2


# --- what a node asks about its own ---------------------------------------------------------


@pytest.mark.asyncio
async def test_a_node_hears_whom_to_cancel_and_what_it_runs(books: Books):
    job = await books.job("j", overlap="allow")
    one, two = await running(books, job, 0), await running(books, job, 1, cancel_requested=True)
    await books.row(job, state="running", when=at(2), incarnation=2, cancel_requested=True)
    await books.row(job, state="scheduled", when=at(3), cancel_requested=True)
    assert await task_calls.cancel_requests(books.pool, 1) == [two]
    await books.row(job, state="running", when=at(4), incarnation=1, pool="other")
    assert await task_calls.running(books.pool, 1, "default") == [one, two]
