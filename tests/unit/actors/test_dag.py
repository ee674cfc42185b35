"""A DagActor whose steps overlap: what one of them learnt late undoes nothing that came since."""

from datetime import UTC, datetime, timedelta

import anyio
import pytest

from actors.dag import actor
from actors.dag.actor import DagActor
from protocols.dags import POOL
from protocols.errors import UnavailableError
from protocols.messages import Ready
from protocols.ports.store import Claimed, Lane
from protocols.ports.store.claiming import Lanes
from protocols.ports.store.dags import Advanced, Glance, Within
from tests.sim.model_dags import NoDags

pytestmark = pytest.mark.asyncio
NOW = datetime(2026, 12, 1, tzinfo=UTC)


def root(number: int, token: int, tenant: str = "default") -> Claimed:
    return Claimed(
        id=number,
        created_at=NOW,
        tenant=tenant,
        job_id="dag",
        job_key=1,
        version=1,
        priority=2,
        scheduled_for=NOW,
        attempt=1,
        failures=0,
        losses=0,
        fencing_token=token,
        input=None,
    )


class OneRun(NoDags):
    """The books of one run: its root can be claimed, its run be over, and its end be slow."""

    def __init__(self) -> None:
        self.due = True
        self.token = 0
        self.over = True
        self.ended: list[tuple[int, int]] = []
        self.told = anyio.Event()

    async def lanes(self, pool, *, now, level) -> Lanes:
        assert pool == POOL
        return Lanes((Lane("default", 2),) if self.due else (), None)

    async def claim(self, pool, incarnation, budgets, *, now, level) -> list[Claimed]:
        self.due, self.token = False, self.token + 1
        return [root(1, self.token)]

    async def running(self, incarnation, pool) -> list[tuple[int, int]]:
        return []

    async def cancel_requests(self, incarnation) -> list[tuple[int, int]]:
        return []

    async def begin_runs(self, incarnation, roots, *, now) -> Advanced:
        return Advanced()

    async def runs_over(self, runs) -> list[int]:
        return list(runs) if self.over else []

    async def finish_runs(self, incarnation, roots, *, now):
        self.ended += roots
        await self.told.wait()
        return [root for root, _ in roots], []


async def test_a_root_that_is_claimed_again_while_its_end_is_told_is_held(open_house):
    async with open_house() as house:
        store = OneRun()
        house.kit.spawn(lambda: DagActor(store=store, hints=house, incarnation=house.node))
        await house.kit.advance(0.5)
        assert store.ended == [(1, 1)]
        store.due, store.over = True, False  # somebody retries it
        await house.kit.advance(2.0)
        assert store.token == 2
        store.told.set()
        await house.kit.advance(2.0)
        store.over = True
        await house.kit.advance(2.0)
        assert store.ended == [(1, 1), (1, 2)]


class MissedEnds(NoDags):
    """Books with ends that no hint told of."""

    def __init__(self) -> None:
        self.ends = False
        self.next_at: datetime | None = None
        self.fault: Exception | None = None
        self.woken = anyio.Event()
        self.wakes = 0
        self.advances = 0

    async def lanes(self, pool, *, now, level) -> Lanes:
        return Lanes((), None)

    async def running(self, incarnation, pool) -> list[tuple[int, int]]:
        return []

    async def glance(self) -> Glance:
        return Glance(next_at=self.next_at, ends=self.ends)

    async def wake(self, *, now, limit) -> Advanced:
        self.wakes += 1
        if self.fault is not None:
            raise self.fault
        await self.woken.wait()
        self.next_at = None
        return Advanced()

    async def advance(self, *, now, limit) -> Advanced:
        self.ends = False
        self.advances += 1
        return Advanced()


