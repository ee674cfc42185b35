"""What people ask for while a turn, an end or a claim of the same run is under way."""

from contextlib import asynccontextmanager

import anyio
import pytest
import pytest_asyncio

from runtime.postgres.dags.control import pause_run, resume_run, retry_tasks, send_signal
from runtime.postgres.operations.reopen import replay_dead_letters
from runtime.postgres.operations.session import transact
from runtime.postgres.pool import NODE_ROLE, Pool
from runtime.postgres.store import PostgresStore
from tests.support.dags import task

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]

_WAITING = """
SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


class GatedPool(Pool):
    """A pool whose transactions stop at a gate before they commit."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.reached = anyio.Event()
        self.gate = anyio.Event()

    @asynccontextmanager
    async def transaction(self):
        async with super().transaction() as session:
            yield session
            self.reached.set()
            await self.gate.wait()


@pytest_asyncio.fixture
async def gated(house):
    """Give a pool of the node's role that stops before it commits."""
    settings = house.house.settings.arguments()
    async with GatedPool(settings, name="gated", size=2, role=NODE_ROLE, pinned=True) as pool:
        yield pool


class WatchedPool(Pool):
    """A pool that notes how durable its transactions' commits are."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.seen = []

    @asynccontextmanager
    async def transaction(self):
        async with super().transaction() as session:
            yield session
            self.seen.append(await session.fetchval("SHOW synchronous_commit"))


async def failed_run(house) -> int:
    """A run that failed, and whose own execution has not been ended yet."""
    await house.define("dag", task("a"), task("b", "a"))
    run = await house.begin("dag")
    await house.claim()
    await house.end(a="dead")
    return run


async def together(house, gated, first, second) -> None:
    """Run `first` as far as its commit, then `second` until it waits for it; then both."""
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(first)
            await gated.reached.wait()
            group.start_soon(second)
            while not await house.owner.fetch(_WAITING):  # noqa: ASYNC110 - a session of the server
                await anyio.sleep(0.01)
            gated.gate.set()


async def goes_well(house, run: int) -> None:
    """What was retried runs to its end."""
    await house.advance()
    await house.run_all()
    assert await house.states(run) == {"a": "succeeded", "b": "succeeded"}
    assert await house.run_state(run) == "succeeded"
    assert (await house.root(run))[0] == "succeeded"


async def test_a_retry_that_waited_for_the_end_of_the_runs_execution_opens_it_again(house, gated):
    run = await failed_run(house)
    name, ending = await house.name(run), PostgresStore(hot=gated, keeping=gated)

    async def end() -> None:
        await ending.finish_runs(house.node, list(house.roots.items()), now=house.now)

    async def retry() -> None:
        await house.ask(retry_tasks, run=name, tasks="failed", now=house.now)

    await together(house, gated, end, retry)
    await goes_well(house, run)


async def test_a_turn_that_waited_for_a_retry_does_not_take_its_run_for_abandoned(house, gated):
    run = await failed_run(house)
    await house.store.finish_runs(house.node, list(house.roots.items()), now=house.now)
    name = await house.name(run)

    async def retry() -> None:
        await transact(
            gated,
            "default",
            lambda conn: retry_tasks(
                conn, tenant="default", run=name, tasks="failed", now=house.now
            ),
        )

    await together(house, gated, retry, house.advance)
    await goes_well(house, run)


async def test_a_run_that_is_to_be_retried_is_not_ended_before_it_was(house):
    run = await failed_run(house)
    await house.end_roots()
    await house.ask(replay_dead_letters, who="me", asked_at=house.now, now=house.now, ids=[run])
    claimed = await house.claim_roots()
    assert list(claimed) == [run]
    ended, _ = await house.store.finish_runs(house.node, list(claimed.items()), now=house.now)
    assert ended == []
    await house.begin_roots(claimed)
    await goes_well(house, run)


async def test_a_signal_that_came_in_time_counts_though_its_time_is_up_before_it_is_looked_at(
    house,
):
    await house.define("dag", task("ok", wait={"signal": "go", "timeout_s": 60.0}), task("b", "ok"))
    run = await house.begin("dag")
    await house.ask(
        send_signal, run=await house.name(run), name="go", payload=b"7", who="me", now=house.now
    )
    house.later(60)
    await house.wake()
    assert await house.result(run, "ok") == 7
    assert await house.claim() == ["b"]


async def test_a_resumed_run_maps_as_many_as_may_run_though_one_ends_at_the_same_time(house):
    await house.define("dag", task("m", map={"over": "input", "parallelism": 3}))
    run = await house.begin("dag", b"[1, 2, 3, 4, 5, 6]")
    await house.claim()
    name = await house.name(run)
    await house.steer(pause_run, run)
    first, *others = list(house.running.values())
    await house.finish_rows(others)
    await house.ask(resume_run, run=name, now=house.now)
    await house.finish_rows([first])
    assert await house.claim() == ["m", "m", "m"]


async def test_what_nobody_would_find_lost_is_on_disk_before_it_is_told(house):
    """A run that a crash of the server took back would be held by a node and begun by none."""
    await house.define("dag", task("a"))
    settings = house.house.settings.arguments()
    async with WatchedPool(settings, name="seen", size=2, role=NODE_ROLE, pinned=True) as pool:
        house.store = PostgresStore(hot=pool, keeping=pool)
        await house.begin("dag")
        assert pool.seen == ["on"]
        await house.claim()
        await house.end(a="succeeded")
        assert set(pool.seen[1:]) == {"off"}  # its ends are still in the books, to be found again
        pool.seen.clear()
        await house.store.finish_runs(house.node, list(house.roots.items()), now=house.now)
        assert pool.seen == ["on"]
