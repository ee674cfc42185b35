"""Elections that expire by virtual time, and leaders that may not know it yet."""

import asyncio

from protocols.ports.coordinator import Leadership
from runtime.kernel.testkit import NodeTime
from tests.sim.world import TTL_S, World

MARGIN_S = 0.5
RENEWALS = 4
"""Renewals per TTL."""


class SimLeadership:
    """Led by one node until its lease runs out unrenewed."""

    def __init__(self, coordinator: "SimCoordinator", number: int) -> None:
        self._coordinator = coordinator
        self._number = number
        self._ended = asyncio.get_running_loop().create_future()
        self._renewed = coordinator.time.monotonic()

    @property
    def number(self) -> int:
        return self._number

    def trusted(self) -> bool:
        """Bounded by the lease, unless the run lets leaders believe for ever."""
        if self._ended.done():
            return False
        sure_until = self._renewed + TTL_S - MARGIN_S
        return self._coordinator.world.faults.split or (
            self._coordinator.time.monotonic() < sure_until
        )

    async def lost(self) -> None:
        await asyncio.shield(self._ended)

    async def resign(self) -> None:
        self._coordinator.elections.release(self)
        self.end()

    def end(self) -> None:
        """Know that it is over."""
        if not self._ended.done():
            self._ended.set_result(None)

    def renew(self) -> None:
        """Say to the election that its leader lives, and look whether it still leads."""
        if self._ended.done():
            return
        coordinator = self._coordinator
        coordinator.time.call_later(TTL_S / RENEWALS, self.renew)
        if coordinator.cut_off:
            return
        if coordinator.elections.renewed(self):
            self._renewed = coordinator.time.monotonic()
        else:
            self.end()


class Elections:
    """What etcd would hold: one leader a group, and who waits."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._leader: dict[int, SimLeadership] = {}
        self._until: dict[int, float] = {}
        self._waiting: list[tuple[int, SimCoordinator, asyncio.Future[Leadership]]] = []

    def campaign(
        self, number: int, who: "SimCoordinator", future: "asyncio.Future[Leadership]"
    ) -> None:
        self._waiting.append((number, who, future))
        self._elect(number)

    def renewed(self, leadership: SimLeadership) -> bool:
        """Whether it still leads; then its lease begins anew."""
        if self._leader.get(leadership.number) is not leadership:
            return False
        self._until[leadership.number] = self._world.clock.monotonic() + TTL_S
        return True

    def release(self, leadership: SimLeadership) -> None:
        if self._leader.get(leadership.number) is leadership:
            del self._leader[leadership.number]
            self._elect(leadership.number)

    def _expire(self, number: int, leadership: SimLeadership) -> None:
        if self._leader.get(number) is not leadership:
            return
        left_s = self._until[number] - self._world.clock.monotonic()
        if left_s > 1e-6:
            self._world.clock.call_later(left_s, self._expire, number, leadership)
            return
        self._world.note("lease", f"{number} expired")
        self.release(leadership)

    def _elect(self, number: int) -> None:
        """Give a free group to the first who waits for it and can be reached."""
        if number in self._leader:
            return
        self._waiting = [w for w in self._waiting if not w[2].done() and not w[1].ended]
        able = [w for w in self._waiting if w[0] == number and w[1].reachable]
        if not able:
            if any(w[0] == number for w in self._waiting):
                self._world.clock.call_later(0.2, self._elect, number)
            return
        _, who, future = able[0]
        leadership = SimLeadership(who, number)
        self._leader[number] = leadership
        self._until[number] = self._world.clock.monotonic() + TTL_S
        self._world.clock.call_later(TTL_S, self._expire, number, leadership)
        self._world.note("lease", f"{number} won", who.name)
        leadership.renew()
        future.set_result(leadership)


class SimCoordinator:
    """The Coordinator of one life of a node."""

    def __init__(self, world: World, elections: Elections, name: str, time: NodeTime) -> None:
        self.world = world
        self.elections = elections
        self.name = name
        self.time = time
        self.ended = False
        self.cut_until = 0.0

    @property
    def cut_off(self) -> bool:
        """Whether the elections cannot be reached from here."""
        return not self.world.faults.healed and self.world.clock.monotonic() < self.cut_until

    @property
    def reachable(self) -> bool:
        return not self.cut_off and not self.time.paused

    async def campaign(self, number: int) -> Leadership:
        future: asyncio.Future[Leadership] = asyncio.get_running_loop().create_future()
        self.elections.campaign(number, self, future)
        return await future

    def fit(self, yes: bool, /) -> None:
        """Change nothing: who cannot write is fenced all the same."""

    def cover(self, numbers: int, /) -> None:
        """Change nothing: a run has as many groups as it began with."""
