"""Hints between nodes: only what cannot start here leaves, to those who have slots free."""

import pytest

from protocols.messages import (
    CancelRequested,
    EventsAppended,
    FreeSlots,
    JobsFinished,
    Ready,
    SchedulesChanged,
)
from protocols.ports.store import Peer, PoolLoad
from runtime.cluster.hints import READY_EVERY_S, SLOTS_EVERY_S, ClusterHints
from runtime.peers import Peers


class House:
    """One node of three, at a clock that stands still."""

    def __init__(self):
        self.now_s = 0.0
        self.free = 0
        self.local: list[object] = []
        self.posted: list[tuple[int | None, object]] = []
        self.peers = Peers()
        self.hints = ClusterHints(
            self,
            peers=self.peers,
            post=lambda node, hint: self.posted.append((node, hint)),
            free={"default": lambda: self.free},
            now_s=lambda: self.now_s,
        )

    def send(self, hint, /):
        self.local.append(hint)

    def beat(self, **running: int):
        """Each peer has four slots; so many of them run."""
        self.peers.update(
            Peer(incarnation=int(name[1:]), name=name, pools={"default": PoolLoad(4, count)})
            for name, count in running.items()
        )


@pytest.fixture
def house():
    house = House()
    house.beat(n2=4, n3=1, n4=0)
    return house


def test_what_can_start_here_stays_here(house):
    house.free = 1
    house.hints.send(Ready("default"))
    assert (house.local, house.posted) == ([Ready("default")], [])


def test_what_cannot_goes_to_those_with_free_slots_the_freest_first(house):
    house.hints.send(Ready("default"))
    assert house.local == [Ready("default")]
    assert house.posted == [(4, Ready("default")), (3, Ready("default"))]


def test_a_pool_that_is_not_ours_starts_elsewhere(house):
    house.peers.update([Peer(incarnation=2, name="n2", pools={"gpu": PoolLoad(1, 0)})])
    house.hints.send(Ready("gpu"))
    assert house.posted == [(2, Ready("gpu"))]


def test_news_of_slots_counts_until_the_next_beat(house):
    house.hints.deliver(FreeSlots("default", 2, 1))
    house.hints.deliver(FreeSlots("default", 3, 0))
    house.hints.deliver(FreeSlots("default", 99, 5))
    assert house.hints.hungry("default") == (4, 2)
    house.beat(n2=4, n3=1)
    assert house.hints.hungry("default") == (3,)


def test_hints_of_a_pool_leave_seldom(house):
    for _ in range(3):
        house.hints.send(Ready("default"))
        house.hints.send(FreeSlots("default", 1, 1))
    assert len(house.posted) == 3
    house.now_s += max(READY_EVERY_S, SLOTS_EVERY_S)
    house.hints.send(Ready("default"))
    house.hints.send(FreeSlots("default", 1, 0))
    assert house.posted[-1] == (None, FreeSlots("default", 1, 0))
    assert len(house.posted) == 6


def test_a_slot_that_was_taken_for_a_moment_is_told_of_again_at_once(house):
    """Of short work the last word must not be that there is no room."""
    free, none = FreeSlots("default", 1, 1), FreeSlots("default", 1, 0)
    house.hints.send(free)
    house.now_s += SLOTS_EVERY_S
    for hint in (none, free, none, free):
        house.hints.send(hint)
    assert [hint for _, hint in house.posted] == [free, none, free]


@pytest.mark.parametrize("hint", [SchedulesChanged(), CancelRequested(1, 2)])
def test_what_concerns_every_node_goes_to_all(house, hint):
    house.hints.send(hint)
    assert (house.local, house.posted) == ([hint], [(None, hint)])


@pytest.mark.parametrize("hint", [JobsFinished((1,)), EventsAppended()])
def test_what_any_node_can_do_is_done_here(house, hint):
    house.hints.send(hint)
    assert (house.local, house.posted) == ([hint], [])


@pytest.mark.parametrize("hint", [Ready("default"), SchedulesChanged(), CancelRequested(1, 2)])
def test_what_arrives_goes_no_further(house, hint):
    house.hints.deliver(hint)
    assert (house.local, house.posted) == ([hint], [])
