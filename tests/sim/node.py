"""A simulated node: the real tree of the real actors, one life after another."""

import asyncio
import traceback
from collections.abc import Sequence
from pathlib import Path

from actors.heart import Vital
from actors.naming import NameWatch
from actors.timer.actor import TimerActor
from actors.worker.actor import Reported
from actors.worker.held import Held
from protocols.actor import Ref
from protocols.errors import NameHeldError
from protocols.messages import Hint
from protocols.ports.coordinator import Leadership
from protocols.ports.executor import Report
from protocols.ports.store import NodeInfo, Pulse, Term
from runtime.kernel.context import local
from runtime.kernel.testkit import NodeTime, TestSystem
from runtime.memory.hints import LocalHints
from runtime.settings import Settings
from runtime.tree import Parts, PoolParts, node_tree
from tests.sim.executor import SimExecutor
from tests.sim.faults import SLOWEST_S
from tests.sim.lease import Elections, SimCoordinator
from tests.sim.line import Line
from tests.sim.world import TTL_S, World

POOL = "default"
KILLABLE = (
    "/heart",
    "/janitor",
    "/waiting",
    "/pools/default/worker",
    "/pools/default/dispatcher",
    "/timing/elector-0",
    "timer:0",
)
SETTINGS = Settings(
    data_dir=Path("/nonexistent"),
    node_name="sim",
    tasks_cwd=Path("/nonexistent"),
    lease_ttl_s=TTL_S,
    pools={POOL: 4},
    shutdown_grace_s=1.0,
    kill_grace_s=0.5,
)
LATE_END = "its end was not over within its grace"
"""What the kernel says of an actor whose end it cut short."""


class Chaos(Exception):  # noqa: N818 - thrown into an actor by the script
    """Not a bug: the script made an actor fail."""


class SimNode:
    """Lives, dies, and lives again until the run is over."""

    def __init__(self, world: World, elections: Elections, name: str, offset_s: float) -> None:
        self.world = world
        self.elections = elections
        self.name = name
        self.offset_s = offset_s
        self.time = NodeTime(world.clock, offset_s=offset_s)
        self.life: Life | None = None
        self.over = False
        self._down_s = 0.0

    async def run(self) -> None:
        """One life after another."""
        lives = 0
        while not self.over:
            lives += 1
            self.time = NodeTime(self.world.clock, offset_s=self.offset_s)
            self.life = Life(self, lives)
            self._down_s = 0.0
            await self.life.run()
            self.life = None
            if self._down_s and not self.over:
                await self.world.clock.sleep(self._down_s)

    def crash(self, down_s: float) -> None:
        """Die at once, and be started again later."""
        if self.life is not None:
            self._down_s = down_s
            self.time.end()
            self.life.crash()

    def restart(self) -> None:
        """End in good order, and begin anew."""
        if self.life is not None:
            self.life.end("restart")

    def pause(self, lasts_s: float) -> None:
        """Get no turn for so long."""
        if not self.time.paused:
            time = self.time
            time.pause()
            self.world.clock.call_later(lasts_s, time.resume)

    def finish(self) -> None:
        """End in good order, for good."""
        self.over = True
        self.restart()


