"""The store as one node reaches it: over a line that delays, loses answers, and may be down."""

import asyncio
from collections.abc import Callable
from typing import Any

from protocols.errors import UnavailableError
from runtime.kernel.testkit import NodeTime
from tests.sim.world import World


class Line:
    """Has the methods of the store; each runs at one instant, some time after it was called.

    What was sent is run though its node is paused or dead meanwhile. The answer waits for the
    node to go on, and is nobody's if it died.
    """

    def __init__(self, world: World, who: str, time: NodeTime) -> None:
        self._world = world
        self._who = who
        self._time = time

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self.send(name, args, kwargs)

        return call

    def send(self, name: str, args: tuple, kwargs: dict) -> "asyncio.Future[Any]":
        world = self._world
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        way = world.faults.way()
        gone = UnavailableError(f"the simulated line lost {name}")

        def answer(value: Any, error: Exception | None) -> None:
            world.clock.call_later(
                way.back_s, lambda: self._time.run(lambda: _resolve(future, value, error))
            )

        def run() -> None:
            if world.down(self._who):
                answer(None, gone)
                return
            value, error = world.run(self._who, name, args, kwargs)
            if way.lost == "after":
                world.note(self._who, "answer lost", name)
                error = gone
            if way.lost != "early":
                answer(value, error)

        if way.lost == "early":
            world.note(self._who, "given up, still under way", name)
            answer(None, gone)
        if way.lost == "before":
            answer(None, gone)
        else:
            world.clock.call_later(way.out_s, run)
        return future


def _resolve(future: "asyncio.Future[Any]", value: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
