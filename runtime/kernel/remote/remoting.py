"""One node's end of the wire: sends what its actors tell and ask elsewhere, and knows who lives."""

from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from protocols.actor import (
    ActorDead,
    ActorError,
    Delivered,
    Delivery,
    EndReason,
    Lane,
    MailboxFull,
    Quarantined,
    Ref,
    Rejected,
    RejectReason,
    TooLarge,
    Unreachable,
    Unreadable,
)
from protocols.envelopes import Envelope, Kind, RefData
from protocols.ports.transport import Transport
from runtime.kernel.refs import LocalRef
from runtime.kernel.remote.codec import Codec
from runtime.kernel.remote.counters import Traffic
from runtime.kernel.remote.inbound import Inbound
from runtime.kernel.remote.pending import Pending
from runtime.kernel.remote.refs import RemoteRef
from runtime.kernel.remote.roster import Roster
from runtime.kernel.remote.watches import FarTarget, Watches
from runtime.peers import Peer, Peers

if TYPE_CHECKING:
    import asyncio

    from runtime.kernel.system import ActorSystem

SENT = Delivered("sent")

TELL_S = 30.0
"""A tell that has not arrived after so long is of no use any more."""

WATCH_S = 30.0
"""The same for a watch, which is said again anyway."""

_REASONS: Final[dict[type[Exception], RejectReason]] = {
    ActorDead: "dead",
    MailboxFull: "full",
    Quarantined: "quarantined",
    Unreadable: "unreadable",
}
"""What a put that failed is rejected as; anything else is no word from there: `unreachable`."""

ROOM_AGAIN_S = 0.05
"""How often a put looks again for room on the way."""

_ENVELOPE = msgspec.msgpack.Encoder()


