"""Laws of the way between nodes: whatever it does, order holds, and nothing comes twice."""

import asyncio

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.envelopes import Envelope
from runtime.kernel.remote.arrivals import Arrivals
from tests.support.remote import Listener, envelope, pair

FATES = st.lists(
    st.lists(st.sampled_from([0.0, 0.0, 0.1, 0.5, 2.0]), max_size=3).map(tuple), max_size=40
)


@given(fates=FATES)
@settings(deadline=None, max_examples=60)
def test_what_arrives_is_in_order_and_once_whatever_the_way_does(fates):
    async def live():
        async with pair() as nodes:
            heard, left = [], list(fates)
            nodes.b.system.spawn(lambda: Listener(heard))
            nodes.wire.plan = lambda _: left.pop(0)
            ref = nodes.a.remoting.ref(2, "listener")
            for number in range(len(fates)):
                assert ref.tell(number)
                await nodes.kit.advance(0.05)
            await nodes.kit.advance(5)
            assert heard == sorted(set(heard))
            assert set(heard) <= set(range(len(fates)))
            at_once = [n for n, fate in enumerate(fates) if fate and min(fate) == 0.0]
            assert set(at_once) <= set(heard)
            copies = sum(map(len, fates))
            assert nodes.b.dropped.get("repeated", 0) == copies - len(heard)

    asyncio.run(live())


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=300)
def test_garbage_is_counted_and_never_raised(record):
    async def live():
        async with pair() as nodes:
            nodes.b.transport.hand_over(record)
            await nodes.kit.settle()
            assert sum(nodes.b.dropped.values()) == 1

    asyncio.run(live())


FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "kind": st.sampled_from(
            ["tell", "put", "ask", "answer", "failure", "watch", "unwatch", "terminated"]
        ),
        "version": st.integers(0, 3),
        "sender": st.integers(-3, 4),
        "sender_name": st.text(max_size=5),
        "session": st.integers(-(1 << 60), 1 << 62),
        "sequence": st.integers(-2, 5),
        "to": st.integers(0, 3),
        "target": st.one_of(st.text(max_size=10), st.sampled_from(["/", "", "//", "listener/x"])),
        "incarnation": st.integers(-1, 5),
        "correlation": st.integers(-1, 3),
        "deadline_ns": st.sampled_from([-(1 << 63), 0, 1 << 62]),
        "urgent": st.booleans(),
        "type": st.sampled_from(
            ["str", "int", "Ref", "datetime", "nothing", "tests.support.remote:Note", "a:b", ":"]
        ),
        "payload": st.binary(max_size=20),
    },
)


@given(st.lists(FIELDS, max_size=4))
@settings(deadline=None, max_examples=150)
def test_hostile_envelopes_end_nothing(forged):
    async def live():
        async with pair() as nodes:
            heard = []
            nodes.b.system.spawn(lambda: Listener(heard))
            await nodes.kit.settle()
            waiting = nodes.b.remoting.ref(1, "nobody").ask("x", deadline=1)
            for fields in forged:
                nodes.b.transport.hand_over(envelope(**fields))
                await nodes.kit.settle()
            await asyncio.wait([waiting])
            waiting.exception()
            assert nodes.kit.failures == []
            assert nodes.b.system.lookup("listener") is not None

    asyncio.run(live())


@pytest.mark.asyncio
async def test_a_release_that_knows_more_fields_is_read_and_a_newer_layout_is_not():
    async with pair() as nodes:
        heard = []
        nodes.b.system.spawn(lambda: Listener(heard))
        await nodes.kit.settle()
        fields = msgspec.msgpack.decode(envelope())
        nodes.b.transport.hand_over(msgspec.msgpack.encode([*fields, "a field more", 7]))
        newer = msgspec.msgpack.decode(envelope(version=2, sequence=2))
        nodes.b.transport.hand_over(msgspec.msgpack.encode(newer))
        await nodes.kit.settle()
        assert heard == ["hello"]
        assert nodes.b.dropped == {"newer": 1}


@given(st.lists(st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 6)), max_size=60))
def test_arrivals_take_each_number_of_a_session_once_and_never_go_back(records):
    arrivals, taken = Arrivals(), {}
    for sender, session, sequence in records:
        verdict = arrivals.judge(sender, session, sequence)
        last = taken.get(sender, (0, 0))
        assert (verdict == "new") == ((session, sequence) > last)
        if verdict == "new":
            taken[sender] = (session, sequence)


@pytest.mark.asyncio
async def test_a_new_session_of_a_node_begins_at_one_and_its_old_one_is_over():
    async with pair() as nodes:
        heard = []
        nodes.b.system.spawn(lambda: Listener(heard))
        await nodes.kit.settle()
        for session, sequence, word in [(5, 9, "a"), (6, 1, "b"), (5, 10, "c"), (6, 2, "d")]:
            payload = msgspec.msgpack.encode(word)
            nodes.b.transport.hand_over(
                envelope(session=session, sequence=sequence, payload=payload)
            )
        await nodes.kit.settle()
        assert heard == ["a", "b", "d"]
        assert nodes.b.dropped == {"ghost": 1}


def test_the_forged_envelope_is_a_real_one():
    assert msgspec.msgpack.decode(envelope(), type=Envelope).target == "listener"
