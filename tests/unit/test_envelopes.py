"""Golden bytes: what a node of the first release wrote is read by every later one."""

import msgspec
import pytest

from protocols.envelopes import Envelope, RefData

BASE = {
    "sender": 7,
    "sender_name": "a",
    "session": 1_767_225_600_000_000_000,
    "sequence": 3,
    "to": 9,
    "deadline_ns": 1_767_225_601_000_000_000,
}

GOLDEN = {
    "tell": (
        {
            "target": "dispatcher:default",
            "type": "protocols.messages:Ready",
            "payload": b"\x92\x01",
        },
        (
            "9f01a474656c6c07a161cf18867251edfa00000309b2646973706174636865723a64656661756c74"
            "0000cf188672522994ca00c2a0b870726f746f636f6c732e6d657373616765733a5265616479c402"
            "9201"
        ),
    ),
    "put": (
        {"target": "/pools", "correlation": 4, "type": "str", "payload": b"\xa1x"},
        (
            "9f01a370757407a161cf18867251edfa00000309a62f706f6f6c730004cf188672522994ca00c2a0"
            "a3737472c402a178"
        ),
    ),
    "ask": (
        {
            "target": "/user/audit",
            "incarnation": 12,
            "correlation": 5,
            "urgent": True,
            "trace": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "type": "NoneType",
            "payload": b"\xc0",
        },
        (
            "9f01a361736b07a161cf18867251edfa00000309ab2f757365722f61756469740c05cf1886725229"
            "94ca00c3d93730302d30616637363531393136636434336464383434386562323131633830333139"
            "632d623761643662373136393230333333312d3031a84e6f6e6554797065c401c0"
        ),
    ),
    "answer": (
        {"target": "/user/audit", "correlation": 5, "type": "int", "payload": b"\x2a"},
        (
            "9f01a6616e7377657207a161cf18867251edfa00000309ab2f757365722f61756469740005cf1886"
            "72522994ca00c2a0a3696e74c4012a"
        ),
    ),
    "failure": (
        {"correlation": 5, "type": "ActorDead", "payload": b"it has ended"},
        (
            "9f01a76661696c75726507a161cf18867251edfa00000309a00005cf188672522994ca00c2a0a941"
            "63746f7244656164c40c69742068617320656e646564"
        ),
    ),
    "watch": (
        {"target": "/user/audit", "incarnation": 12, "correlation": 6},
        (
            "9f01a5776174636807a161cf18867251edfa00000309ab2f757365722f61756469740c06cf188672"
            "522994ca00c2a0a0c400"
        ),
    ),
    "unwatch": (
        {"target": "/user/audit", "correlation": 6},
        (
            "9f01a7756e776174636807a161cf18867251edfa00000309ab2f757365722f61756469740006cf18"
            "8672522994ca00c2a0a0c400"
        ),
    ),
    "terminated": (
        {"correlation": 6, "payload": b"stopped"},
        (
            "9f01aa7465726d696e6174656407a161cf18867251edfa00000309a00006cf188672522994ca00c2"
            "a0a0c40773746f70706564"
        ),
    ),
}

REF = "9409a162ab2f757365722f61756469740c"


@pytest.mark.parametrize("kind", GOLDEN)
def test_an_envelope_of_each_kind_is_written_and_read_as_in_the_first_release(kind):
    fields, golden = GOLDEN[kind]
    envelope = Envelope(kind=kind, **BASE, **fields)
    assert msgspec.msgpack.encode(envelope).hex() == golden
    assert msgspec.msgpack.decode(bytes.fromhex(golden), type=Envelope) == envelope


def test_a_ref_is_written_and_read_as_in_the_first_release():
    ref = RefData(9, "b", "/user/audit", 12)
    assert msgspec.msgpack.encode(ref).hex() == REF
    assert msgspec.msgpack.decode(bytes.fromhex(REF), type=RefData) == ref


def test_every_kind_has_its_bytes():
    assert set(GOLDEN) == set(Envelope.__annotations__["kind"].__args__)