class Remoting:
    """Makes the actors of other nodes reachable from one system, and its own from there.

        with Remoting(system, node=7, name="a", peers=peers, transport=transport) as remoting:
            remoting.ref(8, "dispatcher:default").tell(Ready("default"))

    Args:
        system: Whose actors these are; its `lookup("NAME@NODE")` reaches out through this.
        node: This node's incarnation.
        name: This node's name.
        peers: The other living nodes; a node that leaves the list is dead to every ref.
        transport: The way there.
        session: Which run of this node's transport; grows. By default the clock's nanoseconds.
    """

    def __init__(
        self,
        system: "ActorSystem",
        *,
        node: int,
        name: str,
        peers: Peers,
        transport: Transport,
        session: int | None = None,
    ) -> None:
        self.system = system
        self.node = node
        self.name = name
        self.peers = peers
        self.transport = transport
        self.traffic = Traffic()
        self.roster = Roster(own=node, own_name=name, peers=peers, now_s=system.timers.time)
        self.codec = Codec(export=self.export, adopt=self.adopt)
        self.pending = Pending(system)
        self.watches = Watches(
            judge=self._ended, number=self.pending.number, watch=self._watch, unwatch=self._unwatch
        )
        self._session = system.clock.now_ns() if session is None else session
        self._sequence = 0
        """One for all nodes: whom we held for dead may not have heard of it, and remembers."""
        self._inbound = Inbound(self)
        self._unsubscribe = peers.subscribe(self._changed)
        system.far_lookup = self.lookup
        transport.listen(self._inbound.receive)

    def __enter__(self) -> Self:
        """Open since it was made."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Let go of the system; whoever waits for another node is told."""
        self._unsubscribe()
        self.system.far_lookup = None
        self.pending.fail_all(lambda: Unreachable("this node is leaving"))

    # Refs.

    def ref(self, node: int, name: str) -> Ref:
        """The actor of that name, or path, on the node of that incarnation: whoever holds it."""
        if node == self.node:
            found = self.system.lookup(name)
            if found is not None:
                return found
        return RemoteRef(self, node, name, 0)

    def lookup(self, name: str) -> Ref | None:
        """The actor of `NAME@NODE`; None if no such node lives, or it is here and has none."""
        target, _, node = name.rpartition("@")
        if node == self.name:
            return self.system.lookup(target)
        peer = self.peers.by_name(node)
        return None if peer is None or not target else RemoteRef(self, peer.incarnation, target, 0)

    def export(self, ref: Ref) -> RefData:
        """What of a ref crosses to other nodes.

        Raises:
            TypeError: It is no ref of this system's making.
        """
        if isinstance(ref, LocalRef):
            return RefData(self.node, self.name, ref.path, ref.incarnation)
        if isinstance(ref, RemoteRef):
            name = self.roster.last_name_of(ref.node)
            return RefData(ref.node, name, ref.path, ref.incarnation)
        raise TypeError(f"{ref!r} is no ref that another node could use")

    def adopt(self, data: RefData) -> Ref:
        """A ref that works here, of what crossed; of one of our own actors its very ref."""
        if data.node == self.node:
            found = self.system.lookup(data.path)
            if found is not None and data.incarnation in (0, found.incarnation):
                return found
        else:
            self.roster.hear(data.node, data.node_name)
        return RemoteRef(self, data.node, data.path, data.incarnation)

    def believes_in(self, ref: RemoteRef) -> bool:
        """Whether the actor may be alive, as far as is known here."""
        return self._ended(ref) is None

    def _ended(self, ref: RemoteRef) -> EndReason | None:
        if ref.node == self.node:  # only what is no more is named by a remote ref at home
            return "stopped"
        if self.roster.name_of(ref.node) is None:
            return "killed"
        return self.watches.ended(ref)

    # Sending.

    def post(self, node: int | None, name: str, message: Any) -> int:
        """Tell `message` to the actor of that name on one node, or with None on every other.

        Returns how many took it; what was refused is a dead letter, and no error.
        """
        nodes = [peer.incarnation for peer in self.peers.all()] if node is None else [node]
        return sum(bool(self.ref(each, name).tell(message)) for each in nodes)

    def tell(self, ref: RemoteRef, message: Any, lane: Lane) -> Delivery:
        """Send and go on."""
        refused = self._give(ref, "tell", message, self._until(TELL_S), lane=lane)
        return SENT if refused is None else self._bury(ref, message, refused)

    def ask(
        self, ref: RemoteRef, message: Any, deadline_s: float, lane: Lane
    ) -> "asyncio.Future[Any]":
        """Send a question; the future has its answer, or the error."""
        number, future = self.pending.open(ref.node, message, deadline_s)
        until_ns = self._until(deadline_s)
        refused = self._give(ref, "ask", message, until_ns, lane=lane, correlation=number)
        if refused is not None:
            future.set_exception(_error(ref, refused))
        return future

    async def put(self, ref: RemoteRef, message: Any, deadline_s: float) -> Delivery:
        """Send, waiting for room here and there."""
        until_ns = self._until(deadline_s)
        number, future = self.pending.open(ref.node, message, deadline_s)
        try:
            refused = await self._give_when_room(ref, message, until_ns, number)
            if refused is not None:
                return self._bury(ref, message, refused)
            return Delivered(await future)
        except ActorError as error:
            reason = _REASONS.get(type(error), "unreachable")
            if reason in ("dead", "unreachable"):  # the others have buried it there
                return self._bury(ref, message, reason)
            return Rejected(reason)
        finally:
            if not future.cancel() and not future.cancelled():
                future.exception()  # read, also where a cancel or a refusal came first

    async def _give_when_room(
        self, ref: RemoteRef, message: Any, until_ns: int, number: int
    ) -> RejectReason | None:
        """Send a put as soon as the way has room for it; why not, if not by its deadline."""
        while True:
            refused = self._give(ref, "put", message, until_ns, correlation=number)
            if refused not in ("full", "unreachable"):
                return refused
            if until_ns - self.system.clock.now_ns() <= ROOM_AGAIN_S * 1e9:
                return refused
            await self.system.sleep(ROOM_AGAIN_S)

    def _until(self, delay_s: float) -> int:
        return self.system.clock.now_ns() + round(delay_s * 1e9)

    def _give(
        self,
        ref: RemoteRef,
        kind: Kind,
        message: Any,
        deadline_ns: int,
        *,
        lane: Lane = "normal",
        correlation: int = 0,
    ) -> RejectReason | None:
        """Encode and send; why not, if not."""
        refused: RejectReason | None
        if self._ended(ref) is not None:
            refused = "dead"
        else:
            try:
                name, payload = self.codec.encode(message)
            except Unreadable:
                refused = "unreadable"
            else:
                refused = self.send(
                    ref.node,
                    kind,
                    deadline_ns,
                    target=ref.path,
                    incarnation=ref.incarnation,
                    correlation=correlation,
                    urgent=lane == "urgent",
                    type=name,
                    payload=payload,
                )
        if refused is not None:
            self.traffic.refused[refused] += 1
        return refused

    def send(self, node: int, kind: Kind, deadline_ns: int, **fields: Any) -> RejectReason | None:
        """Hand an envelope to the transport, the next in order for that node; why not, if not.

        Args:
            node: Incarnation of the node it is for.
            kind: What it is.
            deadline_ns: Epoch nanoseconds after which it is dropped.
            fields: The rest of `Envelope`.
        """
        name = self.roster.name_of(node)
        if name is None:
            return "dead"
        sequence = self._sequence + 1
        record = _ENVELOPE.encode(
            Envelope(
                kind=kind,
                sender=self.node,
                sender_name=self.name,
                session=self._session,
                sequence=sequence,
                to=node,
                deadline_ns=deadline_ns,
                **fields,
            )
        )
        if len(record) > self.transport.record_bytes_max:
            return "too_large"
        if not self.transport.send(name, record, deadline_ns=deadline_ns):
            return "full" if self.transport.away is None else "unreachable"
        self._sequence = sequence
        self.traffic.sent[kind, fields.get("type", "")] += 1
        return None

    def _bury(self, ref: RemoteRef, message: Any, reason: RejectReason) -> Rejected:
        self.system.dead_letters.bury(message, ref.address, reason)
        return Rejected(reason)

    # Watching, and who lives.

    def _watch(self, target: FarTarget) -> None:
        self._say(target, "watch")

    def _unwatch(self, target: FarTarget) -> None:
        self._say(target, "unwatch")

    def _say(self, target: FarTarget, kind: Kind) -> None:
        refused = self.send(
            target.ref.node,
            kind,
            self._until(WATCH_S),
            target=target.ref.path,
            incarnation=target.ref.incarnation,
            correlation=target.correlation,
        )
        if refused is not None:
            self.traffic.dropped["unsendable"] += 1

    def _changed(self, joined: tuple[Peer, ...], gone: tuple[Peer, ...]) -> None:
        """The peers list is new: what is gone is dead, and watches are said again in time."""
        del joined
        for node, name in self.roster.settle(gone):
            self._inbound.node_gone(node)
            if self.peers.by_name(name) is None:
                self.transport.forget(name)
            self.pending.fail_node(node, lambda name=name: ActorDead(f"node {name} is gone"))  # type: ignore[misc]
            self.watches.node_gone(node)
        self.watches.say_again(self.system.timers.time())


def _error(ref: RemoteRef, reason: RejectReason) -> Exception:
    """The exception an asker gets where a teller gets `Rejected(reason)`."""
    if reason == "dead":
        return ActorDead(f"{ref.address} has ended, or its node has")
    if reason == "full":
        return MailboxFull(f"the way to {ref.address} has no room")
    if reason == "too_large":
        return TooLarge(f"too large a message for {ref.address}")
    if reason == "unreadable":
        return Unreadable(f"a message of a type that cannot cross to {ref.address}")
    return Unreachable(f"no way to {ref.address}")
