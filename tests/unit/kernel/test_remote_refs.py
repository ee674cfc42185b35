"""Refs to another node: the contract of a ref, and what the way may do to it, as typed results."""

import asyncio
import sys
from datetime import UTC, datetime

import pytest

from protocols.actor import (
    ActorDead,
    ActorFailed,
    AskTimeout,
    Delivered,
    Mailbox,
    MailboxFull,
    Props,
    Rejected,
    TooLarge,
    Unreachable,
    Unreadable,
)
from runtime.kernel.remote import RemoteRef
from runtime.kernel.remote.codec import find_struct
from runtime.kernel.remote.roster import HEARD_S
from runtime.peers import Peer, Peers
from tests.support.remote import A, B, Listener, Note, Touchy, envelope, pair

EVERYTHING = [
    None,
    True,
    7,
    1.5,
    "text",
    b"bytes",
    [1, [2, None]],
    (1, "two"),
    {"a": {"b": [1.0]}},
    datetime(2026, 3, 29, 1, 30, tzinfo=UTC),
    Note("hello", more=[1, {"x": None}]),
]


@pytest.mark.asyncio
@pytest.mark.parametrize("message", EVERYTHING, ids=lambda message: type(message).__name__)
async def test_a_question_and_its_answer_cross_as_they_are(message):
    async with pair() as nodes:
        nodes.b.system.spawn(Listener)
        answer = await nodes.a.system.look_everywhere("listener@b").ask(message, deadline=5)
        assert answer == message
        assert type(answer) is type(message)


@pytest.mark.asyncio
async def test_an_actor_finds_one_of_another_node_and_hears_back_by_the_ref_it_sent():
    async with pair() as nodes:
        nodes.b.system.spawn(Listener)
        probe = nodes.kit.probe()

        class Asker(Listener):
            async def receive(self, message, ctx):
                ref = ctx.lookup("listener@b")
                ref.tell(Note("one", back=probe.ref, refs=(ctx.self_ref, ref), more=probe.ref))

        nodes.kit.spawn(lambda: Asker(name="asker")).tell("go")
        heard = await probe.expect(Note)
        assert heard.text == "heard one"
        assert isinstance(heard.back, RemoteRef)
        assert heard.back.incarnation == nodes.b.system.lookup("listener").incarnation
        assert await heard.back.ask("again", deadline=5) == "again"


@pytest.mark.asyncio
async def test_a_ref_of_ours_that_comes_back_is_the_very_ref():
    async with pair() as nodes:
        heard = []
        nodes.b.system.spawn(lambda: Listener(heard))
        mine = nodes.kit.spawn(lambda: Listener(name="mine"))
        far = nodes.a.remoting.ref(2, "listener")
        note = await far.ask(Note("x", refs=(mine, far), more=mine), deadline=5)
        assert note.refs[0] is note.more is mine
        assert note.refs[1].incarnation == nodes.b.system.lookup("listener").incarnation
        assert heard[0].refs[1] is nodes.b.system.lookup("listener")
        assert heard[0].refs[0].node == 1


@pytest.mark.asyncio
async def test_lookup_knows_this_node_and_the_living_ones_only():
    async with pair() as nodes:
        mine = nodes.kit.spawn(lambda: Listener(name="mine"))
        await nodes.kit.settle()
        look = nodes.a.system.look_everywhere
        assert look("mine") is mine
        assert look("mine@a") is mine
        assert look("nobody@a") is None
        assert look("mine@c") is None
        assert look("@b") is None
        assert look("/some/path@b").path == "/some/path"
        nodes.lose_b()
        assert look("mine@b") is None


@pytest.mark.asyncio
async def test_who_is_not_there_fails_a_question_at_once_and_makes_a_dead_letter_there():
    async with pair() as nodes:
        ref = nodes.a.remoting.ref(2, "nobody")
        with pytest.raises(ActorDead, match="nobody"):
            await ref.ask("anyone?", deadline=60)
        assert nodes.kit.clock.monotonic() == 0
        assert ref.tell("hello") == Delivered("sent")
        assert await ref.put("hello", deadline=60) == Rejected("dead")
        await nodes.kit.settle()
        assert [reason for _, reason in nodes.b.letters] == ["dead"] * 3


