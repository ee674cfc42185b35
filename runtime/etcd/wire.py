"""What goes over the wire to etcd's JSON gateway and back, as protobuf's JSON has it.

etcd3-py's own codec looks up every field of every message by reflection: 10 ms for a transaction,
on the loop that fires jobs. This one knows the few calls that the coordinator makes.
"""

from base64 import b64encode
from enum import Enum
from typing import Any, Final

import msgspec

UNKNOWN: Final = 2
"""gRPC's code for an error that says nothing else."""
CALLS: Final = frozenset(
    {"/lease/grant", "/kv/lease/revoke", "/kv/put", "/kv/range", "/kv/deleterange", "/kv/txn"}
)
"""etcd3-py's names of the calls that are coded here."""


class Refusal(msgspec.Struct):
    """An error as the gateway tells it: `error` up to 3.5, `message` from 3.4 on."""

    error: str = ""
    message: str = ""
    code: int = UNKNOWN


class Kv(msgspec.Struct):
    """A key as a watch tells it: base64, and numbers as text, as protobuf's JSON has them."""

    key: bytes = b""
    value: bytes = b""
    create_revision: int = 0
    mod_revision: int = 0
    lease: int = 0


class Event(msgspec.Struct):
    """A key put or deleted."""

    kv: Kv
    type: str = "PUT"


class Header(msgspec.Struct):
    """Which cluster answers, and at which revision it is."""

    cluster_id: int = 0
    revision: int = 0


class Told(msgspec.Struct):
    """One answer of a watch."""

    header: Header = msgspec.field(default_factory=Header)
    created: bool = False
    canceled: bool = False
    compact_revision: int = 0
    cancel_reason: str = ""
    events: list[Event] = msgspec.field(default_factory=list)


class Kept(msgspec.Struct):
    """The answer to a keepalive; a TTL of 0 is left out."""

    TTL: int = 0


class KeptLine(msgspec.Struct):
    """The line that a keepalive answers with."""

    result: Kept | None = None
    error: Any = None


class ToldLine(msgspec.Struct):
    """A line of a watch."""

    result: Told | None = None
    error: Any = None


class Found(msgspec.Struct):
    """The answer to a range."""

    kvs: list[Kv] = msgspec.field(default_factory=list)


class Response(msgspec.Struct):
    """What one operation of a transaction did; the coordinator asks for ranges only."""

    response_range: Found | None = None


class Answer(msgspec.Struct):
    """The answer to any of `CALLS`; what does not belong to the call keeps its default."""

    header: Header = msgspec.field(default_factory=Header)
    ID: int = 0
    TTL: int = 0
    kvs: list[Kv] = msgspec.field(default_factory=list)
    succeeded: bool = False
    responses: list[Response] = msgspec.field(default_factory=list)


def encoded(data: Any) -> Any:
    """The body of a call: bytes in base64, enumerations by value, and nothing that is None."""
    if isinstance(data, dict):
        return {key: encoded(value) for key, value in data.items() if value is not None}
    if isinstance(data, list):
        return [encoded(value) for value in data]
    if isinstance(data, bytes):
        return b64encode(data).decode()
    return data.value if isinstance(data, Enum) else data


def answer_of(data: Any) -> Answer:
    """Read an answer.

    Raises:
        msgspec.ValidationError: It is not etcd's.
    """
    return msgspec.convert(data, Answer, strict=False)
