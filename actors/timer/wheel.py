"""A hierarchical timing wheel: any number of timers wait, and only those that fire cost anything.

Varghese and Lauck's scheme 7 ("Hashed and Hierarchical Timing Wheels", 1987), with windows that
are aligned like a calendar: milliseconds of the current second, seconds of the current minute,
minutes of the current hour, hours of the current day, days of the current 64, and an overflow
beyond. A timer is put into the finest level whose window holds it, and moves down a level when
the hand enters its slot, so each timer is touched at most six times however long it waits.

Inserting and cancelling are O(1). Nothing fires before its nanosecond: a slot that the hand has
reached is sorted, and released timer by timer.
"""

from collections.abc import Iterable
from operator import attrgetter
from typing import Any, Final

import msgspec

MS: Final = 1_000_000
SECOND: Final = 1000 * MS
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
WINDOW: Final = 64 * DAY
"""Beyond the current 64 days a timer waits in the overflow, one list for each 64 days."""

_LEVELS: Final = (("milliseconds", MS, 1000), ("seconds", SECOND, 60), ("minutes", MINUTE, 60),
                  ("hours", HOUR, 24), ("days", DAY, 64))  # fmt: skip
_SWEEP_MIN: Final = 1024
_when: Final = attrgetter("when_ns")


class Timer:
    """An entry of the wheel: when it fires (ns), what for, and whether it still waits."""

    __slots__ = ("item", "waiting", "when_ns")

    def __init__(self, when_ns: int, item: Any) -> None:
        self.when_ns = when_ns
        self.item = item
        self.waiting = True

    def __repr__(self) -> str:
        return f"Timer({self.when_ns}, {self.item!r}, waiting={self.waiting})"


class WheelStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """How many timers wait, in all and on each level, and what cancelling has left to sweep."""

    waiting: int
    cancelled_unswept: int
    near: int
    levels: dict[str, int]
    overflow: int


class _Slot(list[Timer]):
    """The timers of one slot, with the earliest instant that was put in."""

    __slots__ = ("earliest_ns",)
    earliest_ns: int


class _Level:
    """One ring of slots; bit n of `occupied` says that slot n holds something."""

    __slots__ = ("end_ns", "name", "occupied", "size", "slots", "start_ns", "width_ns")

    def __init__(self, name: str, width_ns: int, size: int) -> None:
        self.name, self.width_ns, self.size = name, width_ns, size
        self.slots: list[_Slot | None] = [None] * size
        self.occupied = 0
        self.start_ns = self.end_ns = 0

    def move_to(self, now_ns: int) -> None:
        """Turn to the window that holds an instant; the window left behind is empty."""
        span = self.width_ns * self.size
        self.start_ns = now_ns - now_ns % span
        self.end_ns = self.start_ns + span

    def first(self) -> int:
        """Return the number of the first slot in use, or -1."""
        occupied = self.occupied
        return (occupied & -occupied).bit_length() - 1

    def take(self, number: int) -> _Slot:
        slot = self.slots[number]
        assert slot is not None, "a set bit has its slot"
        self.slots[number] = None
        self.occupied &= ~(1 << number)
        return slot


