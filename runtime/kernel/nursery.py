"""Owns every task of a system: none outlives it, and what leaves one is its owner's to raise.

An anyio task group owns the nursery and so, through it, each task. The tasks are not started by
`TaskGroup.start_soon` themselves because each would hold 2.8 KB more while idle (anyio 4.16: a
second coroutine, a handle and a state) and take three times as long to start and end; within a
task anyio's scopes and groups work as anywhere.
"""

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime.kernel.vitals import Vitals


class Nursery:
    """The set of living tasks, and the first error that none of them should have let out."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[asyncio.Task[None], None] = {}  # a set would end them in no order
        self._close: asyncio.Future[None] = self._loop.create_future()
        self._look: asyncio.Future[None] | None = None
        self.error: BaseException | None = None

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def closing(self) -> bool:
        """Whether every task is being cancelled."""
        return self._close.done()

    def start(
        self, work: Coroutine[Any, Any, None], owner: "Vitals", purpose: str = ""
    ) -> "asyncio.Task[None]":
        """Start a task of this nursery, for one actor."""
        task = self._loop.create_task(work, name=f"{owner.name}{purpose}")
        self._tasks[task] = None
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.pop(task, None)
        if not task.cancelled():
            error = task.exception()
            if error is not None and self.error is None:
                self.error = error
                self.close()
        if not self._tasks:
            self._wake()

    def _wake(self) -> None:
        if self._look is not None and not self._look.done():
            self._look.set_result(None)

    def close(self) -> None:
        """Ask the host to end what is left."""
        if not self._close.done():
            self._close.set_result(None)

    async def host(self) -> None:
        """Own the tasks until `close` or a cancel, then cancel and await what is left.

        Raises:
            BaseException: What a task let out.
        """
        try:
            await self._close
        finally:
            self.close()
            await self._reap()
        if self.error is not None:
            raise self.error

    async def wait_empty(self) -> None:
        """Return once no task is left; after `close` that is as soon as all obey."""
        while self._tasks:
            await asyncio.wait(list(self._tasks))

    async def _reap(self) -> None:
        """Cancel until they end; a task may swallow a cancel, so it is said again and again."""
        again_s = 0.01
        cancelled: asyncio.CancelledError | None = None
        while self._tasks:
            for task in list(self._tasks):
                task.cancel()
            self._look = self._loop.create_future()
            timer = self._loop.call_later(again_s, self._wake)
            again_s = min(1.0, again_s * 2)
            try:
                await self._look
            except asyncio.CancelledError as error:
                cancelled = error  # being obeyed already; raised when all have ended
            finally:
                timer.cancel()
        if cancelled is not None:
            raise cancelled
