"""What is read is what jobs want, as soon as the database says so."""

import pytest

from actors.dispatcher.messages import Cease
from actors.subscriptions import POLL_S, SubscriptionsActor
from protocols.errors import UnavailableError
from protocols.messages import SchedulesChanged
from protocols.ports.records import Subscription
from runtime.kernel.testkit import TestKit

pytestmark = pytest.mark.asyncio
A, B = Subscription("a", "g"), Subscription("b", "g")


class Wishes:
    """What jobs want, and what was asked of the subscriber; the database may be away."""

    def __init__(self):
        self.now = frozenset({A})
        self.away = False
        self.told = []

    async def subscriptions(self, cluster):
        assert cluster == "c"
        if self.away:
            raise UnavailableError("away")
        return self.now

    def want(self, wanted, /):
        self.told.append(wanted)


@pytest.fixture
def wishes():
    return Wishes()


def spawn(kit, wishes):
    return kit.spawn(lambda: SubscriptionsActor(store=wishes, subscriber=wishes, cluster="c"))


async def test_a_change_is_followed_at_its_hint_and_without_one_at_the_next_poll(wishes):
    async with TestKit() as kit:
        ref = spawn(kit, wishes)
        await kit.settle()
        assert wishes.told == [{A}]
        wishes.now = frozenset({A, B})
        ref.tell(SchedulesChanged())
        await kit.settle()
        assert wishes.told[-1] == {A, B}
        wishes.now = frozenset({B})
        await kit.advance(POLL_S)
        assert wishes.told[-1] == {B}


async def test_a_database_that_is_away_changes_nothing_and_is_asked_again(wishes):
    async with TestKit() as kit:
        spawn(kit, wishes)
        await kit.settle()
        wishes.away, wishes.now = True, frozenset()
        await kit.advance(3 * POLL_S)
        assert wishes.told == [{A}]
        wishes.away = False
        await kit.advance(POLL_S)
        assert wishes.told[-1] == frozenset()


async def test_a_node_that_drains_reads_no_more(wishes):
    async with TestKit() as kit:
        ref = spawn(kit, wishes)
        await kit.settle()
        ref.tell(Cease())
        await kit.advance(3 * POLL_S)
        assert wishes.told == [{A}, frozenset()]