class Life:
    """One incarnation, wired as a node wires it."""

    def __init__(self, node: SimNode, number: int) -> None:
        self.node = node
        self.world = world = node.world
        self.time = node.time
        self.name = node.name
        self.line = Line(world, node.name, self.time)
        self.coordinator = SimCoordinator(world, node.elections, node.name, self.time)
        self.held = Held(slots=SETTINGS.pools[POOL])
        self.executor = SimExecutor(
            world, self.time, self.sink, world.dice(f"{node.name}/{number}/jobs")
        )
        self.hints = LocalHints(self.lookup, pools=(POOL,))
        self.leads: dict[int, int] = {}
        self.system: TestSystem | None = None
        self._number = number
        self._end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end(self, why: str) -> None:
        """Ask this life to end."""
        if not self._end.done():
            self._end.set_result(why)

    def crash(self) -> None:
        """End it at once, also one that is just ending in good order."""
        if self._gone.done():
            return
        self._gone.set_result(None)
        if self._end.done() and self.system is not None:
            self.system.kill()
        self.end("crash")

    def lookup(self, name: str) -> Ref | None:
        return None if self.system is None else self.system.lookup(name)

    def send(self, hint: Hint, /) -> None:
        """The Hints port: a hint goes to all nodes."""
        for node in self.world.nodes.values():
            if node.life is not None:
                node.life.hints.send(hint)

    def sink(self, reports: Sequence[Report]) -> None:
        self.held.inbox.extend(reports)
        if (worker := self.lookup(f"worker:{POOL}")) is not None:
            worker.tell(Reported())

    def kill(self, path: str) -> None:
        """Make one actor fail."""
        if (ref := self.lookup(path)) is not None:
            local(ref).fail(Chaos())

    async def run(self) -> None:
        """Join, run the tree until the end of this life, leave."""
        incarnation = await self._join()
        if incarnation is None:
            return
        self.world.note(self.name, "lives as", incarnation)
        self.system = system = TestSystem(
            self.name,
            time=self.time,
            network=self.world.network,
            peers=self.world.peers,
            tree=node_tree(self._parts(incarnation)),
            seed=hash((self.world.seed, self._number)),
            on_failure=self._failed,
        )
        self.world.peers[self.name] = system
        async with system:
            why = await self._end
            self.world.note(self.name, why)
            self.held.closing = True
            if why == "crash":
                await system.crash()
        self.coordinator.ended = True
        if why == "restart":
            await self._patiently("leave", incarnation)

    async def _join(self) -> int | None:
        """Join once the name is free: the former life's may have to be watched for a TTL."""
        info = NodeInfo(
            name=self.name, url="", pid=1, host="h", version="0", level=1, pools={POOL: 4}
        )
        watch, alone = NameWatch(TTL_S), len(self.world.nodes) == 1

        async def failed(error: BaseException) -> None:
            if not isinstance(error, NameHeldError):
                watch.interrupted()
            elif watch.judge(error, self.time.monotonic()) == "bury":
                await self._patiently("bury", error.incarnation, silent_since=error.last_beat_at)

        return await self._patiently("join", info, alone=alone, failed=failed)

    async def _patiently(self, name: str, *args, failed=None, **kwargs):
        """Ask until there is an answer; None where this life has crashed meanwhile."""
        while not self._gone.done():
            answer = self.line.send(name, args, {"now": self.time.now(), **kwargs})
            await asyncio.wait([answer, self._gone], return_when="FIRST_COMPLETED")
            if not answer.done():
                break
            if (error := answer.exception()) is None:
                return answer.result()
            if failed is not None:
                await failed(error)
            await self.world.clock.sleep(0.5)
        return None

    def _parts(self, incarnation: int) -> Parts:
        return Parts(
            settings=SETTINGS,
            store=self.line,
            hints=self,
            coordinator=self.coordinator,
            incarnation=incarnation,
            leaderships=1,
            pools={POOL: PoolParts(self.executor, self.held)},
            leads=self.leads,
            make_timer=self._make_timer,
            vital=self._vital,
            on_pulse=self._on_pulse,
            on_dispatch=lambda _: None,
            actors=(),
        )

    def _make_timer(self, term: Term, leadership: Leadership) -> TimerActor:
        return TimerActor(
            store=self.line,
            hints=self,
            term=term,
            leadership=leadership,
            on_broken=lambda key, error: self._failed(f"schedule {key}", error),
            on_tick=lambda: None,
        )

    def _vital(self) -> Vital:
        running = {POOL: len(self.held.running)}
        return Vital(running=running, leads=dict(self.leads), clock_offset_s=self.offset_s)

    @property
    def offset_s(self) -> float:
        return self.node.offset_s

    def _on_pulse(self, pulse: Pulse) -> None:
        if pulse.state == "dead":
            self.end("declared dead")

    def _failed(self, path: str, error: BaseException) -> None:
        if isinstance(error, Chaos) or self._late_by_the_script(error):
            return
        told = "".join(traceback.format_exception(error))
        self.world.ledger.law(False, f"{self.name}{path} failed: {told}")

    def _late_by_the_script(self, error: BaseException) -> bool:
        """Whether an end took longer than its grace while there was what can hold it up.

        A pause stops no grace, and one answer of a slow line may take longer than it.
        """
        if type(error) is not TimeoutError or not str(error).startswith(LATE_END):
            return False
        return self.world.healed_for_s <= SLOWEST_S
