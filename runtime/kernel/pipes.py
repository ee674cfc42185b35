"""An actor's own task group: long work beside its mailbox, whose outcomes come back as messages."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import TaskGroup

from runtime.kernel.items import Outcome, OutcomeOwner

if TYPE_CHECKING:
    from runtime.kernel.vitals import Vitals


class PipeRun(OutcomeOwner):
    """One piece of piped work; the `Pipe` of the actor contract."""

    __slots__ = ("_on_done", "_on_error", "_pipes", "_scope", "_work", "done")

    def __init__(
        self,
        pipes: "Pipes",
        work: Callable[[], Awaitable[Any]] | Awaitable[Any],
        on_done: Callable[[Any], Any] | None,
        on_error: Callable[[Exception], Any] | None,
    ) -> None:
        self._pipes = pipes
        self._work: Callable[[], Awaitable[Any]] | Awaitable[Any] | None = work
        self._on_done = on_done
        self._on_error = on_error
        self._scope: anyio.CancelScope | None = None
        self.cancelled = False
        self.done = False

    def cancel(self) -> None:
        """End it; nothing of it is delivered after this."""
        self.cancelled = True
        if self._scope is not None:
            self._scope.cancel()

    def discard(self) -> None:
        """Close work that was given as a coroutine and will never be awaited."""
        close = getattr(self._work, "close", None)
        self._work = None
        if close is not None:
            close()

    async def run(self) -> None:
        """Do the work and post its outcome; lets no exception out."""
        try:
            with anyio.CancelScope() as scope:
                self._scope = scope
                if self.cancelled:
                    self.discard()
                    return
                await self._attempt()
        finally:
            self.done = True
            self._pipes.ended(self)

    async def _attempt(self) -> None:
        work, self._work = self._work, None
        assert work is not None
        try:
            result = await (work() if callable(work) else work)
            message = result if self._on_done is None else self._on_done(result)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self.cancelled or self._pipes.closing or (task is not None and task.cancelling()):
                raise
            self._failed(RuntimeError("piped work awaited something that was cancelled"))
        except Exception as error:  # noqa: BLE001 - the actor, or its supervisor, reads it
            self._failed(error)
        else:
            if message is not None:
                self._post(Outcome(message, None, self))

    def _failed(self, error: Exception) -> None:
        if self._on_error is None:
            self._post(Outcome(None, error, self))
            return
        try:
            message = self._on_error(error)
        except Exception as second:  # noqa: BLE001 - the actor's supervisor reads it
            self._post(Outcome(None, second, self))
            return
        if message is not None:
            self._post(Outcome(message, None, self))

    def _post(self, outcome: Outcome) -> None:
        if not self.cancelled:
            self._pipes.cell.push_system(outcome)


class Pipes:
    """The task group of one instance of an actor, made at its first pipe, gone with it."""

    __slots__ = ("_end", "_group", "_runs", "_task", "cell", "closing")

    def __init__(self, cell: "Vitals") -> None:
        self.cell = cell
        self.closing = False
        self._group: TaskGroup | None = None
        self._runs: dict[PipeRun, None] = {}
        self._end: asyncio.Future[None] = cell.system.loop.create_future()
        self._task = cell.system.nursery.start(self._host(), cell, " pipes")

    @property
    def running(self) -> int:
        """How many have not ended."""
        return len(self._runs)

    def start(self, run: PipeRun) -> None:
        """Start one; the first ones wait for the group to open, one turn of the loop."""
        self._runs[run] = None
        if self._group is not None:
            self._group.start_soon(run.run)

    def ended(self, run: PipeRun) -> None:
        """One has ended: whoever drains looks again."""
        self._runs.pop(run, None)
        self.cell.wake()

    async def _host(self) -> None:
        try:
            async with anyio.create_task_group() as group:
                self._group = group
                for run in self._runs:
                    group.start_soon(run.run)
                await self._end
                group.cancel_scope.cancel()
        finally:
            self.closing = True
            self._discard()

    def _discard(self) -> None:
        for run in list(self._runs):
            run.cancelled = True
            run.discard()
            run.done = True
        self._runs.clear()

    async def close(self) -> None:
        """Cancel all and wait until they have ended; nothing of them is delivered after this."""
        self.closing = True
        for run in self._runs:
            run.cancelled = True
        if not self._end.done():
            self._end.set_result(None)
        await asyncio.wait([self._task])
        self._discard()
