"""What the coordinator's contract is tried on: nodes of one cluster, each to be cut and ended."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
from anyio.abc import TaskGroup

from runtime.clock import monotonic_ns
from runtime.etcd import EtcdCoordinator, EtcdSettings
from runtime.memory.coordinator import SoleCoordinator
from tests.support.etcd import Etcd, Wire

WITHIN_S = 20.0
LOOK_S = 0.01
_clusters = itertools.count(1)


async def until(condition: Callable[[], object], *, within_s: float = WITHIN_S) -> None:
    """Wait for a condition; fail, naming it, where it does not come true."""
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, f"not true within {within_s} s: {condition}"
        await anyio.sleep(LOOK_S)


class Clock:
    """A monotonic clock that a test can push on, as a suspended machine's is."""

    def __init__(self) -> None:
        self.ahead_ns = 0

    def now_ns(self) -> int:
        return monotonic_ns() + self.ahead_ns

    def jump(self, by_s: float) -> None:
        self.ahead_ns += round(by_s * 1e9)


class Elector:
    """Does what an elector does for one group, and shows it."""

    def __init__(self, coordinator, number: int) -> None:
        self._coordinator = coordinator
        self.number = number
        self.leadership = None
        self.won = 0
        self.work = anyio.Event()
        """Cleared by a test that holds the work up."""
        self.work.set()

    async def run(self) -> None:
        try:
            while True:
                self.leadership = await self._coordinator.campaign(self.number)
                self.won += 1
                await self.leadership.lost()
                await self.work.wait()
                await self._end()
        finally:
            if self.leadership is not None:
                with anyio.CancelScope(shield=True):
                    await self._end()

    async def _end(self) -> None:
        leadership, self.leadership = self.leadership, None
        await leadership.resign()

    @property
    def leads(self) -> bool:
        return self.leadership is not None and self.leadership.trusted()


class Node:
    """A node of a cluster: a task of its own, from `run` to `stop` or `kill`."""

    def __init__(self, make, wire: Wire | None) -> None:
        self.clock = Clock()
        self.wire = wire
        self.states: list[str | None] = []
        self.electors: dict[int, Elector] = {}
        self.coordinator = None
        self._make = make
        self._stop = anyio.Event()
        self._ended = anyio.Event()
        self._electing = None

    async def run(self, *, task_status) -> None:
        async with AsyncExitStack() as stack:
            if self.wire is not None:
                await stack.enter_async_context(self.wire)
            self.coordinator = self._make(self)
            async with anyio.create_task_group() as group:
                if self.wire is not None:
                    group.start_soon(self.coordinator.run)
                async with anyio.create_task_group() as self._electing:
                    task_status.started()
                    await self._stop.wait()
                    self._electing.cancel_scope.cancel()
                group.cancel_scope.cancel()
        self._ended.set()

    def stand(self, *numbers: int) -> None:
        for number in numbers:
            elector = self.electors[number] = Elector(self.coordinator, number)
            self._electing.start_soon(elector.run)

    @property
    def leads(self) -> set[int]:
        return {number for number, elector in self.electors.items() if elector.leads}

    async def stop(self) -> None:
        """Leave as a node does: electors first, then the coordinator."""
        self._stop.set()
        await self._ended.wait()

    async def kill(self) -> None:
        """End without a word to etcd."""
        if self.wire is not None:
            self.wire.cut()
        await self.stop()


class Cluster:
    """Nodes by name."""

    def __init__(self, group: TaskGroup, server: Etcd | None, ttl_s: float) -> None:
        self._group = group
        self._ttl_s = ttl_s
        self._name = f"test{next(_clusters)}"
        self._incarnations = itertools.count(1)
        self.server = server
        self.nodes: dict[str, Node] = {}

    async def node(self, name: str = "a", *, groups: int = 1, stand: bool = True) -> Node:
        def sole(node: Node) -> SoleCoordinator:
            return SoleCoordinator()

        def etcd(node: Node) -> EtcdCoordinator:
            settings = EtcdSettings(
                endpoints=(node.wire.endpoint,), cluster=self._name, ttl_s=self._ttl_s
            )
            return EtcdCoordinator(
                settings,
                name=name,
                incarnation=next(self._incarnations),
                now_ns=node.clock.now_ns,
                on_state=node.states.append,
            )

        node = Node(sole, None)
        if self.server is not None:
            node = Node(etcd, Wire(self.server.port))
        await self._group.start(lambda *, task_status: node.run(task_status=task_status))
        self.nodes[name] = node
        node.coordinator.cover(groups)
        if stand:
            node.stand(*range(groups))
        return node

    async def three(self, groups: int) -> list[Node]:
        return [await self.node(name, groups=groups) for name in "abc"]

    async def stop(self, name: str) -> None:
        await self.nodes.pop(name).stop()

    async def kill(self, name: str) -> None:
        await self.nodes.pop(name).kill()

    def shares(self) -> list[int]:
        """How many each leads, fewest first."""
        return sorted(len(node.leads) for node in self.nodes.values())

    def led(self) -> list[int]:
        return sorted(number for node in self.nodes.values() for number in node.leads)

    def even(self, *shares: int) -> bool:
        """Whether the groups are led, each once, so many by each."""
        return self.shares() == sorted(shares) and self.led() == list(range(sum(shares)))


@asynccontextmanager
async def cluster(server: Etcd | None, *, ttl_s: float = 2.0) -> AsyncIterator[Cluster]:
    """Open a cluster without nodes; in the test's own task, since it holds a task group."""
    with anyio.fail_after(4 * WITHIN_S):
        async with anyio.create_task_group() as group:
            yield (made := Cluster(group, server, ttl_s))
            for name in list(made.nodes):
                await made.stop(name)
