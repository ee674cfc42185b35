"""The outbox: what happened to executions, read from the books in order and published elsewhere."""

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar, Protocol

import msgspec

from protocols.errors import TickwrightError


class PublishError(TickwrightError):
    """What was to be published may or may not be; it is to be published again, by a new start."""

    code: ClassVar[str] = "unpublished"
    status: ClassVar[int] = 503


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What one event says of one execution.

    `attempt` is the last attempt that had ended by then, 0 before the first; `node` is the name of
    the node that ran it, where the event is that attempt's end. `reason`, `retry_count` (retries
    made after failures) and `error` are known of ends.
    """

    sequence: int
    """Of the event; one execution is in an event once, and what comes later has a greater one."""
    kind: str
    at: datetime
    execution_id: str
    tenant: str
    job_id: str
    scheduled_for: datetime
    state: str
    reason: str | None = None
    attempt: int = 0
    retry_count: int = 0
    error: str | None = None
    node: str | None = None


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Events after one place of the log, up to another; with none of them, both are the same."""

    after: tuple[int, int]
    until: tuple[int, int]
    events: int
    changes: Sequence[Change]


class Backlog(msgspec.Struct, frozen=True, kw_only=True):
    """How far publishing has got: `events` is counted to a bound only."""

    free: bool
    """Nobody publishes now."""
    events: int = 0
    oldest_at: datetime | None = None
    dropped: int = 0
    """Events that grew too old and were dropped unpublished, ever."""


class OutboxStore(Protocol):
    """What the outbox asks of the books. Each raises `UnavailableError` in an outage."""

    async def look(self) -> Backlog:
        """Say how things stand, whoever publishes."""
        ...

    async def take(self, incarnation: int, token: int, *, ttl_s: float) -> int | None:
        """Become the one who publishes, for `ttl_s`, or go on being it by the proof of `token`.

        Returns the token, a greater one where it is another's turn or a new one; None while
        somebody else publishes.
        """
        ...

    async def read(self, token: int, *, events: int, changes: int) -> Batch | None:
        """Return what comes next, bounded in both, but one event at least; None to a stale token.

        Changes are in the order in which they were made.
        """
        ...

    async def advance(self, token: int, batch: Batch, *, ttl_s: float) -> bool:
        """Note that a batch is published, and hold on; false to who is not at its beginning."""
        ...

    async def release(self, token: int) -> None:
        """Let another take over at once."""
        ...


class Publisher(Protocol):
    """Where changes are published; each call raises `PublishError` if that cannot be done."""

    async def begin(self) -> None:
        """Shut out every earlier publisher; to be followed by a read, never by what was read."""
        ...

    async def publish(self, changes: Sequence[Change]) -> None:
        """Publish all or nothing, durably."""
        ...

    async def close(self) -> None:
        """End, without raising; `begin` may come again."""
        ...
