"""What other nodes sent: judged, decoded, and posted to the actors here; nothing is awaited.

Every record is somebody else's word: whatever it holds, it is handled, answered or counted, and
never raises into the poll loop.
"""

from functools import partial
from typing import TYPE_CHECKING, Any, get_args

import msgspec

from protocols.actor import (
    ActorDead,
    AskTimeout,
    DeadReason,
    Delivery,
    EndReason,
    RejectReason,
    TooLarge,
    Unreadable,
)
from protocols.envelopes import ENVELOPE_VERSION, Envelope
from runtime.kernel.mailbox import FULL, give_up, refusal
from runtime.kernel.remote.arrivals import Arrivals
from runtime.kernel.remote.codec import find_struct
from runtime.kernel.remote.pending import error_from, error_to
from runtime.kernel.remote.watches import HeldWatch, HeldWatches
from runtime.kernel.vitals import Vitals

if TYPE_CHECKING:
    import asyncio

    from runtime.kernel.remote.remoting import Remoting

ASK_MAX_S = 86_400.0
"""No deadline from outside holds anything longer."""

PUTS_MAX = 4096
"""Puts of other nodes that wait for room here at most; one more hears `full` at once."""

PUT_WORD_S = 0.1
"""A put waits for room so much less than its sender does, so that `full` is heard in time."""

TERMINATED_S = 30.0
"""The word of an end that has not arrived after so long is asked for again."""

LETTER_BYTES = 1024
"""Bytes kept of a message that could not be read."""

_END_REASONS = frozenset(get_args(EndReason))