@pytest.mark.asyncio
async def test_a_ref_means_that_actor_and_not_its_successor():
    async with pair() as nodes:
        first = nodes.b.system.spawn(Listener, name="x")
        ref = await nodes.a.remoting.ref(2, "listener").ask("who?", deadline=5)
        await nodes.b.system.stop_actor(first)
        nodes.b.system.spawn(Listener, name="x")
        with pytest.raises(ActorDead):
            await ref.ask("you?", deadline=5)
        assert await nodes.a.remoting.ref(2, "listener").ask("you?", deadline=5) == "you?"


@pytest.mark.asyncio
async def test_a_crash_there_is_a_failure_here_with_its_text():
    async with pair() as nodes:
        nodes.b.system.spawn(Props(factory=Listener, restart="temporary"))
        with pytest.raises(ActorFailed, match="ValueError: crash"):
            await nodes.a.remoting.ref(2, "listener").ask("crash", deadline=60)
        assert nodes.kit.clock.monotonic() == 0


@pytest.mark.asyncio
async def test_a_full_mailbox_there_is_told_to_who_asks_and_waited_for_by_who_puts():
    async with pair() as nodes:
        gate, heard = asyncio.Event(), []

        class Slow(Listener):
            async def receive(self, message, ctx):
                await gate.wait()
                self.heard.append(message)

        nodes.b.system.spawn(Props(factory=lambda: Slow(heard), mailbox=Mailbox(capacity=2)))
        ref = nodes.a.remoting.ref(2, "listener")
        for number in range(3):
            ref.tell(number)
            await nodes.kit.settle()
        with pytest.raises(MailboxFull):
            await ref.ask("?", deadline=60)
        assert await ref.put("early", deadline=2) == Rejected("full")
        assert nodes.kit.clock.monotonic() == pytest.approx(1.9, abs=0.01)
        nodes.a.system.timers.call_later(1, gate.set)
        assert await ref.put("late", deadline=5) == Delivered("queued")
        await nodes.kit.settle()
        assert heard == [0, 1, 2, "late"]
        assert ("early", "full") in nodes.b.letters


@pytest.mark.asyncio
async def test_a_lost_question_and_a_lost_answer_both_time_out():
    async with pair() as nodes:
        heard = []
        nodes.b.system.spawn(lambda: Listener(heard))
        ref = nodes.a.remoting.ref(2, "listener")
        nodes.wire.plan = lambda envelope: () if envelope.kind == "ask" else (0.0,)
        with pytest.raises(AskTimeout):
            await ref.ask("one", deadline=2)
        nodes.wire.plan = lambda envelope: () if envelope.kind == "answer" else (0.0,)
        with pytest.raises(AskTimeout):
            await ref.ask("two", deadline=3)
        assert await ref.put("three", deadline=1) == Rejected("unreachable")
        assert nodes.kit.clock.monotonic() == pytest.approx(6, abs=0.01)
        assert heard == ["two", "three"]
        await nodes.kit.settle()
        assert len(nodes.a.remoting.pending) == 0


@pytest.mark.asyncio
async def test_an_answer_after_the_deadline_is_a_dead_letter():
    async with pair() as nodes:
        nodes.b.system.spawn(Listener)
        nodes.wire.plan = lambda envelope: (5.0,) if envelope.kind == "answer" else (0.0,)
        with pytest.raises(AskTimeout):
            await nodes.a.remoting.ref(2, "listener").ask("slow", deadline=2)
        await nodes.kit.advance(5)
        assert [reason for _, reason in nodes.a.letters] == ["late_answer"]
        assert nodes.a.dropped == {"late": 1}


