"""Who judges, who beats and who leads: each only by what it has itself seen."""

import anyio
import pytest

from actors.elector import ElectorActor
from actors.heart import HeartActor, Vital
from actors.janitor import JanitorActor
from actors.waiting import WaitingActor
from protocols.actor import Actor
from protocols.messages import JobsFinished, Ready
from protocols.ports.store import NodeInfo, Settled
from protocols.props import Props
from runtime.kernel.context import local
from runtime.memory.coordinator import SoleCoordinator

pytestmark = pytest.mark.asyncio
TTL_S = 5.0
OTHER = NodeInfo(name="other", url="", pid=2, host="h", version="0", level=1, pools={})


def janitor(house):
    return house.kit.spawn(
        lambda: JanitorActor(
            store=house.line, hints=house, pools=("default",), ttl_s=TTL_S, keep_s=86400.0
        )
    )


def heart(house, pulses):
    return house.kit.spawn(
        lambda: HeartActor(
            store=house.line,
            incarnation=house.node,
            ttl_s=TTL_S,
            vital=lambda: Vital({}, {}, 0.0),
            on_pulse=pulses.append,
        )
    )


def state(house, incarnation):
    return house.books.nodes[incarnation].state


async def test_a_silent_node_is_declared_dead_and_its_work_is_ready_again(open_house):
    async with open_house() as house:
        heart(house, [])
        other = await house.line.store.join(OTHER, now=house.kit.clock.now(), alone=False)
        janitor(house)
        await house.kit.advance(TTL_S - 0.5)
        assert state(house, other) == "up"
        await house.kit.advance(2.5)
        assert state(house, other) == "dead"
        assert state(house, house.node) == "up"
        assert Ready("default") in house.hints
        assert JobsFinished(()) in house.hints


async def test_an_outage_that_silenced_all_kills_none(open_house):
    async with open_house() as house:
        heart(house, [])
        janitor(house)
        await house.kit.advance(10.0)
        house.line.away = True
        await house.kit.advance(60.0)
        await house.line.store.join(OTHER, now=house.kit.clock.now(), alone=False)
        await house.kit.advance(TTL_S * 2)  # it cannot beat either
        house.line.away = False
        await house.kit.advance(TTL_S - 1.0)
        assert {node.state for node in house.books.nodes.values()} == {"up"}


@pytest.mark.parametrize("sleep_s", [4.6, 30.0, 3600.0])
async def test_a_machine_that_slept_declares_itself_not_dead(open_house, sleep_s):
    async with open_house() as house:
        pulses = []
        janitor(house)  # before the heart, so that its poll comes first after the sleep
        heart(house, pulses)
        await house.kit.advance(20.0)
        house.kit.main.pause()
        await house.kit.advance(sleep_s)
        house.kit.main.resume()
        await house.kit.advance(20.0)
        assert {pulse.state for pulse in pulses} == {"up"}
        assert state(house, house.node) == "up"


async def test_a_heart_goes_on_after_an_outage(open_house):
    async with open_house() as house:
        pulses = []
        heart(house, pulses)
        await house.kit.advance(2.5)
        house.line.away = True
        await house.kit.advance(10.0)
        house.line.away = False
        before = len(pulses)
        await house.kit.advance(2.5)
        assert len(pulses) > before


class Idle(Actor):
    """A timer that only lives."""

    async def receive(self, message, ctx):
        ctx.stop()


def elector(house, coordinator, leads, timers):
    def make(term, leadership):
        timers.append(term.epoch)
        return Idle()

    return house.kit.spawn(
        Props(
            name="elector",
            factory=lambda: ElectorActor(
                coordinator=coordinator,
                store=house.line,
                number=0,
                incarnation=house.node,
                make_timer=make,
                leads=leads,
            ),
        )
    )


async def test_a_term_is_taken_once_and_anew_when_its_timer_ends(open_house):
    async with open_house() as house:
        leads, timers = {}, []
        elector(house, SoleCoordinator(), leads, timers)
        await house.kit.advance(5.0)
        assert (leads, timers, house.books.terms[0].epoch) == ({0: 1}, [1], 1)
        house.kit.lookup("/elector/timer-0-1").tell("fenced")
        await house.kit.advance(5.0)
        assert (leads, timers, house.books.terms[0].epoch) == ({0: 2}, [1, 2], 2)


