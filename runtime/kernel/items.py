"""What a mailbox holds besides bare messages: asks, timer ticks, coalescing slots, outcomes.

A tell puts the bare message into the deque, so that the common case allocates nothing; all else
is an `Item`, told apart by one isinstance in the cell's loop.
"""

from asyncio import Future
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, Protocol

from protocols.actor import EndReason, Terminated

if TYPE_CHECKING:
    from runtime.kernel.timers import Handle
    from runtime.kernel.vitals import Vitals


class Item:
    """Anything in a lane that is not the bare message."""

    __slots__ = ("message",)

    message: Any


class Watcher(Protocol):
    """Who is told of an end: an actor's cell, or a watch held for one of another node."""

    def push_system(self, item: Item, /) -> None:
        """Take it; always accepted."""
        ...


class Watched(Protocol):
    """Whose end is told: an actor's cell, or what stands here for one of another node."""

    @property
    def end_reason(self) -> EndReason | None:
        """How it ended; None while it lives, as far as is known here."""
        ...

    def watched_by(self, watcher: Watcher, /) -> None:
        """From here on, tell `watcher` of the end."""
        ...

    def unwatched_by(self, watcher: Watcher, /) -> None:
        """No more."""
        ...


class Ask(Item):
    """A question: its message, the future its asker awaits, and the deadline's place."""

    __slots__ = ("bucket", "future")

    def __init__(self, message: Any, future: "Future[Any]") -> None:
        self.message = message
        self.future = future
        self.bucket: Any = None


class Slot(Item):
    """A place in a coalescing mailbox whose message may be replaced while it waits."""

    __slots__ = ("key",)

    def __init__(self, message: Any, key: Hashable) -> None:
        self.message = message
        self.key = key


class Death(Item):
    """A `Terminated` on its way; skipped at the door if the watch was taken back meanwhile."""

    __slots__ = ("cell",)

    def __init__(self, message: Terminated, cell: Watched) -> None:
        self.message = message
        self.cell = cell


class Outcome(Item):
    """How piped work ended: a message for `receive`, or an error that ends the actor."""

    __slots__ = ("error", "pipe")

    def __init__(self, message: Any, error: Exception | None, pipe: "OutcomeOwner") -> None:
        self.message = message
        self.error = error
        self.pipe = pipe


class OutcomeOwner:
    """What an outcome belongs to; cancelled ones are skipped at the door."""

    __slots__ = ("cancelled",)

    cancelled: bool


class Tick(Item):
    """A message from a cell to itself, later; it is its own handle, and what lies in the lane."""

    __slots__ = ("cancelled", "cell", "handle", "period_s", "queued")

    def __init__(self, cell: "Vitals", message: Any, period_s: float | None) -> None:
        self.cell = cell
        self.message = message
        self.period_s = period_s
        self.cancelled = False
        self.queued = False
        self.handle: Handle | None = None

    def arm(self, delay_s: float) -> None:
        """Start waiting, or start again."""
        self.handle = self.cell.system.timers.call_later(delay_s, self.fire)

    def fire(self) -> None:
        """Fall due: into the mailbox, past its bound, and arm the next turn."""
        if self.period_s is not None:
            self.arm(self.period_s)
        if not self.queued:
            self.queued = True
            self.cell.push_tick(self)

    def cancel(self) -> None:
        """Deliver nothing from here on."""
        self.cancelled = True
        if self.cell.ticks is not None:
            self.cell.ticks.pop(self, None)
        if self.handle is not None:
            self.handle.cancel()
            self.handle = None


def bare(item: Any) -> Any:
    """The message itself, whatever it lies in."""
    return item.message if isinstance(item, Item) else item


def stashable(item: Any) -> Any:
    """What of an item is put aside: an ask with its asker, else the message alone.

    What the item stood for was settled when it was handed over: a watch, a slot, a turn.
    """
    return item if type(item) is Ask else bare(item)


class OwedReply:
    """The `Reply` of the actor contract, for an ask or for a tell that nobody waits on."""

    __slots__ = ("_ask", "_cell")

    def __init__(self, ask: Ask | None, cell: "Vitals") -> None:
        self._ask = ask
        self._cell = cell

    def _take(self) -> Ask | None:
        """The ask if its asker still waits; it is no longer owed either way."""
        ask, self._ask = self._ask, None
        if ask is None:
            return None
        if self._cell.owed is not None:
            self._cell.owed.pop(ask, None)
        if ask.future.done():
            return None
        self._cell.system.deadlines.drop(ask)
        return ask

    @property
    def wanted(self) -> bool:
        """Whether anyone still waits."""
        return self._ask is not None and not self._ask.future.done()

    def answer(self, value: Any) -> None:
        """Answer; where nobody waits any more the value becomes a dead letter."""
        ask = self._take()
        if ask is not None:
            ask.future.set_result(value)
        else:
            self._cell.bury(value, "late_answer")

    def fail(self, error: Exception) -> None:
        """Raise `error` at the asker, if there still is one."""
        ask = self._take()
        if ask is not None:
            ask.future.set_exception(error)
