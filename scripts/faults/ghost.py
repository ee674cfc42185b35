"""A second node in miniature: it declares the first one dead, takes its epochs, and claims work.

With one node there is nobody to take over from it while it stands still. The ghost does, by the
very statements that a node of the product uses, and then dies without having run anything.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

from protocols.messages import PROTOCOL_LEVEL
from protocols.ports.store import Budget, NodeInfo
from runtime.postgres import claim, nodes, schedules
from runtime.postgres.pool import NODE_ROLE, Pool

_SILENT_S = 0.001
_CLAIMED_MAX = 200
_POOL = "default"
_ANSWER_S = 10.0


class Ghost:
    """Lives from `appear` to `vanish`."""

    def __init__(self, url: str) -> None:
        self._pool = Pool({"dsn": url}, name="chaos ghost", size=2, role=NODE_ROLE, pinned=True)
        self._incarnation = 0

    async def appear(self) -> int:
        """Give up for dead all that there is, and take its place; how much work was claimed."""
        await self._pool.open(within_s=10.0)
        while await nodes.declare_dead(self._pool, ttl_s=_SILENT_S, now=await self._now()):
            pass
        info = NodeInfo(
            name="ghost",
            url="",
            pid=0,
            host="",
            version="0",
            level=PROTOCOL_LEVEL,
            pools={_POOL: 1},
        )
        now = await self._now()
        self._incarnation = await nodes.join(self._pool, info, now=now, alone=False)
        numbers = await self._pool.fetch("SELECT number FROM leaderships ORDER BY number")
        for row in numbers:
            await schedules.take_epoch(self._pool, row["number"], self._incarnation, now=now)
        found = await claim.lanes(self._pool, _POOL, now=now, level=PROTOCOL_LEVEL)
        budgets = [Budget(lane, _CLAIMED_MAX) for lane in found.due]
        taken = await claim.claim(
            self._pool, _POOL, self._incarnation, budgets, now=now, level=PROTOCOL_LEVEL
        )
        return len(taken)

    @asynccontextmanager
    async def unheard(self) -> AsyncIterator[None]:
        """Let no beat be answered, so that only its own guards stop one that was given up."""
        async with self._pool.connections.acquire() as session, session.transaction():
            await session.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            await session.execute("LOCK TABLE nodes IN SHARE MODE")
            yield

    async def vanish(self) -> None:
        """Leave, so that what it claimed is lost, and tried again elsewhere."""
        try:
            if self._incarnation:
                await nodes.leave(self._pool, self._incarnation, now=await self._now())
        finally:
            await self._pool.close()

    async def _now(self) -> datetime:
        return await nodes.sample_clock(self._pool, within_s=_ANSWER_S)