async def test_a_term_won_again_while_its_epoch_is_taken_is_taken_once(open_house):
    async with open_house() as house:
        coordinator, leads, timers = SoleCoordinator(), {}, []
        take = house.line.store.take_epoch

        async def slow(*args, **kwargs):
            await house.kit.clock.sleep(1.0)
            return await take(*args, **kwargs)

        house.line.store.take_epoch = slow
        elector(house, coordinator, leads, timers)
        await house.kit.advance(0.5)
        await coordinator._held[0].resign()
        await house.kit.advance(5.0)
        assert (leads, timers, house.books.terms[0].epoch) == ({0: 1}, [1], 1)


async def test_an_outage_at_the_election_is_waited_out(open_house):
    async with open_house() as house:
        leads, timers = {}, []
        house.line.away = True
        elector(house, SoleCoordinator(), leads, timers)
        await house.kit.advance(10.0)
        assert house.line.asked.count("take_epoch") <= 25
        house.line.away = False
        await house.kit.advance(1.0)
        assert (leads, timers) == ({0: 1}, [1])


async def test_who_ends_resigns_and_the_next_leads(open_house):
    async with open_house() as house:
        coordinator, leads, timers = SoleCoordinator(), {}, []
        first = elector(house, coordinator, leads, timers)
        await house.kit.advance(1.0)
        await house.kit.main.stop_actor(first)
        assert leads == {}
        with anyio.fail_after(1):
            await coordinator.campaign(0)


async def test_what_waits_goes_without_a_hint(open_house):
    async with open_house() as house:
        job = house.job(overlap="skip")
        await house.trigger(job, 2)
        waiting = house.kit.spawn(lambda: WaitingActor(store=house.line, hints=house))
        await house.kit.advance(1.5)
        assert house.states() == ["scheduled", "blocked"]
        house.books.end(house.books.hot[1], "cancelled", None, house.kit.clock.now())
        house.line.away = True
        await house.kit.advance(5.0)
        house.line.away = False
        await house.kit.wait_until(
            lambda: house.states() == ["cancelled", "scheduled"], within_s=1.1
        )
        assert Ready("default") in house.hints
        assert local(waiting).restarts == 0


class ThreeRounds:
    """Books so large that a look at all of them takes three."""

    def __init__(self) -> None:
        self.asked = []
        self.more = False

    async def settle(self, job_keys, *, now, after=0) -> Settled:
        self.asked.append(after if job_keys is None else tuple(job_keys))
        if job_keys is not None:
            return Settled(more=self.more)
        return Settled(place=(after + 1) % 3)

    async def run_triggers(self, *, now, limit) -> Settled:
        return Settled()


async def test_a_poll_looks_at_a_part_of_what_waits_and_what_may_be_any_of_it_has_all_looked_at(
    open_house,
):
    async with open_house() as house:
        store = ThreeRounds()
        waiting = house.kit.spawn(lambda: WaitingActor(store=store, hints=house))
        await house.kit.advance(0.5)
        assert store.asked == [0, 1, 2]  # it has just begun
        for _ in range(4):
            await house.kit.advance(1.0)
        assert store.asked[3:] == [0, 1, 2, 0]
        waiting.tell(JobsFinished((7,)))
        await house.kit.settle()
        assert store.asked[7:] == [(7,)]
        waiting.tell(JobsFinished(()))
        await house.kit.settle()
        assert store.asked[8:] == [0, 1, 2]


async def test_what_was_let_go_in_part_has_all_looked_at(open_house):
    async with open_house() as house:
        store = ThreeRounds()
        waiting = house.kit.spawn(lambda: WaitingActor(store=store, hints=house))
        await house.kit.advance(0.5)
        store.more = True
        waiting.tell(JobsFinished((7,)))
        await house.kit.settle()
        assert store.asked[3:] == [(7,), 0, 1, 2]
