"""What makes executions that no schedule fired."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from protocols.errors import KeyReusedError, NotFoundError


class TriggerRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Run a job once, now or at `run_at`; exactly one of `job_id` and `job_key` is set.

    `key` is an idempotency key, which lives 24 hours: the same key and `body_hash` stand for the
    same execution. A trigger by an event takes a key made of the event's place in the log.
    """

    tenant: str
    job_id: str | None = None
    job_key: int | None = None
    input: bytes | None = None
    """JSON."""
    run_at: datetime | None = None
    with_dependencies: bool = False
    by_event: bool = False
    """Nobody in person asks: of a paused job it is `skipped: paused`."""
    key: str | None = None
    body_hash: bytes = b""


class Triggered(msgspec.Struct, frozen=True, kw_only=True):
    """The execution that answers a request; `known` where its key had been used before.

    `state` and `pool` are those it was born with, None for a known one. A blocked one's job is
    to be settled.
    """

    id: int
    created_at: datetime
    job_key: int
    known: bool = False
    state: str | None = None
    pool: str | None = None


class TriggerStore(Protocol):
    """What makes executions that no schedule fired."""

    async def trigger(
        self, requests: Sequence[TriggerRequest], *, now: datetime
    ) -> Sequence[Triggered | NotFoundError | KeyReusedError]:
        """Insert one execution for each request, in one statement; answers stand in its order.

        An error is that of its request alone. One meant for later stays out of its job's turn
        (`blocked: delayed`, unless `overlap: allow`) until `settle` finds its `run_at` passed.
        """
        ...
