"""Supervision trees as data: what to spawn, how it restarts, how much its mailbox holds."""

from collections.abc import Callable, Hashable
from typing import Any, Literal, TypeAlias

import msgspec

Restart: TypeAlias = Literal["permanent", "transient", "temporary"]
"""`permanent`: always restarted, also when it ended by itself; `transient`: only after a failure;
`temporary`: never."""

Strategy: TypeAlias = Literal["one_for_one", "one_for_all", "rest_for_one"]
"""Who restarts with a child that failed: it alone; all its siblings; those started after it."""

Overflow: TypeAlias = Literal["reject", "drop_oldest", "coalesce"]


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """How many restarts of its children a supervisor allows in any `within_s` seconds.

    One more, and the supervisor itself fails, upward (Erlang/OTP's restart intensity).
    """

    restarts: int = 5
    within_s: float = 30.0


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """The wait before a restart: `base_s * 2**(n-1)` for the n-th in the budget's window.

    Capped by `max_s`, plus uniform(0, `jitter` * delay). With `base_s=0` it is at once.
    """

    base_s: float = 0.1
    max_s: float = 30.0
    jitter: float = 0.1


class Mailbox(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds and overflow policy of a mailbox.

    `capacity` bounds the normal lane and `urgent_capacity` the urgent one. `key` is needed by
    `coalesce`: it names what a message is about, None meaning that it is never merged; asks are
    never merged, since each wants its answer. It runs in the sender and must not raise.

    Raises:
        ValueError: A capacity below 1, or `coalesce` and `key` not given together.
    """

    capacity: int = 256
    overflow: Overflow = "reject"
    key: Callable[[Any], Hashable | None] | None = None
    urgent_capacity: int = 4096

    def __post_init__(self) -> None:
        """Refuse what could not work."""
        if self.capacity < 1 or self.urgent_capacity < 1:
            raise ValueError("a mailbox holds at least one message")
        if (self.overflow == "coalesce") != (self.key is not None):
            raise ValueError("overflow='coalesce' and key= go together")


class Props(msgspec.Struct, frozen=True, kw_only=True):
    """One actor, or with no `factory` a plain supervisor, and the children it starts with.

    `strategy`, `budget` and `backoff` govern its children, those of `ctx.spawn` included;
    `restart`, `stop_grace_s` and `mailbox` are its own. `children` start in order, each when the
    one before has started, and after this actor's own `on_start`; they keep their refs and
    mailboxes when this actor restarts, where those of `ctx.spawn` end.

    `stop_grace_s` bounds the message in hand when a stop comes, and then once more `on_stop`.
    """

    name: str = ""
    factory: Callable[[], Any] | None = None
    restart: Restart = "permanent"
    stop_grace_s: float = 5.0
    mailbox: Mailbox = Mailbox()
    strategy: Strategy = "one_for_one"
    budget: Budget = Budget()
    backoff: Backoff = Backoff()
    children: tuple["Props", ...] = ()
