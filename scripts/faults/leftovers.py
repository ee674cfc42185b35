"""Invariant I6: once all is done, a node holds no more than it did before the trouble began."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import msgspec
import psutil

from scripts.faults.checks import Breach
from scripts.faults.nodes import NodeError, NodeProcess
from scripts.faults.world import World

AFTER_S: Final = 30.0
_SPARE: Final = 8
"""Descriptors and tasks that may differ by the moment of the look: a probe, a poll under way."""
_WARM: Final = 1
"""Child processes that wait for the next job of their kind; the first one may come late."""
_SESSIONS_MAX: Final = 20
"""Of a node: its pools at their largest (6 + 3 + 8), and the session that holds the house."""


class Holdings(msgspec.Struct, frozen=True, kw_only=True):
    """What a node holds."""

    descriptors: int
    """Without its connections to the servers, of which the pools make more or fewer."""
    tasks: int
    children: int
    sessions: int
    """Of it in PostgreSQL, whichever way they came."""
    idle_in_transaction: int
    """For over two seconds; of all nodes."""


async def look(world: World, node: NodeProcess) -> Holdings:
    """What a living node holds now; `sessions` are those of its link to PostgreSQL.

    Raises:
        NodeError: it has ended, and nobody had asked it to.
    """
    if node.alive:
        try:
            return await _look(world, node)
        except (psutil.Error, NodeError):
            if node.alive:
                raise
    raise NodeError(f"node {node.name} has ended by itself: {node.last_words()}")


async def _look(world: World, node: NodeProcess) -> Holdings:
    ports = {link.port for link in node.links.values()}
    own = psutil.Process(node.pid)
    links = [c for c in own.net_connections(kind="tcp") if c.raddr and c.raddr.port in ports]
    serving = [c for c in own.net_connections(kind="tcp") if c.status == psutil.CONN_ESTABLISHED]
    asked = [c for c in serving if f":{c.laddr.port}" in node.url]
    _, idle = await world.books.sessions()
    return Holdings(
        descriptors=own.num_fds() - len(links) - len(asked),
        tasks=await node.tasks(),
        children=len(node.family()) - 1,
        sessions=sum(
            link.open_connections for name, link in node.links.items() if name[:4] == "post"
        ),
        idle_in_transaction=idle,
    )


async def most(world: World, node: NodeProcess, *, looks: int = 3) -> Holdings:
    """The most of each that it holds in a few looks."""
    found = []
    for _ in range(looks):
        found.append(await look(world, node))
        await asyncio.sleep(0.2)
    return Holdings(
        **{name: max(getattr(one, name) for one in found) for name in Holdings.__struct_fields__}
    )


async def leftovers(world: World, before: dict[str, Holdings]) -> list[Breach]:
    """I6: what is still too much `AFTER_S` seconds after the drain; at once where nothing is."""
    until_s = time.monotonic() + AFTER_S
    while True:
        found = []
        for node in world.nodes.values():
            try:
                found += _compare(node.name, before[node.name], await look(world, node))
            except NodeError as error:
                found.append(Breach("I6", str(error)))
        if not found or time.monotonic() > until_s:
            return found
        await asyncio.sleep(0.5)


def _compare(name: str, before: Holdings, now: Holdings) -> list[Breach]:
    bounds = {
        "descriptors": before.descriptors + _SPARE,
        "tasks": before.tasks + _SPARE,
        "children": before.children + _WARM,
        "sessions": max(before.sessions, _SESSIONS_MAX),
        "idle_in_transaction": 0,
    }
    return [
        Breach("I6", f"node {name} holds {getattr(now, what)} {what}, at most {most} expected")
        for what, most in bounds.items()
        if getattr(now, what) > most
    ]
