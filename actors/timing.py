"""TimingActor: an elector for each group of shards, however many groups there are now.

The number is the database's and may change while nodes run; a node that is drained stands for
election no more.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from protocols.actor import Actor, Context, Props, Ref, Terminated
from protocols.ports.coordinator import Coordinator


class Cover(msgspec.Struct, frozen=True):
    """There are so many leaderships."""

    leaderships: int


class StepDown(msgspec.Struct, frozen=True):
    """Lead nothing from here on."""


class TimingActor(Actor):
    """Keeps electors 0 to `leaderships` - 1.

    Args:
        make_elector: makes the elector of a group.
    """

    def __init__(
        self,
        *,
        coordinator: Coordinator,
        leaderships: int,
        make_elector: Callable[[int], Actor],
    ) -> None:
        self._coordinator = coordinator
        self._leaderships = leaderships
        self._make_elector = make_elector
        self._electors: dict[int, Ref] = {}
        self._ending: set[int] = set()

    async def on_start(self, ctx: Context) -> None:
        """Stand for every leadership there is."""
        ctx.register("timing")
        self._settle(ctx)

    async def receive(self, message: Any, ctx: Context) -> None:
        """Follow the number; an elector that ended by itself is this actor's failure."""
        match message:
            case Cover(leaderships=leaderships):
                self._leaderships = leaderships
            case StepDown():
                self._leaderships = 0
            case Terminated(ref=ref):
                number = next(n for n, elector in self._electors.items() if elector is ref)
                del self._electors[number]
                if number not in self._ending:
                    raise RuntimeError(f"the elector of leadership {number} has ended")
                self._ending.discard(number)
        self._settle(ctx)

    def _settle(self, ctx: Context) -> None:
        """Begin and end electors until there is one for each leadership."""
        self._coordinator.cover(self._leaderships)
        for number in range(self._leaderships):
            if number not in self._electors:
                elector = ctx.spawn(
                    Props(
                        name=f"elector-{number}",
                        factory=partial(self._make_elector, number),
                    )
                )
                self._electors[number] = elector
                ctx.watch(elector)
        for number, elector in self._electors.items():
            if number >= self._leaderships and number not in self._ending:
                self._ending.add(number)
                ctx.stop(elector)