class Inbound:
    """Takes the records of one node's inbox."""

    def __init__(self, remoting: "Remoting") -> None:
        self._remoting = remoting
        self._system = remoting.system
        self._codec = remoting.codec
        self._traffic = remoting.traffic
        self._arrivals = Arrivals()
        self._held = HeldWatches(self._tell_end)
        self._decoder = msgspec.msgpack.Decoder(Envelope)
        self._puts = 0
        self._handlers = {
            "tell": self._message,
            "put": self._message,
            "ask": self._message,
            "answer": self._answer,
            "failure": self._failure,
            "watch": self._watch,
            "unwatch": self._unwatch,
            "terminated": self._terminated,
        }

    def receive(self, record: bytes) -> None:
        """Take one record; never raises, never waits."""
        dropped, roster = self._traffic.dropped, self._remoting.roster
        try:
            envelope = self._decoder.decode(record)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            dropped["garbage"] += 1
            return
        sender = envelope.sender
        if envelope.version > ENVELOPE_VERSION:
            dropped["newer"] += 1
        elif envelope.to != self._remoting.node or sender == envelope.to:
            dropped["misdirected"] += 1
        elif roster.is_gone(sender):
            dropped["ghost"] += 1
        else:
            verdict = self._arrivals.judge(sender, envelope.session, envelope.sequence)
            if verdict != "new":
                dropped[verdict] += 1
                return
            roster.hear(sender, envelope.sender_name)
            kind = envelope.type
            known = ":" not in kind or find_struct(kind) is not None
            self._traffic.received[envelope.kind, kind if known else "?"] += 1
            self._handlers[envelope.kind](envelope)

    def node_gone(self, node: int) -> None:
        """Nothing of it is expected any more."""
        self._arrivals.forget(node)
        self._held.node_gone(node)

    # Messages.

    def _message(self, envelope: Envelope) -> None:
        """A tell, a put or an ask: to its actor, or why not to the asker and the dead letters."""
        try:
            message = self._codec.decode(envelope.type, envelope.payload)
        except Unreadable as error:
            self._traffic.dropped["unreadable"] += 1
            rest = msgspec.structs.replace(envelope, payload=envelope.payload[:LETTER_BYTES])
            self._refuse(envelope, rest, "unreadable", error)
            return
        left_s = (envelope.deadline_ns - self._system.clock.now_ns()) / 1e9
        if left_s <= 0:
            self._traffic.dropped["expired"] += 1
            self._system.dead_letters.bury(message, envelope.target, "expired")
            return
        cell = self._find(envelope)
        if cell is None:
            gone = ActorDead(f"nobody is {envelope.target} on {self._remoting.name}")
            self._refuse(envelope, message, "dead", gone)
        elif envelope.kind == "tell":
            cell.ref.tell(message, "urgent" if envelope.urgent else "normal")
        elif envelope.kind == "put":
            self._put(envelope, cell, message, min(left_s, ASK_MAX_S))
        else:
            lane = "urgent" if envelope.urgent else "normal"
            future: Any = cell.ref.ask(message, deadline=min(left_s, ASK_MAX_S), lane=lane)  # type: ignore[arg-type]
            future.add_done_callback(partial(self._answered, envelope))

    def _find(self, envelope: Envelope) -> Vitals | None:
        cell = self._system.registry.find(envelope.target, self._system.root)
        if cell is not None and envelope.incarnation not in (0, cell.ref.incarnation):
            return None
        return cell

    def _refuse(
        self, envelope: Envelope, letter: Any, reason: DeadReason, error: Exception
    ) -> None:
        self._system.dead_letters.bury(letter, envelope.target, reason, error)
        if envelope.kind != "tell":
            self._fail(envelope, error)

    def _answered(self, envelope: Envelope, future: "asyncio.Future[Any]") -> None:
        """The actor has answered, or not: tell the asker."""
        error = ActorDead("the question was dropped") if future.cancelled() else future.exception()
        if isinstance(error, AskTimeout):
            return  # the asker has its own clock
        if error is not None:
            self._fail(envelope, error)
            return
        try:
            name, payload = self._codec.encode(future.result())
        except Unreadable as unreadable:
            self._fail(envelope, Unreadable(f"the answer: {unreadable}"))
            return
        if self._reply(envelope, "answer", name, payload) == "too_large":
            self._fail(envelope, TooLarge("the answer is larger than what may cross"))

    def _fail(self, envelope: Envelope, error: BaseException) -> None:
        name, text = error_to(error)
        self._reply(envelope, "failure", name, text)

    def _reply(
        self, envelope: Envelope, kind: Any, name: str, payload: bytes
    ) -> RejectReason | None:
        refused = self._remoting.send(
            envelope.sender,
            kind,
            envelope.deadline_ns,
            target=envelope.target,
            correlation=envelope.correlation,
            trace=envelope.trace,
            type=name,
            payload=payload,
        )
        if refused is not None and refused != "too_large":
            self._traffic.dropped["unsendable"] += 1
        return refused

    # Puts.

    def _put(self, envelope: Envelope, cell: Vitals, message: Any, left_s: float) -> None:
        """Into the mailbox, or into the queue for room in it."""
        result = FULL if cell.putters else cell.offer(message, "normal", bury=False)
        if result is not FULL or self._puts >= PUTS_MAX:
            self._put_ended(envelope, cell, message, result)
            return
        self._puts += 1
        future = cell.queue_for_room(message)
        wait_s = max(left_s - PUT_WORD_S, left_s / 2)
        timer = self._system.timers.call_later(wait_s, give_up, future)

        def let_in(done: "asyncio.Future[Delivery]") -> None:
            self._puts -= 1
            timer.cancel()
            cell.leave_queue(done, message)
            self._put_ended(envelope, cell, message, done.result())

        future.add_done_callback(let_in)

    def _put_ended(self, envelope: Envelope, cell: Vitals, message: Any, result: Delivery) -> None:
        if result:
            name, payload = self._codec.encode(result.how)  # type: ignore[union-attr]
            self._reply(envelope, "answer", name, payload)
            return
        reason: RejectReason = result.reason  # type: ignore[union-attr]
        cell.bury(message, reason)
        error = ActorDead(f"{cell.path} has ended") if reason == "dead" else refusal(reason)
        self._fail(envelope, error)

    # Answers.

    def _answer(self, envelope: Envelope) -> None:
        def result() -> Any:
            return self._codec.decode(envelope.type, envelope.payload)

        if not self._remoting.pending.settle(envelope.sender, envelope.correlation, result):
            self._traffic.dropped["late"] += 1
            letter = msgspec.structs.replace(envelope, payload=envelope.payload[:LETTER_BYTES])
            self._system.dead_letters.bury(letter, envelope.target, "late_answer")

    def _failure(self, envelope: Envelope) -> None:
        def result() -> Any:
            raise error_from(envelope.type, envelope.payload)

        if not self._remoting.pending.settle(envelope.sender, envelope.correlation, result):
            self._traffic.dropped["late"] += 1

    # Watches.

    def _watch(self, envelope: Envelope) -> None:
        find = partial(self._find, envelope)
        if not self._held.hold(envelope.sender, envelope.correlation, find):
            self._traffic.dropped["too_many_watches"] += 1

    def _unwatch(self, envelope: Envelope) -> None:
        self._held.drop(envelope.sender, envelope.correlation)

    def _tell_end(self, held: HeldWatch) -> None:
        assert held.reason is not None
        until_ns = self._system.clock.now_ns() + round(TERMINATED_S * 1e9)
        refused = self._remoting.send(
            held.node,
            "terminated",
            until_ns,
            correlation=held.correlation,
            payload=held.reason.encode(),
        )
        if refused is not None:
            self._traffic.dropped["unsendable"] += 1

    def _terminated(self, envelope: Envelope) -> None:
        """It has ended; what is heard is taken back there, so that it is not told again."""
        reason: Any = envelope.payload.decode(errors="replace")
        if reason not in _END_REASONS:
            self._traffic.dropped["garbage"] += 1
            return
        self._remoting.watches.terminated(envelope.correlation, reason)
        self._remoting.send(
            envelope.sender, "unwatch", envelope.deadline_ns, correlation=envelope.correlation
        )
