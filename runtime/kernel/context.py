"""The Context of one instance: a thin view of its cell, of no use once the instance has ended."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from protocols.actor import Actor, ActorDead, Props, Ref, StashFull, Terminated
from protocols.ports.clock import Clock
from runtime.kernel.items import Ask, Death, Outcome, OwedReply, Tick, Watched, stashable
from runtime.kernel.pipes import PipeRun, Pipes
from runtime.kernel.refs import LocalRef

if TYPE_CHECKING:
    from runtime.kernel.vitals import Vitals

T = TypeVar("T")


class CellContext:
    """The `Context` of the actor contract."""

    __slots__ = ("_cell", "_life", "_random")

    def __init__(self, cell: "Vitals") -> None:
        self._cell = cell
        self._life = cell.restarts
        self._random: random.Random | None = None

    def _living(self) -> "Vitals":
        cell = self._cell
        if cell.ctx is not self:
            raise ActorDead(f"this instance of {cell.path} has ended")
        return cell

    @property
    def self_ref(self) -> LocalRef:
        """This actor's own address."""
        return self._cell.ref

    @property
    def parent(self) -> LocalRef | None:
        """Its supervisor; None at the top."""
        parent = self._cell.parent
        return None if parent is None else parent.ref

    @property
    def name(self) -> str:
        """Its name among its siblings."""
        return self._cell.name

    @property
    def path(self) -> str:
        """Where it is in its tree."""
        return self._cell.path

    @property
    def restarts(self) -> int:
        """How often this actor has been restarted."""
        return self._life

    @property
    def clock(self) -> Clock:
        """The time, real or virtual."""
        return self._cell.system.clock

    @property
    def random(self) -> random.Random:
        """Randomness of this instance's own, made at first use (a generator takes 2.5 KB)."""
        if self._random is None:
            self._random = self._cell.system.random_for(f"{self._cell.path}#{self._life}")
        return self._random

    def spawn(self, props: Props | Callable[[], Actor], *, name: str | None = None) -> LocalRef:
        """Start a child; see the contract."""
        return self._living().get_family().spawn(props, name)

    def stop(self, ref: Ref | None = None) -> None:
        """Stop a local actor for good, or end oneself after this message."""
        cell = self._living()
        if ref is None or ref is cell.ref:
            cell.request("finish")
        else:
            local(ref).request("stop")

    def watch(self, ref: Ref) -> None:
        """Ask for `Terminated(ref)`."""
        cell, target = self._living(), watched(ref)
        if cell.watching is None:
            cell.watching = {}
        cell.watching[target] = None
        if target.end_reason is not None:
            cell.push_system(Death(Terminated(ref, target.end_reason), target))
            return
        target.watched_by(cell)

    def unwatch(self, ref: Ref) -> None:
        """Take it back."""
        cell, target = self._living(), watched(ref)
        if cell.watching is not None:
            cell.watching.pop(target, None)
        target.unwatched_by(cell)

    def after(self, delay_s: float, message: Any) -> Tick:
        """Tell oneself later."""
        return self._tick(delay_s, message, None)

    def every(self, period_s: float, message: Any) -> Tick:
        """Tell oneself each period."""
        if period_s <= 0:
            raise ValueError("a period is longer than 0 s")
        return self._tick(period_s, message, period_s)

    def _tick(self, delay_s: float, message: Any, period_s: float | None) -> Tick:
        cell = self._living()
        if cell.ticks is None:
            cell.ticks = {}
        tick = Tick(cell, message, period_s)
        cell.ticks[tick] = None
        tick.arm(delay_s)
        return tick

    async def sleep(self, delay_s: float) -> None:
        """Wait in the system's time."""
        await self._cell.system.sleep(delay_s)

    def pipe(
        self,
        work: Callable[[], Awaitable[T]] | Awaitable[T],
        *,
        on_done: Callable[[T], Any] | None = None,
        on_error: Callable[[Exception], Any] | None = None,
    ) -> PipeRun:
        """Run work beside the mailbox; see the contract."""
        cell = self._living()
        if cell.pipes is None:
            cell.pipes = Pipes(cell)
        run = PipeRun(cell.pipes, work, on_done, on_error)
        cell.pipes.start(run)
        return run

    async def drain(self) -> None:
        """Handle outcomes of running pipes until all have ended."""
        cell = self._living()
        actor = cell.actor
        assert actor is not None
        while True:
            others: list[Any] = []
            while cell.system_lane:
                item = cell.system_lane.popleft()
                if not isinstance(item, Outcome):
                    others.append(item)
                elif not item.pipe.cancelled:
                    if item.error is not None:
                        raise item.error
                    await actor.receive(item.message, self)
            cell.system_lane.extend(others)
            if cell.pipes is None or not cell.pipes.running:
                return
            waiter: asyncio.Future[None] = cell.system.loop.create_future()
            cell.waiter = waiter
            await waiter

    def stash(self) -> None:
        """Put the message in hand aside."""
        cell = self._living()
        if cell.current is None or cell.kept:
            raise RuntimeError("there is no message in hand to stash")
        if cell.stashed is None:
            cell.stashed = []
        if len(cell.stashed) >= cell.mailbox.capacity:
            raise StashFull(f"{cell.path} has stashed {len(cell.stashed)} messages")
        cell.stashed.append(stashable(cell.current))
        cell.kept = True

    def unstash_all(self) -> None:
        """Put what was stashed in front of the mailbox again."""
        cell = self._living()
        stashed, cell.stashed = cell.stashed, None
        if stashed:
            cell.push_front(stashed)

    def defer_reply(self) -> OwedReply:
        """Take over the answer to the message in hand."""
        cell = self._living()
        ask = cell.current if type(cell.current) is Ask and not cell.kept else None
        if ask is not None:
            cell.kept = True
            if cell.owed is None:
                cell.owed = {}
            cell.owed[ask] = None
        return OwedReply(ask, cell)

    def bury(self, message: Any) -> None:
        """Make a dead letter of a message that this actor does not handle."""
        self._cell.bury(message, "unhandled")

    def lookup(self, name: str) -> Ref | None:
        """The living actor of that name or path, here or, as `NAME@NODE`, on another node."""
        return self._cell.system.look_everywhere(name)

    def register(self, name: str) -> None:
        """Be found by `lookup(name)`."""
        self._cell.system.registry.register(name, self._living())


def watched(ref: Ref) -> Watched:
    """What is watched behind a ref, near or far.

    Raises:
        TypeError: It is no ref of this system's making.
    """
    target: Watched | None = getattr(ref, "watch_target", None)
    if target is None:
        raise TypeError(f"{ref!r} cannot be watched")
    return target


def local(ref: Ref) -> "Vitals":
    """The cell behind a ref of this process.

    Raises:
        TypeError: It is no local ref.
    """
    if not isinstance(ref, LocalRef):
        raise TypeError(f"{ref!r} is not an actor of this process")
    return ref.cell
