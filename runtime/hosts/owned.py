"""Tasks in the node itself, begun from callbacks and owned by one group."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import anyio

from runtime.hosts.work import Work


class OwnedTasks:
    """Runs `attempt(work)` for each work, from the moment `run` is under way."""

    def __init__(self, attempt: Callable[[Work], Coroutine[Any, Any, None]]) -> None:
        self._attempt = attempt
        self._group: asyncio.TaskGroup | None = None
        self._waiting: dict[int, Work] = {}

    async def run(self) -> None:
        """Own the tasks until cancelled."""
        # Not anyio's group, which begins tasks only from within a task: a sink is called back.
        async with asyncio.TaskGroup() as group:
            self._group = group
            waiting, self._waiting = self._waiting, {}
            for work in waiting.values():
                group.create_task(self._attempt(work))
            try:
                await anyio.sleep_forever()
            finally:
                self._group = None

    def start(self, work: Work) -> None:
        """Begin one, now or with `run`."""
        if self._group is None:
            self._waiting[work.token] = work
        else:
            self._group.create_task(self._attempt(work))

    def withdraw(self, work: Work) -> bool:
        """Forget one that still waits for `run`; False if it does not."""
        return self._waiting.pop(work.token, None) is not None
