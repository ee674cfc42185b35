"""Nodes in the test's own process, on a database and a folder of their own."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import asyncpg

from runtime.node import Node, open_node
from runtime.postgres.embedded import ConnectionSettings
from runtime.settings import Settings, load_settings

WITHIN_S = 60.0


class OwnNodes:
    """A database, a folder and settings for nodes on them."""

    jobs: Sequence[Path] = ()

    def __init__(self, database: ConnectionSettings, folder: Path) -> None:
        self.database = database
        self.folder = folder

    def settings(self, **options: Any) -> Settings:
        """Settings of a node here; `options` by their path."""
        given = self.database
        url = (
            f"postgresql://{given.user}:{quote(given.password)}@/{given.database}"
            f"?host={quote(given.host, safe='')}&port={given.port}"
        )
        return load_settings(
            config=None,
            environment={},
            options={
                "database.url": url,
                "data_dir": str(self.folder / "data"),
                "api.port": 0,
                "tasks.cwd": str(self.folder),
                **options,
            },
            cwd=self.folder,
        )

    @asynccontextmanager
    async def node(self, **options: Any) -> AsyncIterator[Node]:
        """A node from its start to its end in good order."""
        with anyio.fail_after(1.5 * WITHIN_S):
            async with open_node(self.settings(**options), jobs=self.jobs) as node:
                yield node

    async def sql(self, query: str, *args: Any) -> list[asyncpg.Record]:
        """Ask the books as their owner."""
        session = await asyncpg.connect(**self.database.arguments())
        try:
            return await session.fetch(query, *args)
        finally:
            await session.close()


async def until(true: Callable[[], Any]) -> None:
    """Wait for a condition, asked as a plain function or as a coroutine one."""
    with anyio.fail_after(WITHIN_S):
        while True:
            answer = true()
            if await answer if inspect.isawaitable(answer) else answer:
                return
            await anyio.sleep(0.01)
