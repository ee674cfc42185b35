"""A system of actors: one tree, one loop, one owner for all its tasks."""

import asyncio
import random
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import anyio
import structlog
from anyio.abc import TaskGroup

from protocols.actor import Actor, Props, Ref, SystemFailed
from protocols.ports.clock import Clock
from runtime.kernel.cell import SLICE_NS, Cell
from runtime.kernel.clock import LocalClock
from runtime.kernel.context import local
from runtime.kernel.dead_letters import DeadLetters, describe_error
from runtime.kernel.introspection import Statistics, statistics
from runtime.kernel.nursery import Nursery
from runtime.kernel.refs import LocalRef
from runtime.kernel.registry import Registry
from runtime.kernel.supervisor import Family
from runtime.kernel.timers import Deadlines, LoopTimers, Timers
from runtime.kernel.vitals import Vitals

log = structlog.get_logger("tickwright.kernel")


def log_failure(path: str, error: BaseException) -> None:
    """The default reader of every exception that ended an actor; shows no local variable."""
    trace = "".join(traceback.format_exception(error))
    log.error("actor failed", actor=path, error=describe_error(error), trace=trace)


class ActorSystem:
    """Runs a supervision tree from `async with` to its end.

    Leaving the block stops the tree in order. If the topmost supervisor fails, all is stopped in
    order, the block is cancelled, and leaving it raises SystemFailed.

    Args:
        tree: The topmost supervisor and what it starts with; by default one_for_one, no children.
        clock: What actors see as `ctx.clock`.
        timers: Where timers wait; by default the running loop's.
        seed: Makes `ctx.random` and backoff jitter repeatable.
        on_failure: Reads every exception that ended an instance; must not raise.
    """

    ref_class: type[LocalRef] = LocalRef
    family_class: type[Family] = Family
    nursery_class: type[Nursery] = Nursery
    slice_ns = SLICE_NS

    def __init__(
        self,
        *,
        tree: Props | None = None,
        clock: Clock | None = None,
        timers: Timers | None = None,
        seed: int | None = None,
        on_failure: Callable[[str, BaseException], None] = log_failure,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.clock: Clock = clock if clock is not None else LocalClock()
        self.timers: Timers = timers if timers is not None else LoopTimers()
        self.deadlines = Deadlines(self.timers)
        self.dead_letters = DeadLetters(self.clock)
        self.registry = Registry()
        self.nursery = self.nursery_class()
        self.failure: Exception | None = None
        self.far_lookup: Callable[[str], Ref | None] | None = None
        """Finds `NAME@NODE`, where this system is one of several; see `remote`."""
        self._seed = seed
        self._on_failure = on_failure
        self._incarnation = 0
        self._group: TaskGroup | None = None
        self._ended: asyncio.Future[None] = self.loop.create_future()
        self.backoff_random = self.random_for("backoff")
        self.root = Cell(self, None, "", tree if tree is not None else Props())

    async def __aenter__(self) -> Self:
        """Start the tree; returns when the declared children run.

        Raises:
            SystemFailed: They could not be started within the topmost supervisor's budget.
        """
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._own, name="actors")
        self.root.start()
        try:
            await self.root.get_family().wait(lambda: self.root.state in ("running", "dead"))
        except BaseException as error:
            await self._close(error)
            raise
        if self.failure is not None:
            await self._close(None)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the tree in order, whatever ended the block, then end what is left."""
        await self._close(error)

    async def _own(self) -> None:
        """Own the tasks; shielded, since a cancelled block still stops its actors in order."""
        with anyio.CancelScope(shield=True):
            await self.nursery.host()

    async def _close(self, error: BaseException | None) -> None:
        assert self._group is not None
        with anyio.CancelScope(shield=True):
            await self.stop()
        self.nursery.close()
        if not isinstance(error, asyncio.CancelledError):
            error = None  # not the group's, and would come out wrapped in one
        kind = None if error is None else type(error)
        try:
            await self._group.__aexit__(kind, error, None)
        except BaseExceptionGroup as group:
            if self.nursery.error is None:
                raise
            raise self.nursery.error from group
        if self.failure is not None:
            raise SystemFailed("the topmost supervisor failed") from self.failure

    async def stop(self) -> None:
        """Stop the tree: children in reverse start order, each with its grace."""
        self.root.request("stop")
        await self.wait_stopped()

    async def wait_stopped(self) -> None:
        """Return once the topmost supervisor has ended, for whatever reason."""
        await asyncio.wait([self._ended])

    def kill(self) -> None:
        """End every task at once, without on_stop, as a power cut would."""
        self.nursery.close()

    # For whoever runs the system.

    def spawn(
        self,
        props: Props | Callable[[], Actor],
        *,
        name: str | None = None,
        under: Ref | None = None,
    ) -> LocalRef:
        """Start an actor under a living supervisor, by default the topmost one.

        Errors as in `Context.spawn`.
        """
        parent = self.root if under is None else local(under)
        return parent.get_family().spawn(props, name)

    async def stop_actor(self, ref: Ref) -> None:
        """Stop one actor for good and return when it has ended."""
        cell = local(ref)
        cell.request("stop")
        if cell.parent is None:
            await self.wait_stopped()
        else:
            await cell.parent.get_family().wait(lambda: cell.closed)

    def lookup(self, name: str) -> LocalRef | None:
        """The living actor of this system registered under that name, or at that path."""
        cell = self.registry.find(name, self.root)
        return None if cell is None else cell.ref

    def look_everywhere(self, name: str) -> Ref | None:
        """The same, and beyond: `NAME@NODE` names an actor of another node."""
        found = self.lookup(name)
        if found is None and self.far_lookup is not None and "@" in name:
            return self.far_lookup(name)
        return found

    def statistics(self) -> Statistics:
        """The tree and its counters, now."""
        return statistics(self)

    async def sleep(self, delay_s: float) -> None:
        """Wait in this system's time."""
        future: asyncio.Future[None] = self.loop.create_future()
        timer = self.timers.call_later(delay_s, _wake, future)
        try:
            await future
        finally:
            timer.cancel()

    def random_for(self, purpose: str) -> random.Random:
        """A generator of its own, repeatable under a seed."""
        return random.Random(None if self._seed is None else f"{self._seed}/{purpose}")  # noqa: S311

    # For cells.

    def next_incarnation(self) -> int:
        """A number no other actor of this system has."""
        self._incarnation += 1
        return self._incarnation

    def ended(self, cell: Vitals, failure: Exception | None) -> None:
        """An instance has ended: its supervisor decides; the topmost one's end is the system's."""
        if cell.parent is not None:
            cell.parent.get_family().child_ended(cell, failure)
            return
        self.failure = failure
        cell.terminate("stopped" if failure is None else "failed")
        if failure is not None and self._group is not None:
            self._group.cancel_scope.cancel()

    def forget(self, cell: Vitals) -> None:
        """An actor has ended for good."""
        self.registry.forget(cell)
        if cell.parent is None:
            cell.get_family().notify()
            _wake(self._ended)

    def report_failure(self, cell: Vitals, error: BaseException) -> None:
        """Hand an exception to its reader."""
        self._on_failure(cell.path, error)


def _wake(future: "asyncio.Future[Any]") -> None:
    if not future.done():
        future.set_result(None)
