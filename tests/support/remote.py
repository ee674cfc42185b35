"""Two nodes on one wire, and messages that cross between them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from protocols.actor import Actor, Ref
from protocols.envelopes import Envelope
from runtime.kernel.remote import Remoting
from runtime.kernel.testkit import TestKit, Wire, WireEnd
from runtime.peers import Peer, Peers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runtime.kernel import ActorSystem

A = Peer(incarnation=1, name="a")
B = Peer(incarnation=2, name="b")


class Note(msgspec.Struct, frozen=True):
    """A message with a bit of everything."""

    text: str
    back: Ref | None = None
    refs: tuple[Ref, ...] = ()
    more: Any = None


class Touchy(msgspec.Struct):
    """A message that refuses to be made of some bytes."""

    number: int

    def __post_init__(self) -> None:
        if self.number < 0:
            raise RuntimeError("no such number")


class Listener(Actor):
    """Writes down what it hears; answers with it, or does as it is told."""

    def __init__(self, heard: list[Any] | None = None, name: str = "listener") -> None:
        self.heard = [] if heard is None else heard
        self.name = name

    async def on_start(self, ctx: Any) -> None:
        if self.name:
            ctx.register(self.name)

    async def receive(self, message: Any, ctx: Any) -> Any:
        self.heard.append(message)
        if message == "crash":
            raise ValueError("crash")
        if message == "who?":
            return ctx.self_ref
        if message == "object":
            return object()
        if message == "later":
            ctx.defer_reply()
            return None
        if message == "out":
            ctx.stop()
        if isinstance(message, Note) and message.back is not None:
            message.back.tell(Note(f"heard {message.text}", back=ctx.self_ref))
        return message


@dataclass
class End:
    """One node of a test."""

    system: ActorSystem
    remoting: Remoting
    peers: Peers
    transport: WireEnd

    @property
    def dropped(self) -> dict[str, int]:
        """What it dropped on the way in."""
        return dict(self.remoting.traffic.dropped)

    @property
    def letters(self) -> list[tuple[Any, str]]:
        """Its dead letters: message and reason."""
        return [(each.message, each.reason) for each in self.system.dead_letters.latest()]


@dataclass
class Pair:
    """Nodes `a` (incarnation 1) and `b` (2), who know each other."""

    kit: TestKit
    wire: Wire
    a: End
    b: End

    def lose_b(self) -> None:
        """`a` reads that `b` is dead."""
        self.a.peers.update([])

    def beat(self) -> None:
        """Both read that nothing has changed."""
        self.a.peers.update([B])
        self.b.peers.update([A])


@asynccontextmanager
async def pair() -> AsyncIterator[Pair]:
    """Two nodes in virtual time."""
    async with TestKit() as kit:
        wire = Wire()
        other = await kit.system("b")
        a = _end(kit.main, wire, A)
        b = _end(other, wire, B)
        both = Pair(kit, wire, a, b)
        both.beat()
        with a.remoting, b.remoting:
            yield both


def _end(system: Any, wire: Wire, who: Peer) -> End:
    peers = Peers()
    transport = wire.end(who.name, system)
    remoting = Remoting(
        system, node=who.incarnation, name=who.name, peers=peers, transport=transport
    )
    return End(system, remoting, peers, transport)


def envelope(**fields: Any) -> bytes:
    """A record from `a` to `b` that nobody but the test has made."""
    given = {
        "kind": "tell",
        "sender": 1,
        "sender_name": "a",
        "session": 1 << 62,
        "sequence": 1,
        "to": 2,
        "target": "listener",
        "deadline_ns": 1 << 62,
        "type": "str",
        "payload": msgspec.msgpack.encode("hello"),
    }
    return msgspec.msgpack.encode(Envelope(**(given | fields)))
