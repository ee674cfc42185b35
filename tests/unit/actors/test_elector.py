"""The elector: a leadership is resigned after its timer has ended, and never forgotten."""

import anyio
import pytest

from actors.elector import ElectorActor
from protocols.actor import Actor, Props
from protocols.errors import NotFoundError

pytestmark = pytest.mark.asyncio


class Leadership:
    """Led until the test says it is lost."""

    def __init__(self, seen: list[str], number: int) -> None:
        self.number = number
        self._seen = seen
        self.over = anyio.Event()

    def trusted(self) -> bool:
        return True

    async def lost(self) -> None:
        await self.over.wait()

    async def resign(self) -> None:
        self._seen.append("resigned")


class Coordinator:
    """Wins whenever the test lets it."""

    def __init__(self, seen: list[str]) -> None:
        self.seen = seen
        self.won: list[Leadership] = []
        self.may_win = anyio.Event()
        self.may_win.set()

    async def campaign(self, number: int) -> Leadership:
        self.seen.append("campaigns")
        await self.may_win.wait()
        self.won.append(Leadership(self.seen, number))
        return self.won[-1]


class SlowTimer(Actor):
    """A timer whose last statement takes a second to end."""

    def __init__(self, seen: list[str]) -> None:
        self._seen = seen

    async def on_start(self, ctx):
        self._seen.append("timer")

    async def receive(self, message, ctx):
        """Nothing comes."""

    async def on_stop(self, ctx):
        await ctx.sleep(1.0)
        self._seen.append("timer ended")


def elect(house, coordinator, seen):
    return house.kit.spawn(
        Props(
            name="elector",
            factory=lambda: ElectorActor(
                coordinator=coordinator,
                store=house.line,
                number=0,
                incarnation=house.node,
                make_timer=lambda _term, _leadership: SlowTimer(seen),
                leads={},
            ),
        )
    )


async def test_what_is_lost_is_resigned_when_its_timer_has_ended_and_stood_for_again(open_house):
    async with open_house() as house:
        seen: list[str] = []
        coordinator = Coordinator(seen)
        elect(house, coordinator, seen)
        await house.kit.advance(1.0)
        coordinator.may_win = anyio.Event()
        coordinator.won[0].over.set()
        await house.kit.advance(0.5)
        assert seen == ["campaigns", "timer"]
        await house.kit.advance(1.0)
        assert seen == ["campaigns", "timer", "timer ended", "resigned", "campaigns"]
        coordinator.may_win.set()
        await house.kit.advance(1.0)
        assert seen[5:] == ["timer"]
        assert house.books.terms[0].epoch == 2


async def test_what_is_lost_while_the_books_are_away_is_resigned_without_a_timer(open_house):
    async with open_house() as house:
        seen: list[str] = []
        coordinator = Coordinator(seen)
        house.line.away = True
        elect(house, coordinator, seen)
        await house.kit.advance(2.0)
        coordinator.may_win = anyio.Event()
        coordinator.won[0].over.set()
        await house.kit.advance(1.0)
        assert seen == ["campaigns", "resigned", "campaigns"]
        house.line.away = False
        await house.kit.advance(2.0)
        assert "timer" not in seen
        assert house.books.terms[0].epoch == 0


async def test_who_is_stopped_resigns_after_its_timer(open_house):
    async with open_house() as house:
        seen: list[str] = []
        actor = elect(house, Coordinator(seen), seen)
        await house.kit.advance(1.0)
        await house.kit.main.stop_actor(actor)
        assert seen == ["campaigns", "timer", "timer ended", "resigned"]


async def test_an_epoch_taken_for_a_term_that_was_lost_meanwhile_starts_no_timer(open_house):
    async with open_house() as house:
        seen: list[str] = []
        coordinator = Coordinator(seen)
        take = house.line.store.take_epoch

        async def slow(*args, **kwargs):
            await house.kit.clock.sleep(1.0)
            return await take(*args, **kwargs)

        house.line.store.take_epoch = slow
        elect(house, coordinator, seen)
        await house.kit.advance(0.5)
        coordinator.may_win = anyio.Event()
        coordinator.won[0].over.set()
        await house.kit.advance(3.0)
        assert seen == ["campaigns", "resigned", "campaigns"]


async def test_a_group_that_is_no_more_is_kept_without_a_timer_and_taken_when_it_is_back(
    open_house,
):
    """A node with hundreds of groups regrouped to one hears of it later than its timers do."""
    async with open_house() as house:
        seen: list[str] = []
        take, gone = house.line.store.take_epoch, True

        async def refused(*args, **kwargs):
            if gone:
                raise NotFoundError("there is no leadership 0: timer.shards was lowered")
            return await take(*args, **kwargs)

        house.line.store.take_epoch = refused
        actor = elect(house, Coordinator(seen), seen)
        await house.kit.advance(60.0)
        assert actor.alive
        assert seen == ["campaigns"], "no failure: it would be one of its supervisor's few"
        gone = False
        await house.kit.advance(2.0)
        assert seen == ["campaigns", "timer"]