async def test_a_poll_takes_account_of_ends_whose_hint_was_lost_and_else_only_looks(open_house):
    async with open_house() as house:
        store = MissedEnds()
        house.kit.spawn(lambda: DagActor(store=store, hints=house, incarnation=house.node))
        await house.kit.advance(5.0)
        assert store.advances == 1  # as it began
        store.ends = True
        await house.kit.advance(2.0)
        assert (store.ends, store.advances) == (False, 2)


@pytest.mark.parametrize("fault", [None, UnavailableError("away")], ids=["hangs", "fails"])
async def test_ends_do_not_wait_for_a_wake(open_house, fault):
    async with open_house() as house:
        store = MissedEnds()
        store.fault = fault
        house.kit.spawn(lambda: DagActor(store=store, hints=house, incarnation=house.node))
        await house.kit.advance(0.5)
        store.next_at = house.kit.clock.now()
        await house.kit.advance(2.0)
        assert store.wakes >= 1
        store.ends = True
        await house.kit.advance(2.0)
        assert (store.ends, store.advances) == (False, 2)
        store.fault = None
        store.woken.set()
        await house.kit.advance(2.0)
        assert store.next_at is None


async def test_what_is_due_soon_is_woken_then_and_not_at_the_next_poll(open_house):
    async with open_house() as house:
        store = MissedEnds()
        store.woken.set()
        house.kit.spawn(lambda: DagActor(store=store, hints=house, incarnation=house.node))
        store.next_at = house.kit.clock.now() + timedelta(seconds=0.4)
        await house.kit.advance(0.3)
        assert store.wakes == 0
        await house.kit.advance(0.2)
        assert (store.wakes, store.next_at) == (1, None)


class TwoTenants(NoDags):
    """Two tenants with roots that are due, always; some are over as soon as they have begun."""

    def __init__(self, roots: int, *, over: bool) -> None:
        self.roots = roots
        self.over = over
        self.claimed: list[str] = []
        self.withins = 0

    async def lanes(self, pool, *, now, level) -> Lanes:
        due = len(self.claimed) < self.roots
        return Lanes((Lane("a", 2), Lane("b", 2)) if due else (), None)

    async def claim(self, pool, incarnation, budgets, *, now, level) -> list[Claimed]:
        (budget,) = budgets
        self.claimed.append(budget.lane.tenant)
        return [root(len(self.claimed), 1, budget.lane.tenant)]

    async def claim_within(self, incarnation, runs, *, limit, now, level) -> list[Within]:
        self.withins += 1
        return []

    async def running(self, incarnation, pool) -> list[tuple[int, int]]:
        return []

    async def cancel_requests(self, incarnation) -> list[tuple[int, int]]:
        return []

    async def runs_over(self, runs) -> list[int]:
        return list(runs) if self.over else []

    async def begin_runs(self, incarnation, roots, *, now) -> Advanced:
        return Advanced()

    async def finish_runs(self, incarnation, roots, *, now):
        return [root for root, _ in roots], []


async def test_where_there_is_room_for_one_tenants_take_turns(open_house, monkeypatch):
    monkeypatch.setattr(actor, "HELD_MAX", 1)
    async with open_house() as house:
        store = TwoTenants(6, over=True)
        house.kit.spawn(lambda: DagActor(store=store, hints=house, incarnation=house.node))
        await house.kit.advance(10.0)
        assert sorted(store.claimed) == ["a"] * 3 + ["b"] * 3


async def test_a_full_node_asks_nothing_for_a_hint(open_house, monkeypatch):
    monkeypatch.setattr(actor, "HELD_MAX", 1)
    async with open_house() as house:
        store = TwoTenants(6, over=False)
        ref = house.kit.spawn(lambda: DagActor(store=store, hints=house, incarnation=house.node))
        await house.kit.advance(0.5)
        assert (len(store.claimed), store.withins) == (1, 1)
        await house.kit.advance(2.0)
        assert (len(store.claimed), store.withins) == (1, 3)
        for _ in range(10):
            ref.tell(Ready(POOL))
            await house.kit.advance(0.01)
        assert (len(store.claimed), store.withins) == (1, 3)
