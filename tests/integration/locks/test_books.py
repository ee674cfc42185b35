"""Locks in PostgreSQL: one holder, tokens that grow, turns in order, the database's clock."""

import anyio
import anyio.lowlevel
import pytest

from protocols.errors import NotFoundError
from runtime.postgres.locks import PostgresLocks, forget_locks
from runtime.postgres.operations.audit import list_audit
from runtime.postgres.operations.locks import list_locks, release_lock
from tests.integration.locks.helpers import NOW, claim_of, hold_of, runs

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]

_EXPIRE = "UPDATE locks SET expires_at = clock_timestamp() - interval '1 millisecond'"


@pytest.fixture
def books(world) -> PostgresLocks:
    return PostgresLocks(world.hot)


async def test_one_holds_it_and_the_next_has_a_greater_token(world, books):
    first, second = claim_of(await runs(world)), claim_of(await runs(world))
    one = await books.take(first)
    assert one > 0
    assert await books.take(second) == 0
    assert await books.release([hold_of(second, one)]) == []
    assert await books.release([hold_of(first, one)]) == [one]
    two = await books.take(second)
    assert two > one
    assert await books.renew([(hold_of(first, one), True), (hold_of(second, two), True)]) == [two]


async def test_who_lost_the_answer_is_given_a_new_token(world, books):
    claim = claim_of(await runs(world))
    one = await books.take(claim)
    two = await books.take(claim)
    assert two > one
    assert await books.renew([(hold_of(claim, one), True)]) == []


async def test_turns_come_in_the_order_of_asking(world, books):
    holder, early, late = [claim_of(await runs(world)) for _ in range(3)]
    token = await books.take(holder)
    assert await books.take(late) == await books.take(early) == 0
    await books.release([hold_of(holder, token)])
    assert await books.take(late) == 0
    assert await books.take(early) > token
    await books.release([hold_of(early, 0)])
    assert await books.take(late) > 0
    assert await world.rows("SELECT * FROM lock_waits") == []


async def test_who_waits_no_longer_is_not_waited_for(world, books):
    holder, gone, away, last = [claim_of(await runs(world)) for _ in range(4)]
    token = await books.take(holder)
    for claim in (gone, away, last):
        await books.take(claim)
    await books.leave([gone])
    await world.node.fetch(
        "UPDATE lock_waits SET until = clock_timestamp() WHERE fencing_token = $1",
        away.fencing_token,
    )
    await books.release([hold_of(holder, token)])
    assert await books.take(last) > token


async def test_who_only_tries_leaves_no_place_behind(world, books):
    holder, tries = claim_of(await runs(world)), claim_of(await runs(world), queues=False)
    await books.take(holder)
    assert await books.take(tries) == 0
    assert await world.rows("SELECT * FROM lock_waits") == []


async def test_past_its_ttl_it_is_free_and_cannot_be_renewed(world, books):
    first, second = claim_of(await runs(world)), claim_of(await runs(world))
    one = await books.take(first)
    await world.node.fetch(_EXPIRE)
    assert await books.renew([(hold_of(first, one), True)]) == []
    two = await books.take(second)
    assert two > one
    # Whoever held it before frees nothing by coming late.
    assert await books.release([hold_of(first, one)]) == []
    assert await books.renew([(hold_of(second, two), False)]) == [two]


async def test_a_renewal_moves_its_end_and_a_look_does_not(world, books):
    claim = claim_of(await runs(world))
    hold = hold_of(claim, await books.take(claim))
    ends = "SELECT expires_at, expires_at - clock_timestamp() < interval '30 s' AS sane FROM locks"
    before = await world.one(ends)
    assert before["sane"]
    assert await books.renew([(hold, False)]) == [hold.token]
    assert (await world.one(ends))["expires_at"] == before["expires_at"]
    assert await books.renew([(hold, True)]) == [hold.token]
    assert (await world.one(ends))["expires_at"] > before["expires_at"]


async def test_a_spent_attempt_takes_nothing(world, books):
    id_, token = await runs(world)
    assert await books.take(claim_of((id_, token + 1))) is None
    assert await books.take(claim_of((id_ + 1, token))) is None
    assert await world.rows("SELECT * FROM locks") == []


@pytest.mark.parametrize(
    "name", ["a", " ", "a/b?c=d&e#f", "'; DROP TABLE locks; --", "naïve ☃ 🔒", "\n\t\\", "x" * 255]
)
async def test_any_name_is_a_name(world, books, name):
    claim = claim_of(await runs(world), name)
    token = await books.take(claim)
    (shown,) = (await world.do(list_locks)).items
    assert (shown.name, shown.token, shown.ttl_s) == (name, token, 30.0)
    freed = await world.do(release_lock, name=name, who="tests", now=NOW)
    assert freed == shown
    (row,) = (await world.do(list_audit)).items
    assert (row.action, row.target, row.detail["token"]) == ("release_lock", name, token)


async def test_a_lock_is_of_its_tenant(world, books):
    ours, theirs = claim_of(await runs(world)), claim_of(await runs(world, "b"), tenant="b")
    one, two = await books.take(ours), await books.take(theirs)
    assert 0 < one < two
    assert [lock.token for lock in (await world.do(list_locks)).items] == [one]
    world.tenant = "b"
    assert [lock.token for lock in (await world.do(list_locks)).items] == [two]
    world.tenant = "c"
    with pytest.raises(NotFoundError, match="nobody holds a lock"):
        await world.do(release_lock, name="till", who="tests", now=NOW)
    assert await books.renew([(hold_of(ours, one), False)]) == [one]


async def test_a_list_goes_on_where_a_page_ended(world, books):
    names = [f"lock {n}" for n in range(5)]
    for name in names:
        await books.take(claim_of(await runs(world), name))
    seen, cursor = [], None
    while True:
        page = await world.do(list_locks, limit=2, cursor=cursor)
        seen += [lock.name for lock in page.items]
        cursor = page.next
        if cursor is None:
            break
    assert seen == names[::-1]


async def test_what_nobody_holds_is_forgotten_and_tokens_grow_on(world, books):
    held, freed = claim_of(await runs(world), "held"), claim_of(await runs(world), "freed")
    await books.take(held)
    token = await books.take(freed)
    await books.release([hold_of(freed, token)])
    await forget_locks(world.hot)
    assert len(await world.rows("SELECT * FROM locks")) == 2
    await world.node.fetch(
        "UPDATE locks SET expires_at = clock_timestamp() - interval '2 hours' "
        "WHERE fencing_token IS NULL"
    )
    await forget_locks(world.hot)
    assert [row["name"] for row in await world.rows("SELECT name FROM locks")] == ["held"]
    assert await books.take(freed) > token


async def test_many_at_once_never_hold_it_together_and_tokens_grow_in_turn(world, books):
    inside: list[int] = []
    tokens: list[int] = []

    async def contend() -> None:
        claim = claim_of(await runs(world), queues=False)
        while not (token := await books.take(claim)):
            await anyio.lowlevel.checkpoint()
        inside.append(token)
        assert inside == [token]
        tokens.append(token)
        await anyio.lowlevel.checkpoint()
        assert await books.renew([(hold_of(claim, token), True)]) == [token]
        inside.remove(token)
        assert await books.release([hold_of(claim, token)]) == [token]

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for _ in range(12):
                group.start_soon(contend)
    assert len(tokens) == 12
    assert tokens == sorted(set(tokens))
