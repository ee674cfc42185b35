"""Between refs: messages of a test may be lost, doubled or delayed, as a plan says."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from protocols.actor import AskTimeout, Delivery, Lane, SelfAsk
from runtime.kernel.items import Ask
from runtime.kernel.mailbox import QUEUED
from runtime.kernel.refs import LocalRef
from runtime.kernel.testkit.virtual import VirtualClock, fail

if TYPE_CHECKING:
    from runtime.kernel.testkit.node import TestSystem

SENDER: ContextVar[str | None] = ContextVar("sender", default=None)
"""`node:/path` of the actor whose code runs, its pipes included; None in the test itself."""

AS_IT_IS = (0.0,)


class Parcel(msgspec.Struct, frozen=True, kw_only=True):
    """One message on its way; actors are named `node:/path`, the test itself None."""

    source: str | None
    target: str | None
    message: Any
    kind: Literal["tell", "put", "ask", "answer"]

    @property
    def between_nodes(self) -> bool:
        """Whether it leaves its node; what the test itself sends or is answered does not."""
        if self.source is None or self.target is None:
            return False
        return self.source.split(":")[0] != self.target.split(":")[0]


Plan = Callable[[Parcel], Sequence[float]]
"""Seconds of delay for each copy of a parcel: `()` loses it, `(0.0,)` leaves it as it is."""


class Network:
    """What every `tell`, `put`, `ask` and answer of a test kit's systems goes through."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.plan: Plan | None = None
        self.lost = 0
        self.doubled = 0
        self.delayed = 0

    def route(self, parcel: Parcel) -> Sequence[float]:
        """The delays of its copies."""
        if self.plan is None:
            return AS_IT_IS
        delays = self.plan(parcel)
        self.lost += not delays
        self.doubled += len(delays) > 1
        self.delayed += any(delay_s > 0 for delay_s in delays)
        return delays

    def carry(self, delays: Sequence[float], deliver: Callable[[], Any]) -> None:
        """Deliver each copy after its delay."""
        for delay_s in delays:
            if delay_s > 0:
                self.clock.call_later(delay_s, deliver)
            else:
                deliver()


class NetworkRef(LocalRef):
    """A ref whose messages a plan may lose, double or delay, and a paused node holds."""

    __slots__ = ()

    @property
    def _system(self) -> "TestSystem":
        return self._cell.system  # type: ignore[return-value]

    @property
    def address(self) -> str:
        """`node:/path`."""
        return f"{self._system.name}:{self.path}"

    def _parcel(self, message: Any, kind: Literal["tell", "put", "ask"]) -> Parcel:
        return Parcel(source=SENDER.get(), target=self.address, message=message, kind=kind)

    def tell(self, message: Any, lane: Lane = "normal") -> Delivery:
        """Send as the network has it; a sender cannot know of a loss."""
        system = self._system
        delays = system.network.route(self._parcel(message, "tell"))
        if delays == AS_IT_IS and not system.time.paused:
            return super().tell(message, lane)
        plain = super().tell
        system.network.carry(delays, lambda: system.time.run(lambda: plain(message, lane)))
        return QUEUED

    async def put(self, message: Any, *, deadline: float) -> Delivery:
        """As tell where the network interferes; else wait for room."""
        system = self._system
        delays = system.network.route(self._parcel(message, "put"))
        if delays == AS_IT_IS and not system.time.paused:
            return await super().put(message, deadline=deadline)
        plain = super().tell
        system.network.carry(delays, lambda: system.time.run(lambda: plain(message)))
        return QUEUED

    def ask(self, message: Any, *, deadline: float, lane: Lane = "normal") -> Awaitable[Any]:
        """Question and answer are a parcel each; a lost one ends in AskTimeout."""
        system = self._system
        source = SENDER.get()
        delays = system.network.route(self._parcel(message, "ask"))
        if system.network.plan is None and not system.time.paused:
            return super().ask(message, deadline=deadline, lane=lane)
        if asyncio.current_task(system.loop) is self._cell.task:
            raise SelfAsk(f"{self.path} asked itself")
        outer: asyncio.Future[Any] = system.loop.create_future()
        system.deadlines.add(Ask(message, outer), deadline)
        plain = super().ask

        def deliver() -> None:
            inner = plain(message, deadline=deadline, lane=lane)
            assert isinstance(inner, asyncio.Future)
            inner.add_done_callback(lambda done: self._relay(done, outer, source))

        system.network.carry(delays, lambda: system.time.run(deliver))
        return outer

    def _relay(
        self, inner: "asyncio.Future[Any]", outer: "asyncio.Future[Any]", source: str | None
    ) -> None:
        """Send the answer back, or what was raised instead."""
        error = None if inner.cancelled() else inner.exception()
        if inner.cancelled() or isinstance(error, AskTimeout):
            return

        def deliver() -> None:
            if isinstance(error, Exception):
                fail(outer, error)
            elif not outer.done():
                outer.set_result(inner.result())

        answer = Parcel(
            source=self.address,
            target=source,
            message=error if error is not None else inner.result(),
            kind="answer",
        )
        asker = self._system.peers.get((source or "").split(":")[0])
        network = self._system.network
        network.carry(
            network.route(answer),
            deliver if asker is None else lambda: asker.time.run(deliver),
        )
