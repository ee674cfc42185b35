"""The lanes of one actor and what happens when they are full; nothing here waits but `wait_room`.

`Lanes` is the base of `Cell`, one object, because a mailbox apart would cost every actor an
object and every message an attribute load.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Hashable
from enum import Enum
from typing import TYPE_CHECKING, Any

import msgspec

from protocols.actor import (
    DeadReason,
    Delivered,
    Delivery,
    Lane,
    Mailbox,
    MailboxFull,
    Quarantined,
    Rejected,
    RejectReason,
)
from runtime.kernel.items import Ask, Item, Slot, Tick, bare

if TYPE_CHECKING:
    from runtime.kernel.timers import Timers

QUEUED = Delivered()
COALESCED = Delivered("coalesced")
DISPLACED = Delivered("displaced")
FULL = Rejected("full")
DEAD = Rejected("dead")
QUARANTINED = Rejected("quarantined")

UNUSED: deque[Any] = deque(maxlen=0)
"""Stands for a lane that was never used: an empty deque takes 600 bytes, and most have none."""

CRASHES_KEPT = 64
"""How many messages that crashed an actor it remembers, so as to know the second time."""

QUARANTINE_S = 300.0
"""How long a message that crashed its actor twice is refused; then one more crash renews it."""


def identity(message: Any) -> Hashable | None:
    """What makes two messages the same one: its `message_id` if it has one, else the object.

    Not equality: two ticks are equal, and one bad tick must not condemn those after it. None
    for what carries nothing of its own, such as a string, an enum's member or a bare signal.
    """
    own = getattr(message, "message_id", None)
    if isinstance(own, str | int):
        return ("id", own)
    if message is None or isinstance(message, str | bytes | int | float | Enum | type):
        return None
    if isinstance(message, msgspec.Struct) and not message.__struct_fields__:
        return None
    return id(message)


class Lanes(ABC):
    """Three lanes, their bounds, and who waits for room or for a message."""

    __slots__ = (
        "crashes",
        "mailbox",
        "normal",
        "putters",
        "quarantine",
        "room",
        "slots",
        "system_lane",
        "urgent",
        "waiter",
    )

    def __init__(self, mailbox: Mailbox) -> None:
        self.mailbox = mailbox
        self.normal = UNUSED
        self.urgent = UNUSED
        self.system_lane = UNUSED
        self.room = 0
        """Below this length a tell may append without looking further; 0 sends it to `offer`."""
        self.waiter: asyncio.Future[None] | None = None
        self.putters: deque[tuple[asyncio.Future[Delivery], Any]] | None = None
        self.slots: dict[Hashable, Slot] | None = None
        self.crashes: dict[Hashable, tuple[Any, int]] | None = None
        self.quarantine: dict[Hashable, float] | None = None

    def wake(self) -> None:
        """Let the parked cell look at its lanes."""
        waiter = self.waiter
        if waiter is not None:
            self.waiter = None
            if not waiter.done():
                waiter.set_result(None)

    @abstractmethod
    def bury(self, item: Any, reason: DeadReason, error: Exception | None = None) -> None:
        """Make a dead letter of it; an asker is told by `error`."""

    def open_lanes(self) -> None:
        """Make the lanes real, at the first message or after a change of what they may take."""
        if self.normal is UNUSED:
            self.normal = deque()
        special = self.mailbox.key is not None or self.quarantine
        self.room = 0 if special else self.mailbox.capacity

    @property
    @abstractmethod
    def closed(self) -> bool:
        """Whether the actor has ended for good."""

    @property
    def depth(self) -> int:
        """Messages waiting, in all lanes."""
        return len(self.normal) + len(self.urgent) + len(self.system_lane)

    def offer(self, item: Any, lane: Lane, *, bury: bool = True) -> Delivery:
        """Take a message, or an ask, by the policy: all that the fast path of `tell` is not.

        With `bury` a rejected message becomes a dead letter; otherwise its sender keeps it.
        """
        refused = self._refuse(item, lane)
        if refused is not None:
            if bury:
                self.bury(item, refused.reason)
            return refused
        if lane == "urgent":
            if self.urgent is UNUSED:
                self.urgent = deque()
            self.urgent.append(item)
            self.wake()
            return QUEUED
        result = QUEUED
        if self.mailbox.key is not None and not isinstance(item, Ask):
            merged = self._coalesce(item, self.mailbox.key(item))
            if merged is not None:
                return merged
        else:
            if len(self.normal) >= self.mailbox.capacity:
                self._drop_oldest()
                result = DISPLACED
            self.normal.append(item)
        self.wake()
        return result

    def _refuse(self, item: Any, lane: Lane) -> Rejected | None:
        """Why this message cannot enter; None if it can."""
        if self.closed:
            return DEAD
        self.open_lanes()
        message = bare(item)
        if self.quarantine and self.quarantined(message):
            return QUARANTINED
        if lane == "urgent":
            return FULL if len(self.urgent) >= self.mailbox.urgent_capacity else None
        if len(self.normal) < self.mailbox.capacity or self.mailbox.overflow == "drop_oldest":
            return None
        key = self.mailbox.key
        if key is None or isinstance(item, Ask):
            return FULL
        return None if key(message) in (self.slots or ()) else FULL  # None is no slot's key

    def _coalesce(self, message: Any, key: Hashable | None) -> Delivery | None:
        """Put it in the place of a queued one with its key, else at the end."""
        if key is None:
            self.normal.append(message)
            return None
        if self.slots is None:
            self.slots = {}
        slot = self.slots.get(key)
        if slot is None:
            slot = self.slots[key] = Slot(message, key)
            self.normal.append(slot)
            return None
        old, slot.message = slot.message, message
        self.bury(old, "coalesced")
        return COALESCED

    def _drop_oldest(self) -> None:
        """Drop the oldest that others sent; an actor's own timers are not theirs to push out."""
        normal = self.normal
        for place, item in enumerate(normal):
            if not isinstance(item, Tick):
                del normal[place]
                self.bury(item, "dropped", MailboxFull("dropped for a newer message"))
                return

    def push_system(self, item: Item) -> None:
        """Always accepted: child exits and outcomes of piped work."""
        if self.closed:
            return
        if self.system_lane is UNUSED:
            self.system_lane = deque()
        self.system_lane.append(item)
        self.wake()

    def push_tick(self, tick: Tick) -> None:
        """A timer's message, at the end of the normal lane, past its bound."""
        if self.closed:
            return
        self.open_lanes()
        self.normal.append(tick)
        self.wake()

    def push_front(self, items: list[Any]) -> None:
        """Put stashed items before all others of the normal lane, in their order."""
        if items:
            self.open_lanes()
            self.normal.extendleft(reversed(items))
            self.wake()

    async def wait_room(self, message: Any, deadline_s: float, timers: "Timers") -> Delivery:
        """Queue for room in the normal lane; those who wait are let in first come, first in."""
        if not self.putters:
            result = self.offer(message, "normal", bury=False)
            if result is not FULL:
                if not result:
                    self.bury(message, result.reason)  # type: ignore[union-attr]
                return result
        future = self.queue_for_room(message)
        timer = timers.call_later(deadline_s, give_up, future)
        try:
            result = await future
        finally:
            timer.cancel()
            self.leave_queue(future, message)
        if not result:
            self.bury(message, result.reason)  # type: ignore[union-attr]
        return result

    def queue_for_room(self, message: Any) -> "asyncio.Future[Delivery]":
        """Stand in the queue for room; the future has the outcome. See `leave_queue`."""
        future: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
        if self.putters is None:
            self.putters = deque()
        self.putters.append((future, message))
        return future

    def leave_queue(self, future: "asyncio.Future[Delivery]", message: Any) -> None:
        """Out of the queue for room, whether or not one was let in."""
        entry = (future, message)
        if self.putters is not None and entry in self.putters:
            self.putters.remove(entry)

    def admit(self) -> None:
        """Let waiting putters in while there is room."""
        putters = self.putters
        while putters and len(self.normal) < self.mailbox.capacity:
            future, message = putters.popleft()
            if not future.done():
                future.set_result(self.offer(message, "normal", bury=False))
        if not putters:
            self.putters = None

    def remember_crash(self, message: Any, now_s: float) -> bool:
        """Note that this message crashed its actor; true if that puts it into quarantine."""
        name = identity(message)
        if name is None:
            return False
        if self.crashes is None:
            self.crashes = {}
        times = self.crashes.pop(name, (None, 0))[1] + 1
        self.crashes[name] = (message, times)  # held, so that no other object gets its id
        if len(self.crashes) > CRASHES_KEPT:
            oldest = next(iter(self.crashes))
            del self.crashes[oldest]
            if self.quarantine is not None:
                self.quarantine.pop(oldest, None)
        if times == 1:
            return False
        if self.quarantine is None:
            self.quarantine = {}
        self.quarantine[name] = now_s + QUARANTINE_S
        self.room = 0
        for lane in (self.urgent, self.normal):
            for _ in range(len(lane)):
                item = lane.popleft()
                if identity(bare(item)) == name and not isinstance(item, Tick):
                    self.forget_slot(item)
                    self.bury(item, "quarantined", refusal("quarantined"))
                else:
                    lane.append(item)
        return True

    def forget_slot(self, item: Any) -> None:
        """What leaves the lane is merged into no more."""
        if type(item) is Slot and self.slots is not None and self.slots.get(item.key) is item:
            del self.slots[item.key]

    def quarantined(self, message: Any) -> bool:
        """Whether this message is refused now; lets go of those whose time is over."""
        assert self.quarantine is not None
        name = identity(message)
        until_s = None if name is None else self.quarantine.get(name)
        if until_s is None:
            return False
        if self.now_s() < until_s:
            return True
        assert name is not None
        del self.quarantine[name]
        return False

    @abstractmethod
    def now_s(self) -> float:
        """Seconds on the scale of the system's timers."""


def refusal(reason: RejectReason) -> Exception:
    """The exception an asker gets where a teller gets `Rejected(reason)`."""
    if reason == "full":
        return MailboxFull("the mailbox is full")
    return Quarantined("this message crashed the actor twice")


def give_up(future: "asyncio.Future[Delivery]") -> None:
    """The wait for room is over: rejected, if not let in before."""
    if not future.done():
        future.set_result(FULL)
