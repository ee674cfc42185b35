"""The test kit: one clock, one network, and as many nodes and probes as a test wants."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from protocols.actor import Actor, Props, Ref
from runtime.kernel.context import local
from runtime.kernel.introspection import Statistics
from runtime.kernel.refs import LocalRef
from runtime.kernel.testkit.network import Network
from runtime.kernel.testkit.node import TestSystem
from runtime.kernel.testkit.probe import Probe, ProbeActor
from runtime.kernel.testkit.virtual import NodeTime, VirtualClock


class TestKit:
    """Virtual time and a system named `main` to test actors in.

        async with TestKit() as kit:
            probe = kit.probe()
            timer = kit.spawn(lambda: Reminder(probe.ref))
            timer.tell(Remind(in_s=3600))
            await probe.expect("it is time", within_s=3601)

    Args:
        seed: Of all randomness actors see; the same seed gives the same run.
        start: The first instant.
        autojump: False lets time move only by `advance`.
    """

    __test__ = False

    def __init__(
        self,
        *,
        seed: int = 0,
        start: datetime = datetime(2026, 1, 1, tzinfo=UTC),
        autojump: bool = True,
    ) -> None:
        self.seed = seed
        self.clock = VirtualClock(start=start, autojump=autojump)
        self.network = Network(self.clock)
        self.systems: dict[str, TestSystem] = {}
        self.failures: list[tuple[str, BaseException]] = []
        """Every exception that ended an instance, with its actor's path."""
        self._stack = AsyncExitStack()
        self._probes = 0

    async def __aenter__(self) -> Self:
        """Start the system `main`."""
        await self._stack.__aenter__()
        try:
            await self.system("main")
        except BaseException:
            self.clock.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        """Stop every system, the last one started first."""
        for system in self.systems.values():
            system.resume()
        try:
            return await self._stack.__aexit__(kind, error, trace)
        finally:
            self.clock.close()

    async def system(
        self, name: str, tree: Props | None = None, *, offset_s: float = 0.0
    ) -> TestSystem:
        """Start another node on the same clock and network.

        Args:
            name: Of the node; that of one that crashed may be used again.
            tree: What it runs.
            offset_s: How wrong its clock is.
        """
        system = TestSystem(
            name,
            time=NodeTime(self.clock, offset_s=offset_s),
            network=self.network,
            peers=self.systems,
            tree=tree,
            seed=self.seed,
            on_failure=lambda path, error: self.failures.append((path, error)),
        )
        self.systems[name] = system
        return await self._stack.enter_async_context(system)

    @property
    def main(self) -> TestSystem:
        """The system that `spawn` and `probe` use."""
        return self.systems["main"]

    def spawn(self, props: Props | Callable[[], Actor], *, name: str | None = None) -> LocalRef:
        """Start an actor."""
        return self.main.spawn(props, name=name)

    def probe(
        self, name: str | None = None, *, answer: Callable[[Any], Any] | None = None
    ) -> Probe:
        """A new probe; `answer` makes its answers to asks."""
        self._probes += 1
        probe = Probe(self, answer)
        probe.ref = self.main.spawn(lambda: ProbeActor(probe), name=name or f"probe-{self._probes}")
        return probe

    def lookup(self, name: str) -> LocalRef | None:
        """The living actor of the system `main` by that name or path."""
        return self.main.lookup(name)

    def statistics(self) -> Statistics:
        """The tree and counters of the system `main`."""
        return self.main.statistics()

    # Waiting.

    async def advance(self, delay_s: float) -> None:
        """Let so much virtual time pass."""
        await self.clock.advance(delay_s)

    async def settle(self) -> None:
        """Return when nothing can run before time moves."""
        await self.clock.settle()

    async def wait_until(
        self, condition: Callable[[], bool], *, within_s: float = 60.0, what: str = "condition"
    ) -> None:
        """Return once `condition()`; AssertionError after `within_s` virtual seconds."""
        await self.clock.wait_until(condition, within_s=within_s, what=what)

    async def wait_running(self, ref: Ref, *, within_s: float = 60.0) -> None:
        """Return once an instance of it has started."""
        cell = local(ref)
        what = f"{cell.path} runs"
        await self.wait_until(lambda: cell.state == "running", within_s=within_s, what=what)

    async def wait_restarts(self, ref: Ref, times: int, *, within_s: float = 60.0) -> None:
        """Return once it runs and has been restarted that often."""
        cell = local(ref)
        await self.wait_until(
            lambda: cell.restarts >= times and cell.state == "running",
            within_s=within_s,
            what=f"{cell.path} was restarted {times} times",
        )

    async def wait_terminated(self, ref: Ref, *, within_s: float = 60.0) -> None:
        """Return once it has ended for good."""
        cell = local(ref)
        what = f"{cell.path} has ended"
        await self.wait_until(lambda: cell.closed, within_s=within_s, what=what)
