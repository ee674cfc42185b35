"""An `@after` schedule counts on from each finish, until its end."""
# ruff: noqa: A001 - a row's key is called id everywhere

import pytest

from runtime.postgres.waiting import settle
from tests.contract.store.books import NOW, Books, at

pytestmark = pytest.mark.postgres


@pytest.mark.asyncio
async def test_after_counts_on_from_the_last_finish(books: Books):
    job = await books.job("j")
    await books.schedule(job, cursor=NOW, after_s=60.0)
    id = await books.row(job, state="running", incarnation=1)
    assert not (await settle(books.pool, None, now=at(5))).schedules_changed
    await books.end(id, "dead", at(10))
    assert (await settle(books.pool, [job], now=at(11))).schedules_changed
    assert not (await settle(books.pool, [job], now=at(11))).schedules_changed
    assert await books.one("SELECT next_fire_at FROM schedules") == at(70)


@pytest.mark.asyncio
async def test_after_goes_on_where_history_has_forgotten_the_finish(books: Books):
    job = await books.job("j")
    await books.schedule(job, cursor=NOW, after_s=60.0)
    await settle(books.pool, None, now=at(5))
    assert await books.one("SELECT next_fire_at FROM schedules") == at(60)


@pytest.mark.asyncio
async def test_after_counts_from_a_run_by_hand_as_well(books: Books):
    job = await books.job("j")
    await books.schedule(job, cursor=NOW, after_s=60.0)
    await books.ended(job, "succeeded")
    by_hand = await books.row(
        job, state="running", when=at(5), incarnation=1, origin=77, holds_turn=True
    )
    assert not (await settle(books.pool, [job], now=at(6))).schedules_changed
    await books.end(by_hand, "succeeded", at(30))
    assert (await settle(books.pool, [job], now=at(31))).schedules_changed
    assert await books.one("SELECT next_fire_at FROM schedules") == at(90)


@pytest.mark.asyncio
@pytest.mark.parametrize(("end", "next_fire_at"), [(70, at(70)), (69, None)])
async def test_after_counts_to_the_end_of_its_schedule(books: Books, end: int, next_fire_at):
    until = at(end).isoformat()
    job = await books.job("j", schedule={"kind": "after", "text": "@after 1m", "end": until})
    await books.schedule(job, cursor=NOW, after_s=60.0)
    await books.ended(job, "succeeded", at(10))
    assert (await settle(books.pool, [job], now=at(11))).schedules_changed
    assert await books.one("SELECT next_fire_at FROM schedules") == next_fire_at
    assert not (await settle(books.pool, None, now=at(12))).schedules_changed
