"""What the database itself refuses, and what a statement that was held back cannot do any more."""

import asyncio

import asyncpg
import pytest

from protocols.errors import FencedError, UnavailableError
from protocols.ports.store import GiveBack
from runtime.postgres.finish import GIVE_BACK, _columns, finish_statement
from tests.contract.store.harness import NOW, at, ended, spec_of
from tests.contract.store.postgres_harness import PostgresHarness

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio]

_HOT = """
INSERT INTO executions (created_at, tenant, job_id, job_key, version, scheduled_for, pool, priority,
    state, overlap, run_at, holds_turn)
VALUES ($2, 'default', 'j', $1, 1, $2, 'default', 2, 'scheduled', 'skip', $2, $3)
"""
_FINAL = """
INSERT INTO execution_history (id, created_at, tenant, job_id, job_key, version, scheduled_for,
    pool, priority, state, reason, finished_at)
VALUES (nextval('execution_ids'), $2, 'default', 'j', $1, 1, $2, 'default', 2, 'skipped', 'paused',
    $2)
"""
_MANY_JOBS = """
INSERT INTO jobs (tenant, job_id, source, version, shard, created_at, updated_at)
SELECT 'default', n::text, 's', 1, 0, now(), now() FROM generate_series(1, 500) AS n
"""
_BLOCKED = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


async def blocked(house: PostgresHarness, count: int = 1) -> None:
    """Wait until so many sessions wait for a lock; asked outside any transaction, whose view of
    this would stand still."""
    async with asyncio.timeout(20):
        while await house.owner.fetchval(_BLOCKED) < count:  # noqa: ASYNC110 - a server's state
            await asyncio.sleep(0.01)


async def test_a_second_row_for_an_instant_is_refused(house: PostgresHarness, rival):
    key = await house.make_job(spec_of("j"))
    await rival.execute(_HOT, key, NOW, False)
    with pytest.raises(asyncpg.UniqueViolationError):
        await rival.execute(_HOT, key, NOW, False)
    with pytest.raises(asyncpg.UniqueViolationError):
        await rival.execute(_FINAL, key, NOW)
    await rival.execute(_FINAL, key, at(1))
    with pytest.raises(asyncpg.UniqueViolationError):
        await rival.execute(_FINAL, key, at(1))
    with pytest.raises(asyncpg.UniqueViolationError):
        await rival.execute(_HOT, key, at(1), False)
    assert len(await house.executions_of(key)) == 2


async def test_an_instant_that_is_just_becoming_history_is_refused(house: PostgresHarness, rival):
    key = await house.make_job(spec_of("j"))
    await rival.execute(_HOT, key, NOW, False)
    async with (
        house.owner.acquire() as second,
        asyncio.TaskGroup() as tasks,
        rival.transaction(),
    ):
        await rival.execute("DELETE FROM executions WHERE job_key = $1", key)
        await rival.execute(_FINAL, key, NOW)
        late = tasks.create_task(_refused(second, key))
        await blocked(house)
    assert late.result()


async def _refused(session: asyncpg.Connection, key: int) -> bool:
    try:
        await session.execute(_HOT, key, NOW, False)
    except asyncpg.UniqueViolationError:
        return True
    return False


async def test_a_second_holder_of_a_turn_is_refused(house: PostgresHarness, rival):
    key = await house.make_job(spec_of("j"))
    await rival.execute(_HOT, key, NOW, True)
    with pytest.raises(asyncpg.UniqueViolationError) as refused:
        await rival.execute(_HOT, key, at(1), True)
    assert refused.value.constraint_name == "executions_turn"


async def test_a_stale_leaders_statement_held_back_past_a_newer_epoch(
    house: PostgresHarness, rival
):
    """Held on its schedule's row, it makes the newer leader wait: it comes first, or not at all."""
    spec = spec_of("j")
    key = await house.make_job(spec, next_fire_at=at(60))
    stale = await house.lead()
    firing = await house.firing(spec, key, at(60))
    async with asyncio.TaskGroup() as tasks:
        async with rival.transaction():
            await rival.execute("SELECT FROM schedules WHERE job_key = $1 FOR UPDATE", key)
            held = tasks.create_task(house.store.fire(stale, [firing], now=at(60)))
            await blocked(house)
            newer = tasks.create_task(house.lead())
            await blocked(house, 2)
            assert not newer.done()
        await held
    assert newer.result().epoch == stale.epoch + 1
    assert len(await house.executions_of(key)) == 1
    with pytest.raises(FencedError):
        await house.store.fire(stale, [await house.firing(spec, key, at(120))], now=at(120))


async def test_a_stale_leader_that_comes_behind_a_newer_epoch_changes_nothing(
    house: PostgresHarness, rival
):
    spec = spec_of("j")
    key = await house.make_job(spec, next_fire_at=at(60))
    stale = await house.lead()
    firing = await house.firing(spec, key, at(60))

    async def fire() -> str:
        try:
            await house.store.fire(stale, [firing], now=at(60))
        except FencedError:
            return "fenced"
        return "fired"

    async with asyncio.TaskGroup() as tasks, rival.transaction():
        await rival.execute("UPDATE leaderships SET epoch = epoch + 1")
        late = tasks.create_task(fire())
        await blocked(house)
    assert late.result() == "fenced"
    assert await house.executions_of(key) == []
    assert await house.schedule_of(key) == (NOW, at(60))


