"""A database restored from a dump counts its transactions anew; triggers go on all the same."""

import pytest

from runtime.postgres import restored
from runtime.postgres.task_calls import emit
from tests.contract.store.books import NOW, Books
from tests.contract.store.test_triggers import event, follow, inputs

pytestmark = pytest.mark.postgres


async def restore(books: Books) -> None:
    """Leave the log as a dump of another cluster would: ahead of all that happens here."""
    await books.owner.execute(
        "UPDATE events SET xid = (1000000000 + number)::text::xid8; "
        "UPDATE event_readers SET xid = '1000000009', number = 9 WHERE name = 'triggers'"
    )


@pytest.mark.asyncio
async def test_triggers_go_on_in_a_restored_database(books: Books, monkeypatch):
    monkeypatch.setattr(restored, "_PUT_BEHIND", restored._PUT_BEHIND.replace("5000", "2"))
    job = await books.job("j", triggers=[event("e")], overlap="allow")
    for n in range(5):
        await emit(books.pool, "default", "e", b"%d" % n, now=NOW)
    await follow(books)
    await restore(books)
    await follow(books)
    await emit(books.pool, "default", "e", b"5", now=NOW)
    await follow(books)
    assert await inputs(books, job) == [0, 1, 2, 3, 4, 5]
    # What was read in the old cluster is not read again when its numbers have come.
    (old,) = await books.owner.fetch("SELECT count(*) FROM events WHERE xid = '0'")
    assert old[0] > 5
    assert (
        await books.one(
            "SELECT count(*) FROM events WHERE xid > pg_snapshot_xmax(pg_current_snapshot())"
        )
        == 0
    )


@pytest.mark.asyncio
async def test_many_who_find_a_restored_database_mend_it_once(books: Books):
    job = await books.job("j", triggers=[event("e")], overlap="allow")
    await emit(books.pool, "default", "e", b"0", now=NOW)
    await follow(books)
    await restore(books)
    async with books.another_node() as other:
        await restored.begin_anew(books.pool)
        await emit(books.pool, "default", "e", b"1", now=NOW)
        await restored.begin_anew(other)
    await follow(books)
    assert await inputs(books, job) == [0, 1]
