"""What nobody can use any more is forgotten: keys, checkpoints, nodes that ended."""
# ruff: noqa: A001 - a row's key is called id everywhere

from datetime import timedelta

import pytest

from runtime.postgres import nodes, task_calls
from runtime.postgres.upkeep import tidy
from tests.contract.store.books import NOW, Books, at

pytestmark = pytest.mark.postgres

DAY = timedelta(days=1)
KEEP_S = 30 * 86400.0


@pytest.mark.asyncio
async def test_keys_that_nobody_can_use_are_forgotten(books: Books):
    job = await books.job("j", overlap="allow")
    await task_calls.emit(books.pool, "default", "e", None, now=NOW, key="old")
    await task_calls.emit(books.pool, "default", "e", None, now=at(60), key="new")
    rows = [
        await books.row(job, state="running", when=at(n), incarnation=1, overlap="allow")
        for n in range(4)
    ]
    for id in rows:
        token = await books.token(id)
        await task_calls.once(books.pool, id, token, str(id), 60.0, now=NOW)
        await task_calls.save_checkpoint(books.pool, id, token, b"1", now=NOW - 31 * DAY)
    live, dead, forgotten, succeeded = rows
    await books.end(dead, "dead")
    await books.end(forgotten, "dead")
    await books.end(succeeded, "succeeded")
    await books.owner.execute("DELETE FROM execution_history WHERE id = $1", forgotten)
    await books.owner.execute(
        "UPDATE once_keys SET expires_at = $1 WHERE execution = $2", at(60), succeeded
    )
    await tidy(books.pool, now=at(24 * 3600), keep_s=KEEP_S)
    assert await books.all("SELECT key FROM idempotency_keys") == [("new",)]
    assert await books.all("SELECT execution FROM once_keys ORDER BY 1") == [(live,), (dead,)]
    assert await books.all("SELECT execution FROM checkpoints ORDER BY 1") == [
        (live,),
        (dead,),
        (succeeded,),
    ]


@pytest.mark.asyncio
async def test_nodes_that_no_kept_day_can_name_are_forgotten(books: Books):
    leader, old, recent = [await books.node(name) for name in ("a", "b", "c")]
    lives = await books.node("d")
    await books.owner.execute("UPDATE leaderships SET incarnation = $1", leader)
    for incarnation in (leader, old):
        await nodes.leave(books.pool, incarnation, now=NOW)
    await nodes.leave(books.pool, recent, now=NOW + timedelta(seconds=1))
    await tidy(books.pool, now=NOW + 31 * DAY, keep_s=KEEP_S)
    assert await books.one("SELECT count(*) FROM nodes") == 4
    await tidy(books.pool, now=NOW + 31 * DAY + timedelta(seconds=1), keep_s=KEEP_S)
    left = await books.all("SELECT incarnation FROM nodes ORDER BY 1")
    assert left == [(leader,), (recent,), (lives,)]