class TimingWheel:
    """Holds timers until they are due; the caller owns the clock.

    Not for use from several threads.
    """

    def __init__(self, now_ns: int) -> None:
        self._now_ns = now_ns
        self._near: list[Timer] = []
        self._near_at = 0
        self._near_sorted = True
        self._near_end_ns = 0
        self._levels = tuple(_Level(*level) for level in _LEVELS)
        self._overflow: dict[int, _Slot] = {}
        self._waiting = 0
        self._cancelled = 0
        self._turn_to(now_ns)

    def __len__(self) -> int:
        return self._waiting

    @property
    def now_ns(self) -> int:
        """The latest instant the wheel was advanced to; it never moves back."""
        return self._now_ns

    def insert(self, when_ns: int, item: Any) -> Timer:
        """Let a timer wait until `when_ns`; one that is due already fires at the next advance."""
        timer = Timer(when_ns, item)
        self._waiting += 1
        self._put(timer, when_ns)
        return timer

    def cancel(self, timer: Timer) -> bool:
        """Take a timer out; False where it has fired or was cancelled before.

        The timer's item is let go at once, its place when half of what is held is such places.
        """
        if not timer.waiting:
            return False
        timer.waiting = False
        timer.item = None
        self._waiting -= 1
        self._cancelled += 1
        if self._cancelled > _SWEEP_MIN and self._cancelled > self._waiting:
            self._sweep()
        return True

    def advance(self, now_ns: int) -> list[Timer]:
        """Move on to `now_ns` and return the timers due by then, in the order of their instants.

        Timers of one instant come in the order they were inserted. A clock that went back moves
        nothing; one that jumped ahead costs what falls due, not the slots in between.
        """
        now_ns = max(now_ns, self._now_ns)
        self._now_ns = now_ns
        fired: list[Timer] = []
        while self._release(now_ns, fired) and self._enter_next(now_ns):
            pass
        if now_ns >= self._near_end_ns:
            self._turn_to(now_ns)
        self._waiting -= len(fired)
        return fired

    def next_expiry(self) -> int | None:
        """Return the instant to wake up at: that of the earliest timer, or None.

        It may be the instant of a cancelled timer, so a wake-up may find nothing due; never is
        it later than a waiting one.
        """
        near, at = self._near, self._near_at
        if not self._near_sorted:
            self._sort_near()
            near, at = self._near, self._near_at
        while at < len(near) and not near[at].waiting:
            at += 1
            self._cancelled -= 1
        self._near_at = at
        if at < len(near):
            return near[at].when_ns
        for level in self._levels:
            number = level.first()
            if number >= 0:
                slot = level.slots[number]
                assert slot is not None, "a set bit has its slot"
                return slot.earliest_ns
        if self._overflow:
            return self._overflow[min(self._overflow)].earliest_ns
        return None

    def statistics(self) -> WheelStatistics:
        """Count what waits and where; cancelled timers not yet swept are counted in the levels."""
        return WheelStatistics(
            waiting=self._waiting,
            cancelled_unswept=self._cancelled,
            near=len(self._near) - self._near_at,
            levels={v.name: sum(len(s) for s in v.slots if s) for v in self._levels},
            overflow=sum(len(slot) for slot in self._overflow.values()),
        )

    def _put(self, timer: Timer, when_ns: int) -> None:
        """Put a timer into the finest level whose window holds it."""
        if when_ns < self._near_end_ns:
            self._near.append(timer)
            self._near_sorted = False
            return
        for level in self._levels:
            if when_ns < level.end_ns:
                number = (when_ns - level.start_ns) // level.width_ns
                slot = level.slots[number]
                if slot is None:
                    level.slots[number] = slot = _Slot()
                    slot.earliest_ns = when_ns
                    level.occupied |= 1 << number
                elif when_ns < slot.earliest_ns:
                    slot.earliest_ns = when_ns
                slot.append(timer)
                return
        number = when_ns // WINDOW
        slot = self._overflow.get(number)
        if slot is None:
            self._overflow[number] = slot = _Slot()
            slot.earliest_ns = when_ns
        elif when_ns < slot.earliest_ns:
            slot.earliest_ns = when_ns
        slot.append(timer)

    def _release(self, now_ns: int, fired: list[Timer]) -> bool:
        """Move what is due from the near list to `fired`; True when nothing near is left."""
        if not self._near_sorted:
            self._sort_near()
        near, at = self._near, self._near_at
        if at == len(near):
            return True
        for timer in near[at:] if at else near:
            if timer.when_ns > now_ns:
                self._near_at = at
                return False
            at += 1
            if timer.waiting:
                timer.waiting = False
                fired.append(timer)
            else:
                self._cancelled -= 1
        self._near, self._near_at = [], 0
        return True

    def _sort_near(self) -> None:
        if self._near_at:
            del self._near[: self._near_at]
            self._near_at = 0
        self._near.sort(key=_when)  # stable: one instant keeps the order of insertion
        self._near_sorted = True

    def _enter_next(self, now_ns: int) -> bool:
        """Move the hand to the next slot in use, if it has begun; spread it over finer levels."""
        for level in self._levels:
            number = level.first()
            if number < 0:
                continue
            start_ns = level.start_ns + number * level.width_ns
            if start_ns > now_ns:
                return False
            self._turn_to(start_ns)
            self._spread(level.take(number), now_ns, start_ns + level.width_ns)
            return True
        if self._overflow:
            number = min(self._overflow)
            if number * WINDOW <= now_ns:
                self._turn_to(number * WINDOW)
                self._spread(self._overflow.pop(number), now_ns, (number + 1) * WINDOW)
                return True
        return False

    def _spread(self, slot: _Slot, now_ns: int, end_ns: int) -> None:
        """Hand a slot's timers on: all at once where the whole slot is due, else level by level."""
        if end_ns - 1 <= now_ns or end_ns <= self._near_end_ns:
            self._near = slot
            self._near_at = 0
            self._near_sorted = False
            if end_ns > self._near_end_ns:
                self._turn_to(end_ns - 1)
            return
        put = self._put
        for timer in slot:
            if timer.waiting:
                put(timer, timer.when_ns)
            else:
                self._cancelled -= 1

    def _turn_to(self, now_ns: int) -> None:
        """Move every level's window to the one that holds an instant."""
        self._near_end_ns = now_ns - now_ns % MS + MS
        for level in self._levels:
            if now_ns < level.end_ns:
                return  # what is coarser holds it too
            level.move_to(now_ns)

    def _sweep(self) -> None:
        """Drop what was cancelled; paid for by the cancelling of as many timers as are held."""
        self._near = [timer for timer in self._near[self._near_at :] if timer.waiting]
        self._near_at = 0
        for level in self._levels:
            for number, slot in enumerate(level.slots):
                if slot is not None and not _keep_waiting(slot):
                    level.take(number)
        for number in [n for n, slot in self._overflow.items() if not _keep_waiting(slot)]:
            del self._overflow[number]
        self._cancelled = 0


def _keep_waiting(slot: _Slot) -> bool:
    """Drop a slot's cancelled timers; False where none is left."""
    waiting: Iterable[Timer] = [timer for timer in slot if timer.waiting]
    slot[:] = waiting
    if slot:
        slot.earliest_ns = min(map(_when, slot))
    return bool(slot)
