"""A dispatcher claims what its worker can take, also after what it sent was lost."""

import pytest

from actors.dispatcher.actor import DispatcherActor
from actors.dispatcher.messages import Assign, Cease, Demand, DemandWanted, Reconcile
from protocols.messages import FreeSlots, Ready
from protocols.props import Props

pytestmark = pytest.mark.asyncio


class FakeWorker:
    """Registers as the pool's worker, and says what the test wants said."""

    def __init__(self, house):
        self.probe = house.kit.probe("fake-worker")
        house.kit.main.registry.register("worker:default", house.kit.lookup("/fake-worker").cell)

    def got(self, kind):
        return [message for message in self.probe.received if isinstance(message, kind)]


class Said:
    """The Hints port: keeps what was sent."""

    def __init__(self):
        self.hints = []

    def send(self, hint, /):
        self.hints.append(hint)


def dispatcher(house, *, hints=None):
    said = Said() if hints is None else hints
    return house.kit.spawn(
        Props(
            name="dispatcher",
            factory=lambda: DispatcherActor(
                store=house.line,
                pool="default",
                incarnation=house.node,
                worker="worker:default",
                hints=said,
                on_look=lambda: None,
            ),
        )
    )


async def test_it_claims_no_more_than_is_free(open_house):
    async with open_house() as house:
        worker = FakeWorker(house)
        await house.trigger(house.job(), 5)
        ref = dispatcher(house)
        await house.kit.wait_until(lambda: worker.got(DemandWanted))
        await house.kit.advance(0.1)
        assert "claim" not in house.line.asked
        ref.tell(Demand(2, 0, 0))
        await house.kit.wait_until(lambda: worker.got(Assign))
        await house.kit.advance(0.1)
        (assign,) = worker.got(Assign)
        assert (len(assign.claimed), assign.sent) == (2, 2)
        ref.tell(Demand(2, assign.session, 0))  # said before the work had arrived
        await house.kit.advance(0.1)
        assert len(worker.got(Assign)) == 1
        ref.tell(Demand(1, assign.session, 2))
        await house.kit.wait_until(lambda: len(worker.got(Assign)) == 2)
        assert worker.got(Assign)[1].sent == 3


async def test_an_assignment_that_never_came_takes_no_slot_for_ever(open_house):
    async with open_house() as house:
        worker = FakeWorker(house)
        await house.trigger(house.job(), 2)
        ref = dispatcher(house)
        ref.tell(Demand(1, 0, 0))
        await house.kit.wait_until(lambda: worker.got(Assign))
        first = worker.got(Assign)[0]
        await house.kit.advance(3.0)
        assert worker.got(Reconcile)
        ref.tell(Demand(1, first.session, 0))
        await house.kit.wait_until(lambda: len(worker.got(Assign)) == 2)


async def test_the_poll_finds_what_no_hint_told_of(open_house):
    async with open_house() as house:
        worker = FakeWorker(house)
        ref = dispatcher(house)
        ref.tell(Demand(4, 0, 0))
        await house.kit.advance(0.5)
        await house.trigger(house.job())
        await house.kit.wait_until(lambda: worker.got(Assign), within_s=1.0)
        await house.trigger(house.books.jobs[1])
        ref.tell(Ready("default"))
        await house.kit.wait_until(lambda: len(worker.got(Assign)) == 2, within_s=0.1)


async def test_a_lost_answer_makes_the_worker_compare(open_house):
    async with open_house() as house:
        worker = FakeWorker(house)
        await house.trigger(house.job())
        house.line.lose.add("claim")
        ref = dispatcher(house)
        ref.tell(Demand(4, 0, 0))
        await house.kit.wait_until(lambda: worker.got(Reconcile))
        assert house.states() == ["running"]
        assert not worker.got(Assign)


async def test_a_claim_under_way_at_the_stop_reaches_the_worker(open_house):
    async with open_house() as house:
        worker = FakeWorker(house)
        await house.trigger(house.job(), 3)
        ref = dispatcher(house)
        claim, gate = house.line.store.claim, []

        async def slow(*args, **kwargs):
            gate.append(True)
            await house.kit.clock.sleep(1.0)
            return await claim(*args, **kwargs)

        house.line.store.claim = slow
        ref.tell(Demand(4, 0, 0))
        await house.kit.wait_until(lambda: bool(gate))
        await house.kit.main.stop_actor(ref)
        assert sum(len(message.claimed) for message in worker.got(Assign)) == 3
        assert house.states() == ["running"] * 3


async def test_it_tells_when_slots_become_free_and_when_none_is_left(open_house):
    async with open_house() as house:
        worker, said = FakeWorker(house), Said()
        ref = dispatcher(house, hints=said)
        await house.kit.wait_until(lambda: worker.got(DemandWanted))
        ref.tell(Demand(2, 0, 0))
        ref.tell(Demand(1, 0, 0))
        await house.kit.advance(0.1)
        assert said.hints == [FreeSlots("default", house.node, 2)]
        await house.trigger(house.job(), 1)
        ref.tell(Ready("default"))
        await house.kit.wait_until(lambda: worker.got(Assign))
        await house.kit.advance(0.1)
        assert said.hints[1] == FreeSlots("default", house.node, 0)


async def test_what_it_has_no_slot_for_is_told_to_others(open_house):
    async with open_house() as house:
        worker, said = FakeWorker(house), Said()
        await house.trigger(house.job(), 3)
        ref = dispatcher(house, hints=said)
        await house.kit.wait_until(lambda: worker.got(DemandWanted))
        ref.tell(Demand(1, 0, 0))
        await house.kit.wait_until(lambda: worker.got(Assign))
        await house.kit.advance(0.1)
        assert Ready("default") in said.hints


async def test_one_that_is_to_cease_claims_nothing_more(open_house):
    async with open_house() as house:
        worker, said = FakeWorker(house), Said()
        ref = dispatcher(house, hints=said)
        await house.kit.wait_until(lambda: worker.got(DemandWanted))
        ref.tell(Demand(2, 0, 0))
        ref.tell(Cease())
        await house.kit.advance(0.1)
        assert said.hints[-1] == FreeSlots("default", house.node, 0)
        await house.trigger(house.job(), 1)
        ref.tell(Ready("default"))
        await house.kit.advance(3)
        assert worker.got(Assign) == []
