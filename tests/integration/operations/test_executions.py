"""Lists and shows are one list over both tables, newest first, in pages without gap or double."""

import pytest

from protocols.errors import InvalidError, NotFoundError
from runtime.postgres.operations.cursors import cursor_of
from runtime.postgres.operations.executions import _LIST_JOB, list_executions, show_execution
from runtime.postgres.operations.logs import read_logs
from tests.integration.operations.conftest import at, every, job
from tests.integration.operations.helpers import hot, over

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]


async def pages(world, limit, **options):
    cursor, found = None, []
    while True:
        page = await world.do(list_executions, now=at(100), limit=limit, cursor=cursor, **options)
        found += [item.execution_id for item in page.items]
        assert len(page.items) <= limit
        if page.next is None:
            return found
        cursor = page.next


@pytest.mark.parametrize("limit", [1, 2, 3, 50])
async def test_pages_cover_both_tables_once_newest_first(world, limit):
    await world.apply(job("a", overlap="allow"), job("b", overlap="allow"))
    made = []
    for n in range(8):
        insert = (hot, over)[n % 2]
        made.append(await insert(world, "ab"[n % 3 == 0], n, origin=n))
    assert await pages(world, limit) == made[::-1]
    of_a = [made[n] for n in range(8) if n % 3 != 0]
    assert await pages(world, limit, job_id="a") == of_a[::-1]
    assert await pages(world, limit, since=at(5)) == made[:4:-1]
    assert await pages(world, limit, job_id="a", since=at(5)) == [made[7], made[5]]


async def test_states_are_told_apart_as_people_mean_them(world):
    await world.apply(job("a", overlap="allow"))
    made = {
        "ready": await hot(world, "a", 100),
        "scheduled": await hot(world, "a", 101),
        "running": await hot(world, "a", 3, "running"),
        "blocked": await hot(world, "a", 4, "blocked"),
        "succeeded": await over(world, "a", 5),
        "dead": await over(world, "a", 6, "dead"),
        "cancelled": await over(world, "a", 7, "cancelled"),
        "skipped": await over(world, "a", 8, "skipped", reason="misfire"),
    }
    delayed = await hot(world, "a", 500, "blocked", reason="delayed")
    for state, public_id in made.items():
        expected = [delayed, public_id] if state == "scheduled" else [public_id]
        assert await pages(world, 10, state=state) == expected
        in_job = await pages(world, 10, state=state, job_id="a")
        assert sorted(in_job) == sorted(expected)
        detail = await world.do(show_execution, execution=public_id, now=at(100))
        assert detail.state == state
    detail = await world.do(show_execution, execution=delayed, now=at(100))
    assert (detail.state, detail.reason) == ("scheduled", None)
    with pytest.raises(InvalidError, match="no state"):
        await world.do(list_executions, now=at(0), state="done")


async def test_a_shown_execution_has_its_fields_and_every_attempt(world):
    await world.apply(job("a", priority=0))
    public_id = await over(
        world, "a", 0, result=b'{"n":1}', input=b"[2]", attempt=2, fencing_token=9, run=1
    )
    row = await world.one("SELECT id, scheduled_for FROM execution_history")
    await world.node.fetch(
        "INSERT INTO attempts VALUES ($1, $2, 'default', 1, 1, 'failed', NULL, 8, 1, $2, $2, 3,"
        " 'exit code 3')",
        row["id"],
        row["scheduled_for"],
    )
    shown = await world.do(show_execution, execution=public_id.upper(), now=at(9))
    assert shown.scheduled_for == "2026-12-01T08:00:00.000000Z"
    assert (shown.priority, shown.duration_s, shown.result, shown.input) == (
        "critical",
        1.5,
        {"n": 1},
        [2],
    )
    assert [(a.attempt, a.state, a.exit_code) for a in shown.attempts] == [
        (1, "failed", 3),
        (2, "succeeded", None),
    ]
    running = await hot(world, "a", 5, "running")
    shown = await world.do(show_execution, execution=running, now=at(9))
    assert [(a.attempt, a.state) for a in shown.attempts] == [(1, "running")]


@pytest.mark.parametrize("text", ["x", "", "\0", "\ud800", "018f0000-0000-7000-8000-000000000001"])
async def test_a_made_up_id_finds_nothing(world, text):
    with pytest.raises(NotFoundError):
        await world.do(show_execution, execution=text, now=at(0))


