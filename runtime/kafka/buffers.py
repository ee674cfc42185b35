"""What waits to leave for each inbox: bounded in records and bytes, in order, and never too old."""

from collections import deque
from collections.abc import Callable
from itertools import islice

import msgspec

RECORDS_MAX = 10_000
"""Records that wait for one inbox at most."""

BYTES_MAX = 16 << 20
"""Bytes that wait for one inbox at most."""


class Waiting(msgspec.Struct, frozen=True):
    """A record that has not been acknowledged."""

    record: bytes
    deadline_ns: int


class Buffer:
    """The way to one inbox, until the broker has acknowledged what is on it.

    What is being sent stays at the head until then, so that nothing is lost or passes it when the
    connection ends half way; it may come twice, which the other side drops.
    """

    __slots__ = ("_bytes", "_queue", "forgotten", "look_again_ns", "on_more", "taken")

    def __init__(self) -> None:
        self._queue: deque[Waiting] = deque()
        self._bytes = 0
        self.taken = 0
        """How many, from the head on, are being sent."""
        self.look_again_ns = 0
        self.forgotten = False
        self.on_more: Callable[[], None] | None = None
        """Called when there is something to send again, once."""

    def __len__(self) -> int:
        return len(self._queue)

    def offer(self, record: bytes, deadline_ns: int) -> bool:
        """Take a record, if there is room."""
        if len(self._queue) >= RECORDS_MAX or self._bytes + len(record) > BYTES_MAX:
            return False
        self._queue.append(Waiting(record, deadline_ns))
        self._bytes += len(record)
        self.wake()
        return True

    def wake(self) -> None:
        """Let the sender look."""
        call, self.on_more = self.on_more, None
        if call is not None:
            call()

    def take(self, records_max: int) -> list[Waiting]:
        """The first few, still in the buffer until `left` or `keep`."""
        self.taken = min(records_max, len(self._queue))
        return list(islice(self._queue, self.taken))

    def left(self, count: int) -> None:
        """The first `count` of those taken are done with; the others stay."""
        for _ in range(min(count, self.taken)):
            self._bytes -= len(self._queue.popleft().record)
        self.taken = 0

    def keep(self) -> None:
        """Those taken did not leave, as far as is known."""
        self.taken = 0

    def expire(self, now_ns: int) -> int:
        """Make room of what nobody wants any more, unless it is being sent; how many."""
        if self.taken:
            return 0
        fresh = [waiting for waiting in self._queue if waiting.deadline_ns > now_ns]
        dropped = len(self._queue) - len(fresh)
        if dropped:
            self._queue = deque(fresh)
            self._bytes = sum(len(waiting.record) for waiting in fresh)
        return dropped

    def clear(self) -> int:
        """Drop all; how many."""
        dropped = len(self._queue)
        self._queue.clear()
        self._bytes = self.taken = 0
        return dropped
