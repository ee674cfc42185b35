"""What a record is for the jobs it triggers: an input within its limit, under a key of its own."""

from base64 import b64decode

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from actors.records import read_record
from protocols.executions import INPUT_BYTES_MAX
from protocols.ports.records import Record

TEXTS = st.text().map(str.encode)
DATA = st.none() | st.binary() | TEXTS
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def record(value: bytes | None = None, **fields) -> Record:
    return Record(
        topic="t", topic_id="id", partition=3, offset=7, value=value,
        **{"timestamp_ms": 1_700_000_000_123, **fields},
    )  # fmt: skip


def read(one: Record):
    entry = read_record(one)
    return entry, msgspec.json.decode(entry.input)


@given(DATA, DATA, st.lists(st.tuples(st.text(), DATA), max_size=3), st.integers())
def test_any_record_is_an_input_that_tells_all_of_it(value, key, headers, timestamp_ms):
    one = record(value, key=key, headers=tuple(headers), timestamp_ms=timestamp_ms)
    entry, said = read(one)
    assert entry.idempotency_key == "kafka:id:3:7"
    assert (said["topic"], said["partition"], said["offset"]) == ("t", 3, 7)
    if said["value_as"] == "json" and value is not None:
        assert msgspec.json.decode(value) == said["value"] == msgspec.json.decode(entry.value)
    else:
        assert entry.value is None
        assert plain(said["value"], said["value_as"]) == value
    assert plain(said["key"], said.get("key_as")) == key
    assert "\0" not in (entry.key or "")
    told = [plain(header["value"], header.get("value_as")) for header in said["headers"]]
    assert told == [data for _, data in headers]


def plain(value: str | None, how: str | None) -> bytes | None:
    if value is None:
        return None
    return b64decode(value) if how == "base64" else value.encode()


@given(JSON)
def test_json_that_the_database_keeps_is_given_as_such(value):
    data = msgspec.json.encode(value)
    _, said = read(record(data))
    nul = b"\\u0000" in data.replace(b"\\\\", b"")
    assert said["value_as"] == ("text" if nul else "json")
    assert said["value"] == (data.decode() if nul else msgspec.json.decode(data))


def test_instants_are_text_and_what_is_none_is_null():
    assert read(record())[1]["timestamp"] == "2023-11-14T22:13:20.123000Z"
    assert read(record(timestamp_ms=-1))[1]["timestamp"] is None
    assert read(record(timestamp_ms=1 << 62))[1]["timestamp"] is None


def test_of_what_is_too_large_its_place_is_told():
    large = b"x" * INPUT_BYTES_MAX
    entry, said = read(record(large, key=b"k"))
    assert entry.omitted
    assert (said["value"], said["value_as"], said["value_bytes"]) == (None, "omitted", len(large))
    assert (said["key"], said["offset"], entry.key) == ("k", 7, "k")
    entry, said = read(record(b"1", key=large, headers=(("h", large),)))
    assert len(entry.input) < 1000
    assert (said["key"], said["key_as"], said["headers"]) == (None, "omitted", [])
    assert (entry.key, entry.value) == (large.decode(), "1")
