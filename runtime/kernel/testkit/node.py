"""An actor system for tests: virtual time, exact deadlines, refs that go through a network."""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from protocols.actor import AskTimeout, Props
from runtime.kernel.items import Ask
from runtime.kernel.nursery import Nursery
from runtime.kernel.system import ActorSystem
from runtime.kernel.testkit.network import SENDER, Network, NetworkRef
from runtime.kernel.testkit.virtual import NodeTime
from runtime.kernel.timers import Deadlines

if TYPE_CHECKING:
    from runtime.kernel.vitals import Vitals

FOREVER_NS = 1 << 62


class ExactDeadlines(Deadlines):
    """A timer for each ask, on its asker's node: exact, and gone with its answer.

    Gone, so that time never jumps to it; the asker's, since a paused target stops no asker.
    """

    __slots__ = ("_system",)

    def __init__(self, system: "TestSystem") -> None:
        super().__init__(system.time)
        self._system = system

    def add(self, ask: Ask, deadline_s: float) -> None:
        """End `ask` with AskTimeout, `deadline_s` from now."""
        asker = self._system.peers.get((SENDER.get() or "").split(":")[0])
        timers = self._system.network.clock if asker is None else asker.time
        ask.bucket = timers.call_later(deadline_s, self._over, ask)
        ask.future.add_done_callback(lambda _: ask.bucket.cancel())

    @staticmethod
    def drop(ask: Ask) -> None:
        """Forget an ask that was answered."""
        ask.bucket.cancel()

    def _over(self, ask: Ask) -> None:
        if not ask.future.done():
            self.timed_out += 1
            ask.future.set_exception(AskTimeout("no answer before the deadline"))


class NamedNursery(Nursery):
    """Starts each task in a context that names its actor, for the network to read."""

    def start(
        self, work: Coroutine[Any, Any, None], owner: "Vitals", purpose: str = ""
    ) -> "asyncio.Task[None]":
        """Start a task that sends as its actor."""
        context = copy_context()
        context.run(SENDER.set, f"{owner.system.name}:{owner.path}")  # type: ignore[attr-defined]
        return context.run(super().start, work, owner, purpose)


class TestSystem(ActorSystem):
    """One node of a test; several may share a clock and a network."""

    __test__ = False

    ref_class = NetworkRef
    nursery_class = NamedNursery
    slice_ns = FOREVER_NS  # real time must not decide who runs next

    def __init__(
        self,
        name: str,
        *,
        time: NodeTime,
        network: Network,
        peers: dict[str, "TestSystem"],
        tree: Props | None,
        seed: int,
        on_failure: Callable[[str, BaseException], None],
    ) -> None:
        self.name = name
        self.time = time
        self.network = network
        self.peers = peers
        super().__init__(tree=tree, clock=time, timers=time, seed=seed, on_failure=on_failure)
        self.deadlines = ExactDeadlines(self)

    def pause(self) -> None:
        """Stop the node as SIGSTOP would: no timer fires, no message arrives, until `resume`."""
        self.time.pause()

    def resume(self) -> None:
        """Let it go on, late."""
        self.time.resume()

    async def crash(self) -> None:
        """End the node as kill -9 would: no `on_stop`, its messages and timers gone."""
        self.time.end()
        self.kill()
        with self.network.clock.hold():
            await self.nursery.wait_empty()
