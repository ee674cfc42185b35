"""The Executor port: runs attempts somewhere isolated, and tells how each went, in batches."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import msgspec

from protocols.tasks import PlainTask

OutcomeState = Literal["succeeded", "failed", "timed_out", "cancelled", "lost", "unstarted"]
"""`lost`: it had started, and its host was killed for another's sake or died.
`unstarted`: handed back unspent (`unimportable` says whether this node can never run it)."""


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """What an attempt at a DAG's task knows beside the run's input."""

    run_id: str
    task_id: str
    item: bytes | None = None
    """JSON; of a mapped task,"""
    number: int | None = None
    """and its place in the list."""
    refs: tuple[str, ...] = ()
    """The values of `RUNTIME_REF_0` and on, for a command."""


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to run; instants are epoch nanoseconds of the Clock port."""

    id: int
    execution_id: str
    tenant: str
    job_id: str
    version: int
    attempt: int
    fencing_token: int
    scheduled_for_ns: int
    task: PlainTask
    timeout_s: float
    heartbeat_s: float | None = None
    input: bytes | None = None
    """JSON, as it was given."""
    checkpoint: bytes | None = None
    """JSON, the last one saved."""
    dag: Given | None = None
    """Of a DAG's task."""


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """What an attempt printed: the first and the last part, and how much was left out between."""

    head: bytes = b""
    tail: bytes = b""
    omitted_bytes: int = 0


class Started(msgspec.Struct, frozen=True):
    """The first line of the attempt is about to run.

    Left out where the attempt has ended by the time this could be told: its `Outcome` says when it
    started.
    """

    id: int
    fencing_token: int
    at_ns: int


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt ended; `result` is JSON, `output` None where nothing was printed."""

    id: int
    fencing_token: int
    state: OutcomeState
    started_ns: int
    finished_ns: int
    exit_code: int | None = None
    error: str | None = None
    result: bytes | None = None
    output: Output | None = None
    unimportable: bool = False
    bystander: bool = False
    """Of a `lost` one: its host was killed for another's sake or the node's, so no budget is spent;
    otherwise (its beats stopped, its process vanished) it spends `max_lost`."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Something a running attempt asks of the node; answered by `Executor.answer(number, ...)`.

    `checkpoint` (value: JSON), `heartbeat`, `once` (value: `{"key": ..., "ttl_s": ...}`),
    `emit` (value: `{"event": ..., "payload": ...}`).
    """

    number: int
    id: int
    fencing_token: int
    kind: Literal["checkpoint", "heartbeat", "once", "emit"]
    value: bytes | None = None


Report = Started | Outcome | Request


class Sink(Protocol):
    """Takes what executors report; called on the loop, must not block."""

    def __call__(self, reports: Sequence[Report], /) -> None:
        """Take a batch."""
        ...


class Executor(Protocol):
    """Runs attempts of one pool; every assignment ends in exactly one `Outcome`."""

    def start(self, assignments: Sequence[Assignment]) -> None:
        """Begin these; never blocks. Outcomes go to the sink, whatever happens to a host."""

    def cancel(self, id: int, fencing_token: int) -> None:  # noqa: A002
        """Ask one attempt to stop: cancelled at its next await or SIGTERM, killed after grace."""

    def answer(self, number: int, *, value: Any = None, error: str | None = None) -> None:
        """Answer a `Request`."""

    def holds(self) -> Sequence[tuple[int, int]]:
        """The (id, fencing token) of everything assigned and not yet reported."""

    def beat(self, id: int, fencing_token: int) -> None:  # noqa: A002
        """A command's heartbeat, which came by another way than its pipes."""

    async def stop(self, grace_s: float) -> None:
        """Start no more, let what runs end for so long, then end it; all is reported on return."""
