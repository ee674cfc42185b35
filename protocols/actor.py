"""The actor contract: what an actor is, what it sees of the world, and how others reach it."""

import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import msgspec

from protocols.delivery import (
    ActorDead,
    ActorError,
    ActorFailed,
    AskTimeout,
    DeadLetter,
    DeadReason,
    Delivered,
    Delivery,
    Lane,
    MailboxFull,
    NameTaken,
    Quarantined,
    Rejected,
    RejectReason,
    RestartBudgetExceeded,
    SelfAsk,
    StashFull,
    SystemFailed,
    TooLarge,
    Unreachable,
    Unreadable,
)
from protocols.ports.clock import Clock
from protocols.props import Backoff, Budget, Mailbox, Overflow, Props, Restart, Strategy

__all__ = [
    "Actor",
    "ActorDead",
    "ActorError",
    "ActorFailed",
    "AskTimeout",
    "Backoff",
    "Budget",
    "Context",
    "DeadLetter",
    "DeadReason",
    "Delivered",
    "Delivery",
    "EndReason",
    "Lane",
    "Mailbox",
    "MailboxFull",
    "NameTaken",
    "Overflow",
    "Pipe",
    "Props",
    "Quarantined",
    "Ref",
    "RejectReason",
    "Rejected",
    "Reply",
    "Restart",
    "RestartBudgetExceeded",
    "SelfAsk",
    "StashFull",
    "Strategy",
    "SystemFailed",
    "Terminated",
    "Timer",
    "TooLarge",
    "Unreachable",
    "Unreadable",
]

T = TypeVar("T")

EndReason = Literal["stopped", "finished", "failed", "killed"]
"""`stopped` from outside; `finished` by itself; `failed`, not restarted; `killed` with its node."""


class Actor(ABC):
    """One thing that handles one message at a time and owns what it holds.

    A fresh instance is made at every start and restart; what must outlive a crash lives outside.
    An exception that leaves any of these methods ends the instance, and its supervisor decides.
    """

    __slots__ = ()

    async def on_start(self, ctx: "Context") -> None:  # noqa: B027 - most need none
        """Get ready; no message is handled before this returns."""

    @abstractmethod
    async def receive(self, message: Any, ctx: "Context") -> Any:
        """Handle one message; never called again before it returns.

        What it returns answers an ask, unless `ctx.defer_reply()` was called; after a tell it is
        ignored. Long work belongs in `ctx.pipe`, so that a stop or a cancel is heard meanwhile.
        """

    async def on_stop(self, ctx: "Context") -> None:  # noqa: B027 - most need none
        """Give back what `on_start` took; called once for every `on_start` that returned.

        Its children have stopped, its pipes still run and are cancelled when this returns;
        `await ctx.drain()` lets them finish first. It has `stop_grace_s`, then it is cancelled.
        """


@runtime_checkable
class Ref(Protocol):
    """The address of an actor, near or far: cheap to keep, safe to send.

    A field of a message may have it as its type; it comes out usable on another node.

    It stays good over restarts. A new actor of the same path has another `incarnation`, so what
    is sent to an old ref never reaches it.
    """

    @property
    def path(self) -> str:
        """Where it is in its tree, such as `/pools/default/dispatcher`."""
        ...

    @property
    def incarnation(self) -> int:
        """Which holder of that path; grows, and never repeats in one system."""
        ...

    @property
    def alive(self) -> bool:
        """False once it has ended for good; a restart is not an end."""
        ...

    def tell(self, message: Any, lane: Lane = "normal") -> Delivery:
        """Send and go on; never waits. Safe to call from the loop's own thread only."""
        ...

    async def put(self, message: Any, *, deadline: float) -> Delivery:
        """Send to the normal lane, waiting up to `deadline` seconds for room."""
        ...

    def ask(self, message: Any, *, deadline: float, lane: Lane = "normal") -> Awaitable[Any]:
        """Send a question and await its answer for up to `deadline` seconds.

        Raises:
            AskTimeout: No answer in time.
            ActorDead: The target is dead, or ended before it answered; at once.
            ActorFailed: The target raised on this question; at once.
            MailboxFull: No room; at once.
            Quarantined: This message has crashed the target twice; at once.
            SelfAsk: The actor asked itself.
            Unreachable: No way to the target's node, and no room to wait for one; at once.
            TooLarge: More than may cross to another node; at once.
            Unreadable: A type that cannot cross to another node, or is unknown there; at once.
        """
        ...


