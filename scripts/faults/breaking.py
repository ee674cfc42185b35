"""Makes each fault of a plan happen, heals it, and says when it was so."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from scripts.faults.ghost import Ghost
from scripts.faults.hints import hinted
from scripts.faults.nodes import NodeProcess
from scripts.faults.plan import STATEMENTS, Fault
from scripts.faults.proxy import BOTH, Direction, Link
from scripts.faults.world import World, now_us

_REACT_S: Final = 2.0
"""Beside the TTL: what others may take to see a death and act on it."""
_UNRENEWED: Final = 0.5
"""Of the TTL: the least that is left of a lease, renewed every third of it, when a fault begins."""
_WAYS: Final[dict[str, frozenset[Direction]]] = {
    "both": BOTH,
    "up": frozenset({"up"}),
    "down": frozenset({"down"}),
}


class Outcome(msgspec.Struct, kw_only=True):
    """A fault as it came to pass."""

    fault: Fault
    target: str
    begin_us: int
    end_us: int
    led: dict[int, int] = msgspec.field(default_factory=dict)
    """Of a node: the leaderships it held, each with its epoch."""
    running: list[str] = msgspec.field(default_factory=list)
    """Of a node: the executions it ran."""
    note: str = ""
    error: str = ""


class Breaker:
    """Applies faults to a world, one at a time for each caller."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ways: dict[str, Callable[[Fault, Outcome, NodeProcess], Awaitable[None]]] = {
            "kill": self._kill,
            "pause": self._pause,
            "cut": self._cut,
            "slow": self._slow,
            "commit": self._commit,
            "ghost": self._ghost,
            "rolling": self._roll,
            "clock": self._step,
            "hints": self._hints,
        }

    async def apply(self, fault: Fault) -> Outcome:
        """Let it happen and heal it; an error in doing so is told in the outcome."""
        world = self._world
        servers = (
            {row["name"] for row in await world.servers.status()} if self._named(fault) else ()
        )
        outcome = Outcome(fault=fault, target=fault.target, begin_us=now_us(), end_us=0)
        try:
            if fault.target in servers:
                await self._server(fault, outcome)
            else:
                node = await self._node(fault)
                outcome.target = node.name
                await self._ways[fault.kind](fault, outcome, node)
        except Exception as error:  # noqa: BLE001 - the run goes on, and tells it at its end
            outcome.error = f"{type(error).__name__}: {error}"
        outcome.end_us = outcome.end_us or now_us()
        self._ease(outcome)
        return outcome

    async def heal(self) -> None:
        """Let nothing be broken any more, whatever a fault has left."""
        world = self._world
        for row in await world.servers.status():
            if row["state"] == "paused":
                await world.servers.act("resume", row["name"])
            elif row["state"] != "running":
                await world.servers.act("restart", row["name"])
        for node in world.nodes.values():
            for link in node.links.values():
                link.heal()
            node.signal(signal.SIGCONT)
            if not node.alive:
                node.launch()
        for node in world.nodes.values():
            await node.ready()

    @staticmethod
    def _named(fault: Fault) -> bool:
        return fault.target != "leader" and not fault.target.isdigit()

    async def _node(self, fault: Fault) -> NodeProcess:
        nodes = list(self._world.nodes.values())
        if fault.target == "leader":
            return await self._world.leader()
        return nodes[int(fault.target) % len(nodes)]

    def _ease(self, outcome: Outcome) -> None:
        """What the promises of time allow for."""
        world, fault = self._world, outcome.fault
        shape = world.wanted.shape
        react_us = int((shape.ttl_s + _REACT_S) * 1e6)
        node = outcome.target if outcome.target in world.nodes else ""
        way = fault.detail.rpartition(":")[2] if fault.detail.startswith("etcd:") else ""
        if node and (fault.kind in {"kill", "pause"} or way in {"both", "up", "refuse"}):
            # What passes on sooner than a lease can end was resigned before, to one that joined.
            silent_us = outcome.begin_us + int(shape.ttl_s * _UNRENEWED * 1e6)
            if silent_us < outcome.end_us:
                world.disturb("silent", fault.name, silent_us, outcome.end_us, node)
        if not node:
            world.disturb("outage", fault.name, outcome.begin_us, outcome.end_us)
        elif fault.kind == "hints":
            return
        elif fault.kind in {"cut", "slow", "commit", "clock"}:
            world.disturb("outage", fault.name, outcome.begin_us, outcome.end_us, node)
        elif shape.alone or fault.kind == "rolling":
            end_us = outcome.end_us + (react_us if shape.alone else 0)
            world.disturb("node", fault.name, outcome.begin_us, end_us, node)
        else:
            world.disturb("node", fault.name, outcome.begin_us, outcome.begin_us + react_us, node)

    async def _holdings(self, outcome: Outcome, node: NodeProcess) -> None:
        """What the node leads and runs, as the books have it."""
        rows = await self._world.books.ask(
            "SELECT l.number, l.epoch, l.incarnation FROM leaderships l "
            "JOIN nodes n USING (incarnation) WHERE n.name = $1",
            node.name,
        )
        outcome.led = {row["number"]: row["epoch"] for row in rows}
        living = await self._world.books.ask(
            "SELECT incarnation FROM nodes WHERE name = $1 AND state IN ('up', 'draining')",
            node.name,
        )
        for row in living:
            outcome.running += await self._world.books.running(row["incarnation"])

    async def _server(self, fault: Fault, outcome: Outcome) -> None:
        servers = self._world.servers
        outcome.begin_us = now_us()
        match fault.kind:
            case "restart":
                await servers.act("restart", fault.target)
            case "kill":
                await servers.act("kill", fault.target)
                await asyncio.sleep(fault.for_s)
                await servers.act("restart", fault.target)
            case "pause":
                await servers.act("pause", fault.target)
                await asyncio.sleep(fault.for_s)
                await servers.act("resume", fault.target)
            case "promote":
                await servers.act("kill", fault.target)
                await servers.act("promote")
            case _:
                raise ValueError(f"no server can be {fault.kind}ed")

    async def _kill(self, fault: Fault, outcome: Outcome, node: NodeProcess) -> None:
        await self._holdings(outcome, node)
        outcome.begin_us = now_us()
        await node.kill()
        await asyncio.sleep(fault.for_s)
        await node.start()

    async def _pause(self, fault: Fault, outcome: Outcome, node: NodeProcess) -> None:
        await self._holdings(outcome, node)
        outcome.begin_us = now_us()
        node.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(fault.for_s)
        finally:
            node.signal(signal.SIGCONT)

    async def _cut(self, fault: Fault, outcome: Outcome, node: NodeProcess) -> None:
        server, _, way = fault.detail.partition(":")
        links = self._links(node, server)
        await self._holdings(outcome, node)
        outcome.begin_us = now_us()
        for link in links:
            if way == "reset":
                link.reset()
            elif way == "refuse":
                link.refuse()
            else:
                link.hold(_WAYS[way])
        try:
            await asyncio.sleep(fault.for_s)
        finally:
            for link in links:
                link.heal()

    async def _slow(self, fault: Fault, outcome: Outcome, node: NodeProcess) -> None:
        server, _, by = fault.detail.partition(":")
        outcome.begin_us = now_us()
        links = self._links(node, server)
        for link in links:
            link.delay_s = int(by.removesuffix("ms")) / 1000
        try:
            await asyncio.sleep(fault.for_s)
        finally:
            for link in links:
                link.heal()

    async def _commit(self, fault: Fault, outcome: Outcome, node: NodeProcess) -> None:
        """Cut the next connection that asks such a statement, once it has been answered there."""
        outcome.begin_us = now_us()
        (link, *_) = self._links(node, "postgres")
        link.arm(STATEMENTS[fault.detail])
        try:
            async with asyncio.timeout(fault.for_s):
                await link.cut()
            outcome.note = "cut"
        except TimeoutError:
            outcome.note = "no such statement came"
        finally:
            link.heal()

    async def _ghost(self, fault: Fault, outcome: Outcome, node: NodeProcess) -> None:
        """Somebody takes over while the node stands still, and is there when it goes on."""
        await self._holdings(outcome, node)
        outcome.begin_us = now_us()
        ghost = Ghost(self._world.database_url)
        node.signal(signal.SIGSTOP)
        try:
            taken = await ghost.appear()
            outcome.note = f"{taken} claimed by a ghost"
            await asyncio.sleep(fault.for_s / 2)
            async with ghost.unheard():
                node.signal(signal.SIGCONT)
                await asyncio.sleep(fault.for_s / 2)
        finally:
            node.signal(signal.SIGCONT)
            await ghost.vanish()
        await node.ready()

    async def _roll(self, fault: Fault, outcome: Outcome, node: NodeProcess) -> None:
        """SIGTERM, and a new process under the same name."""
        await self._holdings(outcome, node)
        outcome.begin_us = now_us()
        code = await node.stop()
        outcome.note = f"exit code {code}"
        await asyncio.sleep(fault.for_s)
        await node.start()

    async def _step(self, fault: Fault, outcome: Outcome, node: NodeProcess) -> None:
        outcome.begin_us = now_us()
        node.step_clock(float(fault.detail.removesuffix("s")))
        try:
            await asyncio.sleep(fault.for_s)
        finally:
            node.step_clock(0)

    async def _hints(self, fault: Fault, outcome: Outcome, node: NodeProcess) -> None:
        del node
        outcome.begin_us = now_us()
        outcome.note = await hinted(self._world, with_kafka=fault.detail == "with kafka")

    @staticmethod
    def _links(node: NodeProcess, server: str) -> list[Link]:
        found = [link for name, link in node.links.items() if name.partition("-")[0] == server]
        if not found:
            raise ValueError(f"node {node.name} has no link to {server}")
        return found
