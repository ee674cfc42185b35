"""An elector for each leadership there is now: added, ended, made again, and none when drained."""

import pytest

from actors.timing import Cover, StepDown, TimingActor
from protocols.actor import Actor, Props
from runtime.kernel.testkit import TestKit

pytestmark = pytest.mark.asyncio


class Coordinator:
    """Keeps what it was told."""

    def __init__(self):
        self.covered: list[int] = []

    def cover(self, numbers, /):
        self.covered.append(numbers)


class Elector(Actor):
    """Lives, and takes a second to end."""

    def __init__(self, alive: set[int], number: int) -> None:
        self._alive = alive
        self._number = number

    async def on_start(self, ctx):
        assert self._number not in self._alive, "two electors for one leadership"
        self._alive.add(self._number)

    async def receive(self, message, ctx):
        if message == "fail":
            raise ValueError(self._number)

    async def on_stop(self, ctx):
        await ctx.sleep(1.0)
        self._alive.discard(self._number)


def timing(kit, coordinator, alive, leaderships=2):
    return kit.spawn(
        Props(
            name="timing",
            factory=lambda: TimingActor(
                coordinator=coordinator,
                leaderships=leaderships,
                make_elector=lambda number: Elector(alive, number),
            ),
        )
    )


async def test_there_is_an_elector_for_each_leadership_however_the_number_changes():
    async with TestKit() as kit:
        alive: set[int] = set()
        coordinator = Coordinator()
        ref = timing(kit, coordinator, alive)
        await kit.wait_until(lambda: alive == {0, 1})
        ref.tell(Cover(4))
        await kit.wait_until(lambda: alive == {0, 1, 2, 3})
        ref.tell(Cover(1))
        ref.tell(Cover(3))  # those that are ending are made again once they have ended
        await kit.advance(5.0)
        assert alive == {0, 1, 2}
        assert coordinator.covered[0] == 2
        assert coordinator.covered[-1] == 3


async def test_one_that_steps_down_leads_nothing_until_its_end():
    async with TestKit() as kit:
        alive: set[int] = set()
        coordinator = Coordinator()
        ref = timing(kit, coordinator, alive)
        await kit.wait_until(lambda: alive == {0, 1})
        ref.tell(StepDown())
        await kit.advance(5.0)
        assert alive == set()
        assert coordinator.covered[-1] == 0


async def test_an_elector_that_fails_is_restarted():
    async with TestKit() as kit:
        alive: set[int] = set()
        timing(kit, Coordinator(), alive, leaderships=1)
        await kit.wait_until(lambda: alive == {0})
        kit.lookup("/timing/elector-0").tell("fail")
        await kit.advance(10.0)
        assert kit.lookup("/timing/elector-0").alive