class Terminated(msgspec.Struct, frozen=True):
    """Told, by the system lane, to whoever watched `ref`: it has ended for good.

    Of another node's actor it is `killed` when that node is gone.
    """

    ref: Any
    """The `Ref` that was watched."""
    reason: EndReason


class Timer(Protocol):
    """A message to oneself, later."""

    def cancel(self) -> None:
        """From here on it delivers nothing, even if its message was queued already."""
        ...


class Pipe(Protocol):
    """Work that an actor runs beside its messages."""

    def cancel(self) -> None:
        """End it; no outcome is delivered after this returns."""
        ...

    @property
    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        ...


class Reply(Protocol):
    """The answer to the message in hand, owed until later."""

    @property
    def wanted(self) -> bool:
        """Whether anyone still waits: false after a tell, a deadline, or an answer."""
        ...

    def answer(self, value: Any) -> None:
        """Answer; where nobody waits any more the value becomes a dead letter."""
        ...

    def fail(self, error: Exception) -> None:
        """Raise `error` at the asker."""
        ...


class Context(Protocol):
    """The world as one instance of an actor sees it; of no use once that instance has ended."""

    @property
    def self_ref(self) -> Ref:
        """This actor's own address."""
        ...

    @property
    def parent(self) -> Ref | None:
        """Its supervisor; None at the top."""
        ...

    @property
    def name(self) -> str:
        """Its name among its siblings."""
        ...

    @property
    def path(self) -> str:
        """Where it is in its tree."""
        ...

    @property
    def restarts(self) -> int:
        """How often this actor has been restarted; 0 in the first life."""
        ...

    @property
    def clock(self) -> Clock:
        """The time, real or virtual."""
        ...

    @property
    def random(self) -> random.Random:
        """Randomness of this instance's own; repeatable where the system was given a seed."""
        ...

    def spawn(self, props: Props | Callable[[], Actor], *, name: str | None = None) -> Ref:
        """Start a child and return at once; messages wait for its `on_start`.

        Raises:
            NameTaken: A living child has that name.
        """
        ...

    def stop(self, ref: Ref | None = None) -> None:
        """Stop a local actor for good, or with no ref end oneself after this message.

        One that ends itself is restarted if it is `permanent`.
        """
        ...

    def watch(self, ref: Ref) -> None:
        """Ask for `Terminated(ref)` once it has ended; at once if it has. Ends at a restart."""
        ...

    def unwatch(self, ref: Ref) -> None:
        """Take that back; a `Terminated` already queued is not delivered."""
        ...

    def after(self, delay_s: float, message: Any) -> Timer:
        """Tell oneself `message` in `delay_s` seconds; a full mailbox takes it all the same."""
        ...

    def every(self, period_s: float, message: Any) -> Timer:
        """The same each `period_s`; skips a turn while the last one is still in the mailbox."""
        ...

    async def sleep(self, delay_s: float) -> None:
        """Wait in the system's time, real or virtual; meant for piped work."""
        ...

    def pipe(
        self,
        work: Callable[[], Awaitable[T]] | Awaitable[T],
        *,
        on_done: Callable[[T], Any] | None = None,
        on_error: Callable[[Exception], Any] | None = None,
    ) -> Pipe:
        """Run work beside the mailbox and post its outcome back, as a message, always accepted.

        `on_done` and `on_error` make that message of the result or the exception; without
        `on_done` the result itself is the message (None posts nothing), without `on_error` an
        exception ends this actor, as if raised in `receive`. A restart or the end of the actor
        cancels its pipes, and nothing of them reaches the next instance.
        """
        ...

    async def drain(self) -> None:
        """In `on_stop`: handle outcomes of running pipes by `receive` until all have ended."""
        ...

    def stash(self) -> None:
        """Put the message in hand aside, with its asker; `unstash_all` brings it back.

        Raises:
            StashFull: As many as the mailbox may hold are stashed already.
        """
        ...

    def unstash_all(self) -> None:
        """Put what was stashed in front of the mailbox again, in its order; a restart does too."""
        ...

    def defer_reply(self) -> Reply:
        """Take over the answer to the message in hand: what `receive` returns is not it."""
        ...

    def lookup(self, name: str) -> Ref | None:
        """The living actor registered under that name, or at that path.

        `NAME@NODE` names an actor of another node, by that node's name: None if no such node
        lives; whoever holds the name there when a message arrives is who gets it.
        """
        ...

    def register(self, name: str) -> None:
        """Be found by `lookup(name)` until the end.

        Raises:
            NameTaken: Another living actor is.
        """
        ...