async def test_a_claim_and_a_nodes_death_exclude_each_other(house: PostgresHarness, rival):
    key = await house.make_job(spec_of("j"))
    await house.trigger("j")
    async with asyncio.TaskGroup() as tasks, rival.transaction():
        await rival.execute("SELECT FROM nodes WHERE incarnation = $1 FOR UPDATE", house.node)
        claim = tasks.create_task(house.claim())
        await blocked(house)
        await rival.execute("UPDATE nodes SET state = 'dead'")
    assert claim.result() == []
    assert [row.state for row in await house.executions_of(key)] == ["scheduled"]


async def test_a_finish_finds_what_was_changed_behind_its_snapshot(house: PostgresHarness, rival):
    key = await house.make_job(spec_of("j"))
    await house.trigger("j")
    (claimed,) = await house.claim()
    async with asyncio.TaskGroup() as tasks, rival.transaction():
        await rival.execute("UPDATE executions SET cancel_requested = true")
        finish = tasks.create_task(house.succeed(claimed))
        await blocked(house)
    assert list(finish.result().accepted) == [claimed.id]
    assert [row.state for row in await house.executions_of(key)] == ["succeeded"]


@pytest.mark.parametrize("how", ["succeeded", "retried", "handed back"])
async def test_what_is_changed_behind_its_snapshot_needs_no_second_look(
    house: PostgresHarness, rival, how: str
):
    """A second look may meet a second change: an end must not hang on there being none."""
    key = await house.make_job(spec_of("j"))
    await house.trigger("j")
    (claimed,) = await house.claim()
    given = [GiveBack(claimed.id, claimed.fencing_token)]
    ways = {
        "succeeded": (finish_statement(lean=True, retries=False), [ended(claimed)]),
        "retried": (
            finish_statement(lean=False, retries=True),
            [ended(claimed, "scheduled", spends="retry", run_at=at(9))],
        ),
        "handed back": (GIVE_BACK, given),
    }
    statement, ends = ways[how]
    arguments = (
        ([g.id for g in given], [g.fencing_token for g in given], [None])
        if ends is given
        else _columns(ends, lean=how == "succeeded")
    )
    async with asyncio.TaskGroup() as tasks, rival.transaction():
        await rival.execute("UPDATE executions SET cancel_requested = true")
        once = tasks.create_task(house.pool.fetch(statement, house.node, *arguments))
        await blocked(house)
    becomes = "succeeded" if how == "succeeded" else "cancelled"
    assert [row.state for row in await house.executions_of(key)] == [becomes]
    (answer,) = once.result()
    if how == "handed back":
        assert answer["id"] == claimed.id
    else:
        assert answer["accepted"] == [claimed.id]


async def test_a_finish_cut_before_its_commit_can_be_repeated(house: PostgresHarness, rival):
    key = await house.make_job(spec_of("j", overlap="allow"))
    await house.trigger("j")
    (claimed,) = await house.claim()

    async def cut() -> str:
        try:
            await house.succeed(claimed)
        except UnavailableError:
            return "unavailable"
        return "done"

    async with asyncio.TaskGroup() as tasks, rival.transaction():
        await rival.execute("SELECT FROM executions FOR UPDATE")
        finish = tasks.create_task(cut())
        await blocked(house)
        await rival.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
    assert finish.result() == "unavailable"
    assert list((await house.succeed(claimed)).accepted) == [claimed.id]
    assert [row.state for row in await house.executions_of(key)] == ["succeeded"]
    assert (await house.succeed(claimed)).accepted == []


async def test_every_statement_uses_indexes_on_an_empty_database_too(house: PostgresHarness):
    """Plans are made once and kept: none may rest on a table that happens to be small."""
    from runtime.postgres import claim, finish, schedules, trigger

    statements = [
        schedules.fire_statement(undecided=False),
        schedules.fire_statement(undecided=True),
        schedules._DUE,
        schedules._DEFINITIONS,
        trigger.trigger_statement(keyed=False),
        trigger.trigger_statement(keyed=True),
        claim.claim_statement(plain=True, limited=True, refused=True),
        claim._LANES,
        finish.finish_statement(lean=True, retries=False),
        finish.finish_statement(lean=False, retries=False),
        finish.finish_statement(lean=False, retries=True),
        finish.GIVE_BACK,
    ]
    for before in ("SELECT", "VACUUM ANALYZE", _MANY_JOBS):
        await house.owner.execute(before)
        async with house.pool.connections.acquire() as session:
            for statement in statements:
                prepared = await session.prepare(statement)
                nulls = ", ".join(["NULL"] * len(prepared.get_parameters()))
                plan = await session.fetch(f"EXPLAIN EXECUTE {prepared.get_name()}({nulls})")
                lines = [row[0].strip() for row in plan]
                scans = [line for line in lines if "Seq Scan on" in line]
                assert [line for line in scans if " house " not in line] == []
                probes = [line.split("using ")[1] for line in lines if "using jobs_" in line]
                wrong = ("jobs_newest on jobs a", "jobs_source on jobs")
                assert [line for line in probes if line.startswith(wrong)] == []
