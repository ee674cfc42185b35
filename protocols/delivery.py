"""What becomes of a message: delivered, rejected with a reason, a dead letter, or an error."""

from typing import Any, Literal, TypeAlias

import msgspec

Lane: TypeAlias = Literal["urgent", "normal"]
"""The lanes a sender may choose; the system lane is the kernel's own."""

DeadReason: TypeAlias = Literal[
    "cancelled",
    "coalesced",
    "crashed",
    "dead",
    "dropped",
    "expired",
    "full",
    "late_answer",
    "quarantined",
    "too_large",
    "unhandled",
    "unreachable",
    "unreadable",
]
"""Why a message ended as a dead letter.

`cancelled`: in hand when its actor was cancelled at the end of its grace; `coalesced`: a newer
one with its key took its place; `crashed`: its receive raised; `dead`: its target had ended;
`dropped`: oldest of a full `drop_oldest` mailbox; `expired`: an ask nobody waits for any more;
`full`: no room; `late_answer`: an answer whose asker had gone; `quarantined`: it crashed its
actor twice already; `unhandled`: sent to a supervisor, which handles none. Of another node's
actor: `too_large`: past what may cross; `unreachable`: there was no way to that node and no room
left to wait for one; `unreadable`: of a type that cannot cross, or that is unknown there.
"""

RejectReason: TypeAlias = Literal[
    "full", "dead", "quarantined", "unreachable", "too_large", "unreadable"
]
"""Why a message was not taken; the last three only by an actor of another node."""


class Delivered(msgspec.Struct, frozen=True):
    """The message is in the mailbox; true in a condition.

    `how` is `coalesced` where it took the place of a queued one with the same key, and
    `displaced` where the oldest queued one was dropped for it. `sent` where the target is another
    node's: it is on its way there, and what becomes of it there its sender hears by `ask` or
    `put` only.
    """

    how: Literal["queued", "coalesced", "displaced", "sent"] = "queued"


class Rejected(msgspec.Struct, frozen=True):
    """The message is not in the mailbox and became a dead letter; false in a condition."""

    reason: RejectReason

    def __bool__(self) -> bool:
        return False


Delivery: TypeAlias = Delivered | Rejected


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A message nobody will handle, with the reason and where it was going."""

    message: Any
    target: str
    """Path of the actor."""
    reason: DeadReason
    error: str | None = None
    at_ns: int
    """Epoch nanoseconds of the Clock port."""


class ActorError(Exception):
    """Base of what sending, asking and spawning raise."""


class AskTimeout(ActorError):  # noqa: N818 - the field's name for it
    """No answer came before the deadline; the message may have been handled all the same."""


class ActorDead(ActorError):  # noqa: N818 - the field's name for it
    """The target had ended, or ended before it answered."""


class ActorFailed(ActorError):  # noqa: N818 - the field's name for it
    """The target raised while it handled the question; its exception is the cause."""


class MailboxFull(ActorError):  # noqa: N818 - the field's name for it
    """The target's mailbox had no room, or dropped the question for a newer message."""


class Quarantined(ActorError):  # noqa: N818 - the field's name for it
    """This very message crashed the target twice; it is not delivered again."""


class Unreachable(ActorError):  # noqa: N818 - the field's name for it
    """There is no way to the target's node now, and no room left to wait for one."""


class TooLarge(ActorError):  # noqa: N818 - the field's name for it
    """The message is larger than what may cross to another node."""


class Unreadable(ActorError):  # noqa: N818 - the field's name for it
    """The message is of a type that cannot cross to another node, or is not known there."""


class SelfAsk(ActorError):  # noqa: N818 - the field's name for it
    """An actor asked itself, which could only wait until the deadline."""


class NameTaken(ActorError):  # noqa: N818 - the field's name for it
    """A living sibling has that name."""


class StashFull(ActorError):  # noqa: N818 - the field's name for it
    """The stash holds as many messages as the mailbox may."""


class RestartBudgetExceeded(ActorError):  # noqa: N818 - the field's name for it
    """Children needed more restarts than their supervisor's budget allows."""


class SystemFailed(ActorError):  # noqa: N818 - the field's name for it
    """The topmost supervisor's budget was spent: the whole system has stopped."""
