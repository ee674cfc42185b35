"""What node, guardian and job hosts say to each other: msgpack arrays, in batches, one a frame.

Node and children are always of one installation, so these need no versions. Instants are
nanoseconds of CLOCK_MONOTONIC, which all processes of a machine share.
"""

from typing import Any, Literal

import msgspec

from protocols.ports.executor import Given

# How an attempt ended, as the host saw it. What a cancelled one counts as, the node knows; what has
# not begun was cancelled or taken back before its first line.
SUCCEEDED, FAILED, CANCELLED, UNSTARTED, UNIMPORTABLE = range(5)

CHECKPOINT_BYTES_MAX = 256 * 1024
ASK_BYTES_MAX = 1024 * 1024
"""What an attempt may send the node at once: far below a frame, in which many may travel."""

# The board: a shared page in which host and node leave single numbers without a message.
BOARD_BYTES = 64
BOARD_STARTED = 0
"""Written by the host before an attempt's first line: how many of those fed have begun."""
BOARD_REVOKED = 1
"""Written by the node: from this number on, what was fed is taken back, the host skips it."""
BOARD_PULSE = 2
"""Counted up by the host while an attempt of it has to do with locks, from a thread of its own."""
NEVER = 2**64 - 1


class Spec(msgspec.Struct, frozen=True, array_like=True):
    """A job's callable, told to a host once and named by `number` from then on."""

    number: int
    tenant: str
    job_id: str
    target: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Run(msgspec.Struct, frozen=True, array_like=True):
    """One attempt for a host to run; hosts count what they are fed, from 1."""

    token: int
    spec: int
    execution_id: str
    attempt: int
    scheduled_for_ns: int
    input: bytes | None
    checkpoint: bytes | None
    dag: Given | None = None


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """The node's answer to an `Ask` of the same number."""

    number: int
    value: Any
    error: str | None


class Feed(msgspec.Struct, frozen=True, array_like=True):
    """Node to host."""

    specs: list[Spec] = []
    runs: list[Run] = []
    cancels: tuple[int, ...] = ()
    answers: tuple[Answer, ...] = ()
    forget: bool = False
    """All specs told so far are dropped first, so that a host's memory has a bound."""


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """The node's first frame to a host: how it is to live."""

    mode: Literal["shared", "process"]
    cwd: str
    python_path: tuple[str, ...]
    output_bytes_max: int
    result_bytes_max: int
    held_s: float
    url: str
    host: str


class Done(msgspec.Struct, frozen=True, array_like=True):
    """One attempt ended."""

    token: int
    state: int
    started_ns: int
    finished_ns: int
    result: bytes | None = None
    error: str | None = None
    exit_code: int | None = None
    head: bytes | None = None
    tail: bytes = b""
    omitted_bytes: int = 0


class Ask(msgspec.Struct, frozen=True, array_like=True):
    """A running attempt wants something of the node."""

    number: int
    token: int
    kind: Literal["checkpoint", "heartbeat", "once", "emit", "lock", "unlock"]
    value: bytes | None


class Held(msgspec.Struct, frozen=True, array_like=True):
    """An attempt (`token` 0: not known which) has held the host's loop this long, here."""

    token: int
    for_s: float
    stack: str


class Said(msgspec.Struct, frozen=True, array_like=True):
    """Host to node."""

    started: list[tuple[int, int]] = []
    done: list[Done] = []
    asks: list[Ask] = []
    held: list[Held] = []
    spent: bool = False
    """This process should not be used again: it left threads or children behind, or is worn."""


class StartUnit(msgspec.Struct, frozen=True, tag=0, array_like=True):
    """Node to guardian: start a process in a session of its own.

    Where `fds` is not 0, that many descriptors travel with the frame; the child inherits them and
    their numbers are appended to `argv`. `spill` is given as a file, named by its variable.
    """

    unit: int
    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    marks: dict[str, str]
    output_bytes_max: int
    fds: int = 0
    spill: dict[str, bytes] = {}


class EndUnit(msgspec.Struct, frozen=True, tag=1, array_like=True):
    """Node to guardian: SIGTERM to the whole tree, SIGKILL after the grace; at once if it is 0."""

    unit: int
    grace_s: float


class TakeOutput(msgspec.Struct, frozen=True, tag=2, array_like=True):
    """Node to guardian: hand over what the unit printed so far, and begin a new capture."""

    unit: int
    number: int


class Ready(msgspec.Struct, frozen=True, tag=0, array_like=True):
    """Guardian to node: up, and what an earlier life left behind is gone."""

    pid: int
    swept: int
    cgroup: str | None


class Began(msgspec.Struct, frozen=True, tag=1, array_like=True):
    """Guardian to node: the unit's process runs."""

    unit: int
    pid: int
    at_ns: int


class Refused(msgspec.Struct, frozen=True, tag=2, array_like=True):
    """Guardian to node: the unit could not be started."""

    unit: int
    error: str
    at_ns: int


class Ended(msgspec.Struct, frozen=True, tag=3, array_like=True):
    """Guardian to node: the unit's process was reaped, and nothing of its tree lives on.

    `status` is the exit code, or minus the signal that ended it.
    """

    unit: int
    status: int
    at_ns: int
    head: bytes
    tail: bytes
    omitted_bytes: int


class Taken(msgspec.Struct, frozen=True, tag=4, array_like=True):
    """Guardian to node: the answer to `TakeOutput`."""

    number: int
    head: bytes
    tail: bytes
    omitted_bytes: int


ToGuardian = StartUnit | EndUnit | TakeOutput
FromGuardian = Ready | Began | Refused | Ended | Taken