@pytest.mark.asyncio
async def test_what_arrives_after_its_deadline_is_not_handled():
    async with pair() as nodes:
        heard = []
        nodes.b.system.spawn(lambda: Listener(heard))
        nodes.wire.plan = lambda _: (3.0,)
        with pytest.raises(AskTimeout):
            await nodes.a.remoting.ref(2, "listener").ask("old", deadline=2)
        await nodes.kit.advance(3)
        assert heard == []
        assert nodes.b.letters == [("old", "expired")]
        assert nodes.b.dropped == {"expired": 1}


@pytest.mark.asyncio
async def test_the_urgent_lane_is_kept():
    async with pair() as nodes:
        gate, heard = asyncio.Event(), []

        class Slow(Listener):
            async def receive(self, message, ctx):
                await gate.wait()
                self.heard.append(message)

        nodes.b.system.spawn(lambda: Slow(heard))
        ref = nodes.a.remoting.ref(2, "listener")
        for number in range(3):
            ref.tell(number)
            await nodes.kit.settle()
        ref.tell("now", lane="urgent")
        await nodes.kit.settle()
        gate.set()
        await nodes.kit.settle()
        assert heard == [0, "now", 1, 2]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("away", "reason", "error"),
    [(None, "full", MailboxFull), ("kafka: gone", "unreachable", Unreachable)],
)
async def test_no_room_on_the_way_is_a_typed_result(away, reason, error):
    async with pair() as nodes:
        nodes.b.system.spawn(Listener)
        ref = nodes.a.remoting.ref(2, "listener")
        nodes.a.transport.full, nodes.a.transport.away = True, away
        assert ref.tell("x") == Rejected(reason)
        assert nodes.a.letters == [("x", reason)]
        with pytest.raises(error):
            await ref.ask("x", deadline=5)
        assert nodes.kit.clock.monotonic() == 0
        assert await ref.put("x", deadline=1) == Rejected(reason)
        nodes.kit.clock.call_later(1, lambda: setattr(nodes.a.transport, "full", False))
        assert await ref.put("x", deadline=5) == Delivered("queued")


@pytest.mark.asyncio
async def test_what_is_too_large_is_refused_here_and_a_too_large_answer_is_said():
    async with pair() as nodes:
        nodes.b.system.spawn(Listener)
        ref = nodes.a.remoting.ref(2, "listener")
        nodes.a.transport.record_bytes_max = 1000
        assert ref.tell("x" * 2000) == Rejected("too_large")
        with pytest.raises(TooLarge):
            await ref.ask("x" * 2000, deadline=5)
        nodes.a.transport.record_bytes_max = 1 << 20
        nodes.b.transport.record_bytes_max = 1000
        with pytest.raises(TooLarge, match="answer"):
            await ref.ask("x" * 2000, deadline=5)


class Local:
    """A class that no message may be of."""


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "message",
    [Local(), Note("x", more=Local()), [Note("x")], {"a": {1, 2}}, 1 << 70, datetime(2026, 1, 1)],  # noqa: DTZ001
    ids=["object", "object in a field", "struct in a list", "set", "huge", "naive"],
)
async def test_what_cannot_cross_is_refused_here(message):
    async with pair() as nodes:
        nodes.b.system.spawn(Listener)
        ref = nodes.a.remoting.ref(2, "listener")
        assert ref.tell(message) == Rejected("unreadable")
        with pytest.raises(Unreadable):
            await ref.ask(message, deadline=5)
        assert nodes.wire.carried == {}


