"""The locks of tasks: what their keeper asks of the books, and the bounds of a lock."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Protocol

import msgspec

LOCK_TTL_S_MIN: Final = 1.0
"""A shorter lock could not be renewed in time by a busy machine."""
LOCK_TTL_S_MAX: Final = 86_400.0
LOCK_NAME_CHARS_MAX: Final = 255
LOCKS_MAX: Final = 100
"""Locks that one attempt may hold and wait for at once."""


class LockClaim(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt's wish for a lock; `asked_at` is its place among those who wait for it."""

    id: int
    tenant: str
    fencing_token: int
    name: str
    ttl_s: float
    asked_at: datetime
    queues: bool
    """Whether it waits its turn where the lock is not free; else it is only tried."""


class LockHold(msgspec.Struct, frozen=True, kw_only=True):
    """A lock that an attempt holds, by the proof of `token`."""

    tenant: str
    name: str
    token: int
    fencing_token: int


class LockStore(Protocol):
    """What the keeper of locks asks. All times are those of the database's own clock."""

    async def take(self, claim: LockClaim) -> int | None:
        """The new lock's token; 0 where others hold it or come first, None for a spent attempt.

        An attempt that holds it already is given a new token: its first answer was lost.
        """
        ...

    async def renew(self, holds: Sequence[tuple[LockHold, bool]]) -> Sequence[int]:
        """The tokens that are in force; those marked true are in force for a whole TTL from now."""
        ...

    async def release(self, holds: Sequence[LockHold]) -> Sequence[int]:
        """Free what these attempts hold under these names; the tokens that were in force."""
        ...

    async def leave(self, claims: Sequence[LockClaim]) -> None:
        """These wait no longer."""
        ...
