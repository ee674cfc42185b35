"""What a turn is told of executions that have ended, and what it tells in its turn."""

from datetime import datetime
from typing import Final

import msgspec

from protocols.dags import TaskState
from runtime.postgres.dags.rows import Key


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How an execution of a task ended."""

    execution: int
    key: Key
    state: str
    reason: str | None
    started_at: datetime | None
    finished_at: datetime
    result: bytes | None


class Turned(msgspec.Struct, frozen=True, kw_only=True):
    """What a turn did, as far as others are to be told of it."""

    pools: tuple[str, ...] = ()
    """Pools with more to claim."""
    over: tuple[int, ...] = ()
    """Runs that are final now."""
    asked: tuple[tuple[int, int], ...] = ()
    """(id, fencing token) of running executions that were asked to stop."""
    more: bool = False
    """Whether others were ended, or tasks left to start, which is to be taken account of."""


ENDS: Final[dict[str, TaskState]] = {
    "succeeded": "succeeded",
    "dead": "failed",
    "cancelled": "cancelled",
    "skipped": "skipped",
}
"""The state of a task by that of its execution."""
