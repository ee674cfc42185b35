"""What crosses between nodes around every message: who, to whom, in which order, until when.

An envelope is a msgpack array that only grows at its end, so that a node of another release reads
what it knows and leaves the rest. `version` is the oldest layout that reads it right: it is
raised when a field changes its meaning, never for a field more.
"""

from typing import Final, Literal, TypeAlias

import msgspec

ENVELOPE_VERSION: Final = 1
"""The layout this release writes, and the newest that it reads."""

Kind: TypeAlias = Literal[
    "tell", "put", "ask", "answer", "failure", "watch", "unwatch", "terminated"
]
"""`put` is a tell whose sender waits for room and hears the outcome, as an `answer` or `failure`.

`failure` answers an ask or a put: its `type` names the error of `protocols.delivery`, its payload
is the text. `terminated` answers a watch: its payload is the `EndReason`.
"""

REF_EXTENSION: Final = 1
"""The msgpack extension type that a `Ref` inside a message crosses as; its data a `RefData`."""


class Envelope(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """One record of a node's inbox. Fields are never removed or moved; new ones go to the end."""

    version: int = ENVELOPE_VERSION
    kind: Kind
    sender: int
    """Incarnation of the node that sent it, as PostgreSQL gave it."""
    sender_name: str
    """That node's name: where an answer goes, also before the peers list names it."""
    session: int
    """Which run of the sender's transport; grows, and its sequence starts anew."""
    sequence: int
    """Grows with each envelope of this session, to whichever node."""
    to: int
    """Incarnation of the node it is for; a successor of the same name leaves it."""
    target: str = ""
    """The actor's path (with a leading slash) or registered name."""
    incarnation: int = 0
    """Which holder of that path; 0 for whoever holds it on arrival."""
    correlation: int = 0
    """The question, put or watch that this is about, by the number its asker gave; 0 for none."""
    deadline_ns: int
    """Epoch nanoseconds of the Clock port, after which nobody wants it."""
    urgent: bool = False
    trace: str = ""
    """W3C `traceparent` of what caused it; an answer carries its question's."""
    type: str = ""
    """`module:QualName` of the message's struct, or the name of a builtin."""
    payload: bytes = b""
    """The message in msgpack."""


class RefData(msgspec.Struct, frozen=True, array_like=True):
    """A `Ref` inside a message: good on every node."""

    node: int
    """Incarnation of the node the actor lives on."""
    node_name: str
    path: str
    incarnation: int
    """The actor's; 0 for whoever holds that name."""
