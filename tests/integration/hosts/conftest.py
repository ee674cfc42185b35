"""The house that most tests of this folder live in."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest_asyncio

from tests.integration.hosts.house import House, open_house


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """Give a house whose tasks live in a folder of their own."""
    over = anyio.Event()
    opened: asyncio.Future[House] = asyncio.get_running_loop().create_future()

    # In a task of its own: pytest-asyncio ends a fixture in another task than it began it in.
    async def live() -> None:
        async with open_house(tmp_path) as house:
            opened.set_result(house)
            await over.wait()

    task = asyncio.get_running_loop().create_task(live())
    await asyncio.wait([opened, task], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task
    yield await opened
    over.set()
    await task
