"""The Transport port: carries records to other nodes' inboxes, and hands over this node's own.

It promises no delivery: a record may be lost or come twice. Those of one sender to one inbox come
in their order or not at all.
"""

from collections.abc import Callable
from typing import Protocol

import msgspec

Inbox = Callable[[bytes], None]
"""Takes one record; runs inside the poll loop, so it only decodes and posts, and never raises."""


class TransportCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What a transport has done since it was made, in records, and what it holds now."""

    sent: int = 0
    """Acknowledged by the broker."""
    received: int = 0
    rejected: int = 0
    """Not taken: the buffer was full, or the record too large."""
    expired: int = 0
    """Dropped on this side, since their deadline had passed before they could leave."""
    lost: int = 0
    """Dropped on this side for another reason, such as an inbox that does not exist."""
    waiting: int = 0
    """In the buffers now."""


class Transport(Protocol):
    """The way to other nodes."""

    @property
    def record_bytes_max(self) -> int:
        """No larger record is taken."""
        ...

    @property
    def away(self) -> str | None:
        """Why nothing can be carried now; None while all is well."""
        ...

    def send(self, node: str, record: bytes, *, deadline_ns: int) -> bool:
        """Take a record for the inbox of the node of that name; never waits.

        False if there is no room for it, and it was not taken. `deadline_ns` (epoch, of the Clock
        port) is when it is dropped if it has not left by then.
        """
        ...

    def forget(self, node: str) -> None:
        """No node of that name lives any more: drop what waits for it."""
        ...

    def listen(self, inbox: Inbox) -> None:
        """Hand every record of this node's inbox to `inbox`, from here on."""
        ...

    def counts(self) -> TransportCounts:
        """What it has done so far."""
        ...
