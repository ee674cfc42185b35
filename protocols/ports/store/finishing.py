"""What a worker asks of the store: to keep how attempts ended, and what they ask meanwhile."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, Protocol

import msgspec

from protocols.executions import AttemptState
from protocols.jobs import JobSpec
from protocols.ports.executor import Output
from protocols.ports.store.claiming import GiveBack


class Finish(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How an attempt ended, and what becomes of its execution.

    `state` is `scheduled` for a retry (then `run_at` is set), else final. `spends` says which
    budget the attempt used. `started_ns` and `finished_ns` are since 1970, kept to the microsecond:
    nobody here reads them, and a datetime for each cost more than the rest of the end.
    """

    id: int
    fencing_token: int
    attempt_state: AttemptState
    state: Literal["succeeded", "dead", "cancelled", "scheduled"]
    started_ns: int
    finished_ns: int
    spends: Literal["retry", "lost", "none"] = "none"
    run_at: datetime | None = None
    reason: str | None = None
    exit_code: int | None = None
    error: str | None = None
    result: bytes | None = None
    output: Output | None = None


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """`accepted`: ids whose finish was written; others carried a token that is not in force."""

    accepted: Sequence[int]
    followers: Sequence[int]
    """Job keys whose finish may let something else run: settle these."""


class WorkerStore(Protocol):
    """What a WorkerActor asks."""

    async def definitions(self, keys: Sequence[tuple[int, int]]) -> Sequence[JobSpec | None]:
        """As in `TimerStore`."""
        ...

    async def checkpoints(self, ids: Sequence[int]) -> dict[int, bytes]:
        """The last checkpoint (JSON) of each of these executions that has one."""
        ...

    async def finish(self, incarnation: int, finishes: Sequence[Finish]) -> Finished:
        """Write these ends, in one statement; a finish with a spent token changes nothing."""
        ...

    async def give_back(self, incarnation: int, given: Sequence[GiveBack]) -> None:
        """As in `DispatchStore`."""
        ...

    async def save_checkpoint(self, id: int, token: int, value: bytes, *, now: datetime) -> bool:  # noqa: A002
        """Keep a running attempt's checkpoint (JSON); False where its token is not in force."""
        ...

    async def once(
        self,
        id: int,  # noqa: A002
        token: int,
        key: str,
        ttl_s: float,
        *,
        now: datetime,
    ) -> Literal["first", "again", "no"] | None:
        """May this attempt do the piece of work named `key`? None where its token is spent."""
        ...

    async def emit(
        self,
        tenant: str,
        event: str,
        payload: bytes | None,
        *,
        now: datetime,
        key: str | None = None,
    ) -> None:
        """Append an event, by which `on: {event: ...}` jobs are triggered."""
        ...

    async def cancel_requests(self, incarnation: int) -> Sequence[tuple[int, int]]:
        """The (id, fencing token) that this node runs and that somebody asked to cancel."""
        ...

    async def running(self, incarnation: int, pool: str) -> Sequence[tuple[int, int]]:
        """The (id, fencing token) of this pool that the books say this node runs.

        It reads what is not final from end to end: for starts and doubts, not for every poll.
        """
        ...