@pytest.mark.asyncio
async def test_an_answer_that_cannot_cross_is_said():
    async with pair() as nodes:
        nodes.b.system.spawn(Listener)
        with pytest.raises(Unreadable, match="the answer"):
            await nodes.a.remoting.ref(2, "listener").ask("object", deadline=5)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "name",
    ["antigravity:Message", "os:system", "nowhere", "tests.support.remote:Listener",
     "tests.support.remote:Nothing", "sys:modules.os", ":", "a:b.c", "tests.support.remote:Note.x"],
)  # fmt: skip
async def test_a_name_from_outside_imports_nothing_and_finds_messages_only(name):
    async with pair() as nodes:
        heard = []
        nodes.b.system.spawn(lambda: Listener(heard))
        before = set(sys.modules)
        nodes.b.transport.hand_over(envelope(type=name))
        nodes.b.transport.hand_over(envelope(type=name, kind="ask", correlation=5, sequence=2))
        await nodes.kit.settle()
        assert heard == []
        assert nodes.b.dropped == {"unreadable": 2}
        assert [reason for _, reason in nodes.b.letters] == ["unreadable"] * 2
        assert set(sys.modules) == before
        assert nodes.wire.carried == {"failure": 1}


@pytest.mark.asyncio
async def test_a_message_that_its_own_class_refuses_is_unreadable():
    async with pair() as nodes:
        nodes.b.system.spawn(Listener)
        bad = Touchy(1)
        bad.number = -1
        with pytest.raises(Unreadable, match="no such number"):
            await nodes.a.remoting.ref(2, "listener").ask(bad, deadline=5)


@pytest.mark.asyncio
async def test_a_dead_node_fails_what_waits_for_it_at_once():
    async with pair() as nodes:
        nodes.b.system.spawn(Listener)
        ref = nodes.a.remoting.ref(2, "listener")
        future = ref.ask("later", deadline=60)
        assert ref.alive
        await nodes.kit.settle()
        nodes.lose_b()
        with pytest.raises(ActorDead, match="node b is gone"):
            await future
        assert nodes.kit.clock.monotonic() == 0
        assert not ref.alive
        assert ref.tell("x") == Rejected("dead")
        assert await ref.put("x", deadline=5) == Rejected("dead")
        with pytest.raises(ActorDead):
            await ref.ask("x", deadline=5)
        assert nodes.a.transport.forgotten == ["b"]


@pytest.mark.asyncio
async def test_a_dead_node_is_not_believed_any_more():
    async with pair() as nodes:
        heard = []
        nodes.b.system.spawn(lambda: Listener(heard))
        ref = nodes.a.remoting.ref(2, "listener")
        assert await ref.ask("one", deadline=5) == "one"
        nodes.b.peers.update([])
        ref.tell("two")
        await nodes.kit.settle()
        assert heard == ["one"]
        assert nodes.b.dropped == {"ghost": 1}


@pytest.mark.asyncio
async def test_a_node_that_was_held_for_dead_by_one_side_only_is_heard_again():
    """After an outage whoever beats first sees nobody else alive; the others saw no such thing."""
    async with pair() as nodes:
        heard = []
        nodes.b.system.spawn(lambda: Listener(heard))
        for number in range(3):
            nodes.a.remoting.ref(2, "listener").tell(number)
        await nodes.kit.settle()
        living = nodes.a.peers.all()
        nodes.a.peers.update([])
        nodes.a.peers.update(living)
        nodes.a.remoting.ref(2, "listener").tell("again")
        await nodes.kit.settle()
        assert heard == [0, 1, 2, "again"]
        assert nodes.b.dropped == {}


@pytest.mark.asyncio
async def test_a_successor_of_the_same_name_leaves_what_was_for_another():
    async with pair() as nodes:
        heard = []
        nodes.b.system.spawn(lambda: Listener(heard))
        nodes.b.transport.hand_over(envelope(to=1000))
        await nodes.kit.settle()
        assert heard == []
        assert nodes.b.dropped == {"misdirected": 1}


