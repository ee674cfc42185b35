"""The local Ref: one object per actor, good over its restarts, dead for ever after its end."""

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from protocols.actor import ActorDead, Delivery, Lane, SelfAsk
from runtime.kernel.items import Ask
from runtime.kernel.mailbox import QUEUED, refusal

if TYPE_CHECKING:
    from runtime.kernel.vitals import Vitals


class LocalRef:
    """A `Ref` whose target lives in this process, on this loop."""

    __slots__ = ("_cell", "incarnation")

    def __init__(self, cell: "Vitals", incarnation: int) -> None:
        self._cell = cell
        self.incarnation = incarnation

    @property
    def path(self) -> str:
        """Where the actor is in its tree."""
        return self._cell.path

    @property
    def cell(self) -> "Vitals":
        """The kernel's side of it."""
        return self._cell

    @property
    def watch_target(self) -> "Vitals":
        """Whose end a watch of this ref tells of."""
        return self._cell

    @property
    def alive(self) -> bool:
        """False once it has ended for good."""
        return not self._cell.closed

    def tell(self, message: Any, lane: Lane = "normal") -> Delivery:
        """Send and go on; never waits."""
        cell = self._cell
        normal = cell.normal
        if len(normal) < cell.room and lane == "normal":
            normal.append(message)
            waiter = cell.waiter
            if waiter is not None:
                cell.waiter = None
                if not waiter.done():
                    waiter.set_result(None)
            return QUEUED
        return cell.offer(message, lane)

    async def put(self, message: Any, *, deadline: float) -> Delivery:
        """Send, waiting up to `deadline` seconds for room."""
        cell = self._cell
        return await cell.wait_room(message, deadline, cell.system.timers)

    def ask(self, message: Any, *, deadline: float, lane: Lane = "normal") -> Awaitable[Any]:
        """Send a question and await its answer; errors as in the actor contract."""
        cell = self._cell
        loop = cell.system.loop
        future: asyncio.Future[Any] = loop.create_future()
        task = cell.task
        if task is not None and asyncio.current_task(loop) is task:
            future.set_exception(SelfAsk(f"{cell.path} asked itself"))
            return future
        ask = Ask(message, future)
        if len(cell.normal) < cell.room and lane == "normal":
            cell.normal.append(ask)
            cell.wake()
        else:
            result = cell.offer(ask, lane, bury=False)
            if not result:
                reason = result.reason  # type: ignore[union-attr]
                if reason == "dead":
                    future.set_exception(ActorDead(f"{cell.path} has ended"))
                else:
                    future.set_exception(refusal(reason))
                return future
        cell.system.deadlines.add(ask, deadline)
        return future

    def __repr__(self) -> str:
        return f"<ref {self._cell.path}#{self.incarnation}>"
