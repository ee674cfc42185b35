"""A lock as its keeper holds it: what an attempt asked for, and until when it may be relied on."""

from collections.abc import Callable
from typing import Any, Final, Literal, Protocol

import msgspec

from protocols.durations import format_duration
from protocols.ports.locks import (
    LOCK_NAME_CHARS_MAX,
    LOCK_TTL_S_MAX,
    LOCK_TTL_S_MIN,
    LockClaim,
    LockHold,
)
from runtime.clock import monotonic_ns
from runtime.hosts.work import Work

Lose = Callable[[Work, str], None]
"""Ends an attempt that has lost a lock, for the reason given."""

NS: Final = 1_000_000_000
_MARGIN_S_MAX: Final = 1.0


class Asker(Protocol):
    """Where an attempt runs: it takes answers, and shows signs of life."""

    def answer(self, number: int, value: Any, error: str | None) -> None:
        """Answer what the attempt asked."""

    def pulse(self) -> int:
        """A number that changes as long as the process lives and is not stopped."""


class Wanted(msgspec.Struct, frozen=True):
    """What `ctx.lock` sends on entering; `request` is the attempt's own number for it."""

    request: int
    name: str
    ttl_s: float
    wait_s: float | None = None


class Unwanted(msgspec.Struct, frozen=True):
    """What it sends on leaving, and where it gave up entering."""

    request: int


class Holder:
    """An attempt that has asked for a lock."""

    __slots__ = ("host", "locks", "lose", "work")

    def __init__(self, work: Work, host: Asker, lose: Lose) -> None:
        self.work = work
        self.host = host
        self.lose = lose
        self.locks: dict[int, WantedLock] = {}


class WantedLock:
    """One wish for a lock, and what became of it."""

    __slots__ = (
        "asked_ns",
        "claim",
        "holder",
        "next_ns",
        "number",
        "over_ns",
        "pulse",
        "renew_ns",
        "request",
        "state",
        "token",
        "trouble",
        "trusted_ns",
    )

    def __init__(
        self,
        holder: Holder,
        claim: LockClaim,
        *,
        request: int,
        number: int,
        over_ns: int | None,
    ) -> None:
        self.holder = holder
        self.request = request
        self.number = number
        self.claim = claim
        self.state: Literal["waiting", "held", "lost", "over"] = "waiting"
        self.asked_ns = self.next_ns = monotonic_ns()
        self.over_ns = over_ns
        """When to wait no longer; None: for as long as the attempt may run."""
        self.token = 0
        self.trusted_ns = 0
        self.renew_ns = 0
        self.pulse = 0
        self.trouble = ""

    def waits(self) -> bool:
        """Asked anew: it may have come to its end while the books were asked."""
        return self.state == "waiting"

    @property
    def key(self) -> tuple[str, str]:
        """A lock is of its tenant."""
        return self.claim.tenant, self.claim.name

    @property
    def hold(self) -> LockHold:
        """As the books know it."""
        claim = self.claim
        return LockHold(
            tenant=claim.tenant,
            name=claim.name,
            token=self.token,
            fencing_token=claim.fencing_token,
        )

    def trust(self, since_ns: int) -> None:
        """It is in force for a TTL from `since_ns` on, when the books were asked."""
        ttl_ns = int(self.claim.ttl_s * NS)
        self.trusted_ns = since_ns + ttl_ns - min(ttl_ns // 10, int(_MARGIN_S_MAX * NS))
        self.renew_ns = since_ns + ttl_ns // 3
        self.trouble = "its node stood still"

    def answer(self, value: Any = None, error: str | None = None) -> None:
        """Answer the attempt's wish."""
        self.holder.host.answer(self.number, value, error)


def check(wanted: Wanted) -> None:
    """Refuse what cannot be kept. Raises `ValueError`, in words for the task."""
    name = wanted.name
    if not 0 < len(name) <= LOCK_NAME_CHARS_MAX:
        raise ValueError(f"a lock's name has 1 to {LOCK_NAME_CHARS_MAX} characters")
    if "\0" in name or any("\ud800" <= char <= "\udfff" for char in name):
        raise ValueError("a lock's name holds no NUL character and no lone surrogate")
    if not LOCK_TTL_S_MIN <= wanted.ttl_s <= LOCK_TTL_S_MAX:
        shortest, longest = format_duration(LOCK_TTL_S_MIN), format_duration(LOCK_TTL_S_MAX)
        raise ValueError(f"a lock's TTL is from {shortest} to {longest}")
    if wanted.wait_s is not None and not wanted.wait_s >= 0:
        raise ValueError("a lock is waited for 0 s or longer")