@pytest.mark.asyncio
async def test_a_newcomer_is_answered_before_the_list_has_it_and_not_believed_in_for_ever():
    async with pair() as nodes:
        nodes.b.system.spawn(Listener)
        await nodes.kit.settle()
        newcomer = Peer(incarnation=3, name="a")
        nodes.b.transport.hand_over(envelope(sender=3, sender_name="a", kind="ask", correlation=9))
        await nodes.kit.settle()
        assert nodes.wire.carried == {"answer": 1}
        back = nodes.b.remoting.ref(3, "x")
        assert back.alive
        nodes.b.peers.update([newcomer])
        await nodes.kit.advance(HEARD_S * 2)
        nodes.b.peers.update([newcomer])
        assert back.alive
        nodes.b.transport.hand_over(envelope(sender=4, sender_name="c"))
        assert nodes.b.remoting.ref(4, "x").alive
        await nodes.kit.advance(HEARD_S)
        nodes.b.peers.update([newcomer])
        assert not nodes.b.remoting.ref(4, "x").alive


@pytest.mark.asyncio
async def test_a_hint_reaches_every_peer_and_is_counted_by_kind():
    async with pair() as nodes:
        heard = []
        nodes.b.system.spawn(lambda: Listener(heard))
        assert nodes.a.remoting.post(None, "listener", Note("hint")) == 1
        assert nodes.a.remoting.post(2, "listener", Note("hint")) == 1
        assert nodes.a.remoting.post(77, "listener", Note("hint")) == 0
        await nodes.kit.settle()
        assert heard == [Note("hint")] * 2
        key = ("tell", "tests.support.remote:Note")
        assert nodes.a.remoting.traffic.sent == {key: 2}
        assert nodes.b.remoting.traffic.received == {key: 2}
        assert nodes.a.remoting.traffic.refused == {"dead": 1}


@pytest.mark.asyncio
async def test_leaving_ends_what_waits():
    async with pair() as nodes:
        nodes.b.system.spawn(Listener)
        future = nodes.a.remoting.ref(2, "listener").ask("later", deadline=60)
        nodes.a.remoting.close()
        with pytest.raises(Unreachable, match="leaving"):
            await future
        assert nodes.a.system.look_everywhere("listener@b") is None


@pytest.mark.asyncio
async def test_an_asker_that_is_cancelled_leaves_no_entry():
    async with pair() as nodes:
        nodes.b.system.spawn(Listener)
        future = nodes.a.remoting.ref(2, "listener").ask("later", deadline=60)
        future.cancel()
        await nodes.kit.settle()
        assert len(nodes.a.remoting.pending) == 0


@pytest.mark.asyncio
async def test_a_put_that_is_cancelled_or_whose_node_dies_while_it_waits_leaves_nothing():
    async with pair() as nodes:
        ref = nodes.a.remoting.ref(2, "listener")
        nodes.a.transport.full = True
        async with asyncio.TaskGroup() as group:
            cancelled = group.create_task(ref.put("x", deadline=60))
            dying = group.create_task(ref.put("y", deadline=60))
            await nodes.kit.settle()
            cancelled.cancel()
            await nodes.kit.settle()
            assert len(nodes.a.remoting.pending) == 1
            nodes.lose_b()
            await nodes.kit.advance(1)
        assert dying.result() == Rejected("dead")
        assert len(nodes.a.remoting.pending) == 0


def test_a_name_finds_structs_and_nothing_else():
    assert find_struct("tests.support.remote:Note") is Note
    for name in ("datetime:date", "tests.support.remote:Listener", "builtins:int", "sys:path"):
        assert find_struct(name) is None


def test_peers_tell_who_joined_and_who_is_gone():
    peers, heard = Peers(), []
    end = peers.subscribe(lambda joined, gone: heard.append((joined, gone)))
    peers.update([A])
    peers.update([A, B])
    peers.update([B])
    assert heard == [((A,), ()), ((B,), ()), ((), (A,))]
    newer = Peer(incarnation=9, name="b", pools={"default": (4, 1)})
    peers.update([B, newer])
    assert peers.by_name("b") is newer
    assert peers.get(2) is B
    assert peers.all() == (B, newer)
    end()
    peers.update([])
    assert len(heard) == 4
    assert peers.by_name("b") is None