@pytest.mark.parametrize("cursor", ["x", "\0", "eyJh", "IngyIg", "9" * 40, "WyJ4IiwxXQ", "\ud800"])
@pytest.mark.parametrize("of", [{}, {"job_id": "a"}])
async def test_a_cursor_that_is_none_is_refused(world, cursor, of):
    await world.apply(job("a"))
    with pytest.raises(InvalidError) as caught:
        await world.do(list_executions, now=at(0), cursor=cursor, **of)
    assert caught.value.problems[0].path == ("cursor",)


async def test_a_cursor_far_beyond_is_an_empty_page_or_the_first(world):
    await world.apply(job("a"))
    made = await over(world, "a", 0)
    for number, found in ((1 << 70, (made,)), (-(1 << 70), ())):
        page = await world.do(list_executions, now=at(0), cursor=cursor_of(number))
        assert tuple(item.execution_id for item in page.items) == found


async def test_an_unknown_job_is_told_with_the_nearest(world):
    await world.apply(job("daily_report"))
    with pytest.raises(NotFoundError, match='did you mean "daily_report"'):
        await world.do(list_executions, now=at(0), job_id="daily_reprot")
    with pytest.raises(InvalidError, match="character that cannot be stored"):
        await world.do(list_executions, now=at(0), job_id="a\0")
    with pytest.raises(InvalidError, match="character that cannot be stored"):
        await world.do(list_executions, now=at(0), job_id="a\ud800")


async def test_logs_are_read_by_attempt_and_by_text(world):
    await world.apply(job("a", every(60)))
    public_id = await over(world, "a", 0, attempt=2)
    row = await world.one("SELECT id, scheduled_for FROM execution_history")
    for attempt, head, tail in ((1, b"one\ntwo\n", b""), (2, b"three \xff\n", b"two again\n")):
        await world.node.fetch(
            "INSERT INTO outputs VALUES ($1, $2, 'default', $3, $4, $5, 12)",
            row["id"],
            row["scheduled_for"],
            attempt,
            head,
            tail,
        )
    both = await world.do(read_logs, execution=public_id)
    assert [(log.attempt, log.head, log.tail) for log in both] == [
        (1, "one\ntwo\n", ""),
        (2, "three \ufffd\n", "two again\n"),
    ]
    (second,) = await world.do(read_logs, execution=public_id, attempt=2)
    assert second.omitted_bytes == 12
    found = await world.do(read_logs, execution=public_id, grep="two")
    assert [(log.head, log.tail) for log in found] == [("two\n", ""), ("", "two again\n")]
    with pytest.raises(NotFoundError, match="no attempt 3"):
        await world.do(read_logs, execution=public_id, attempt=3)


async def test_another_tenants_execution_does_not_exist(world):
    await world.apply(job("a"))
    public_id = await over(world, "a", 0)
    world.tenant = "other"
    with pytest.raises(NotFoundError):
        await world.do(show_execution, execution=public_id, now=at(0))
    assert await pages(world, 10) == []


async def test_a_jobs_list_reads_nothing_of_other_jobs(world):
    await world.apply(job("a"), job("b", overlap="allow"))
    await hot(world, "a", 0, origin=1)
    await hot(world, "a", 1, "blocked", origin=2)
    await hot(world, "a", 2, "blocked")
    await hot(world, "b", 0, origin=3)
    await world.node.fetch(
        "INSERT INTO executions (created_at, tenant, job_id, job_key, version, origin,"
        " scheduled_for, pool, priority, state, overlap, run_at)"
        " SELECT created_at, tenant, job_id, job_key, version, n, scheduled_for, pool, priority,"
        " state, overlap, run_at FROM executions, generate_series(10, 4000) AS n"
        " WHERE job_id = 'b'"
    )
    for name, count in (("a", 3), ("b", 50)):
        page = await world.do(list_executions, job_id=name, now=at(9))
        assert len({one.execution_id for one in page.items}) == len(page.items) == count
        key = (await world.one("SELECT job_key FROM jobs WHERE job_id = $1", name))["job_key"]
        arguments = ("default", 51, at(9), [key], at(99), 0, None)
        async with world.api.transaction() as session:
            await session.execute("SELECT set_config('tickwright.tenant', 'default', true)")
            plan = await session.fetch(f"EXPLAIN ANALYZE {_LIST_JOB[None]}", *arguments)
        read = [line for (line,) in plan if " on executions e" in line]
        scans = [line for line in read if "never executed" not in line and "using" not in line]
        assert bool(scans) is (name == "b"), "\n".join(line for (line,) in plan)
