"""kill -9 before and after any statement of a run's life: the run completes all the same."""

from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from runtime.postgres.pool import NODE_ROLE, Pool
from runtime.postgres.store import PostgresStore
from tests.contract.dags.conftest import DagHouse
from tests.contract.store.postgres_harness import on_postgres
from tests.support.dags import task

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]


class KilledError(Exception):
    """The process is gone, as far as its store goes."""


class Fuse:
    """Burns down by one before and after each statement and commit."""

    def __init__(self) -> None:
        self.left = 0
        self.burnt = 0

    def burn(self) -> None:
        self.left -= 1
        self.burnt += 1
        if self.left == 0:
            raise KilledError


class CutSession:
    """A session inside a transaction; one that is cut rolls back, as at a kill."""

    def __init__(self, session, fuse: Fuse) -> None:
        self._session = session
        self._fuse = fuse

    def __getattr__(self, name):
        method = getattr(self._session, name)

        async def cut(*args, **kwargs):
            self._fuse.burn()
            answer = await method(*args, **kwargs)
            self._fuse.burn()
            return answer

        return cut


class CutPool(Pool):
    """A pool whose process may be killed at any statement; what was committed stays."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.fuse = Fuse()

    async def fetch(self, query, *args, within_s=None):
        self.fuse.burn()
        rows = await super().fetch(query, *args, within_s=within_s)
        self.fuse.burn()
        return rows

    @asynccontextmanager
    async def transaction(self):
        async with super().transaction() as session:
            yield CutSession(session, self.fuse)
            self.fuse.burn()
        self.fuse.burn()


@pytest_asyncio.fixture
async def cut(postgres_server):
    """Give a house whose node is killed when its fuse has burnt down, and the fuse."""
    async with on_postgres(postgres_server) as harness:
        settings = harness.settings.arguments()
        async with CutPool(settings, name="cut", size=2, role=NODE_ROLE, pinned=True) as pool:
            house = DagHouse(harness)
            house.cutting = PostgresStore(hot=pool, keeping=pool)
            yield house, pool.fuse


TASKS = (
    task("a"),
    task("b", "a"),
    task("m", "a", map={"over": "tasks.a.result", "parallelism": 2}),
    task("bad", "a"),
    task("lost", "bad"),
    task("sub", "b", dag={"dag_id": "inner"}),
    task("end", "b", "m", "sub"),
    task("alas", role="on_failure"),
    task("last", role="finally"),
)
BECAME = {
    "a": "succeeded",
    "b": "succeeded",
    "m": "succeeded",
    "bad": "failed: failed",
    "lost": "skipped: upstream_failed (bad)",
    "sub": "succeeded",
    "end": "succeeded",
    "alas": "succeeded",
    "last": "succeeded",
}


def outcome(row) -> str:
    return "dead" if row.job_id == "dag/bad" else "succeeded"


async def drive(house: DagHouse, store: PostgresStore) -> None:
    house.store = store
    await house.advance()
    await house.run_all(outcome, result=b"[1, 2, 3]")
    await house.run_all(outcome)


async def killed(house: DagHouse) -> None:
    """The node is gone, with all it held, and its end is declared; another begins."""
    house.running.clear()
    house.roots.clear()
    await house.house.silence(house.node)
    house.store = house.house.store
    await house.store.declare_dead(ttl_s=10, now=house.now)
    house.node = await house.house.enter()


async def test_a_kill_anywhere_in_a_run_loses_nothing_and_does_nothing_twice(cut):
    house, fuse = cut
    clean = house.store
    await house.define("inner", task("i"))
    await house.define("dag", *TASKS)
    whole, at = None, 0
    while whole is None:
        at += 3  # by turns before a statement and after one
        house.store, fuse.left, fuse.burnt = house.cutting, at, 0
        run = await house.trigger("dag")
        try:
            await drive(house, house.cutting)
        except KilledError:
            await killed(house)
            await drive(house, clean)
        else:
            whole = fuse.burnt
        assert await house.states(run) == BECAME, f"cut at {at}"
        assert await house.root(run) == ("dead", "failed: bad"), f"cut at {at}"
        twice = await house.owner.fetch(
            "SELECT k.task_id FROM dag_tasks k JOIN execution_history h "
            "ON h.job_id = 'dag/' || k.task_id AND h.state = 'succeeded' "
            "AND h.input IS NOT NULL AND convert_from(h.input, 'UTF8')::jsonb ->> 'run_id' = $2 "
            "WHERE k.run = $1 AND k.item = -1 AND k.task_id <> 'm' "
            "GROUP BY k.task_id HAVING count(*) > 1",
            run,
            await house.name(run),
        )
        assert not twice, f"cut at {at}"
        assert not await house.owner.fetch("SELECT FROM executions"), f"cut at {at}"
    assert at > 100
