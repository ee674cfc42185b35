"""Inboxes in memory: connects the remoting of several systems; loses, doubles, delays at will."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from protocols.envelopes import Envelope
from protocols.ports.transport import Inbox, TransportCounts
from runtime.kernel.testkit.virtual import NodeTime

if TYPE_CHECKING:
    from runtime.kernel.testkit.node import TestSystem

AS_IT_IS = (0.0,)
_ENVELOPE = msgspec.msgpack.Decoder(Envelope)

WirePlan = Callable[[Envelope], Sequence[float]]
"""Seconds of delay for each copy of an envelope: `()` loses it, `(0.0, 0.0)` doubles it."""


class Wire:
    """What lies between the nodes of one test.

    wire = Wire()
    a = Remoting(kit.main, node=1, name="a", peers=peers, transport=wire.end("a", kit.main))
    wire.plan = lambda envelope: () if envelope.kind == "answer" else (0.0,)
    """

    def __init__(self) -> None:
        self.plan: WirePlan = lambda _: AS_IT_IS
        self.carried: Counter[str] = Counter()
        """Copies handed over, by kind of envelope."""
        self._ends: dict[str, WireEnd] = {}
        self._loop = asyncio.get_running_loop()

    def end(self, name: str, system: "TestSystem") -> "WireEnd":
        """The end of the node of that name; what comes while it is paused is held."""
        end = self._ends[name] = WireEnd(self, system.time)
        return end

    def carry(self, name: str, record: bytes) -> bool:
        """Take a record for a node, as the plan has it; false if there is no such inbox."""
        end = self._ends.get(name)
        if end is None:
            return False
        envelope = _ENVELOPE.decode(record)
        for delay_s in self.plan(envelope):
            self.carried[envelope.kind] += 1
            if delay_s > 0:
                end.time.call_later(delay_s, end.hand_over, record)
            else:
                self._loop.call_soon(end.time.run, partial(end.hand_over, record))
        return True


class WireEnd:
    """The `Transport` of one node: what it sends, and its inbox."""

    def __init__(self, wire: Wire, time: NodeTime) -> None:
        self._wire = wire
        self.time = time
        self._inbox: Inbox | None = None
        self.record_bytes_max = 1 << 20
        self.away: str | None = None
        self.full = False
        """While it is, nothing is taken."""
        self._counts = {"sent": 0, "received": 0, "rejected": 0, "lost": 0}
        self.forgotten: list[str] = []

    def send(self, node: str, record: bytes, *, deadline_ns: int) -> bool:
        """Take a record; see the port."""
        del deadline_ns  # nothing waits here
        if self.full:
            self._counts["rejected"] += 1
            return False
        self._counts["sent" if self._wire.carry(node, record) else "lost"] += 1
        return True

    def forget(self, node: str) -> None:
        """No node of that name lives any more."""
        self.forgotten.append(node)

    def listen(self, inbox: Inbox) -> None:
        """Hand what comes to `inbox`."""
        self._inbox = inbox

    def hand_over(self, record: bytes) -> None:
        """One record has come, from a node or from a test that makes one up."""
        self._counts["received"] += 1
        if self._inbox is not None:
            self._inbox(record)

    def counts(self) -> TransportCounts:
        """What it has done so far."""
        counts: dict[str, Any] = self._counts
        return TransportCounts(**counts)
