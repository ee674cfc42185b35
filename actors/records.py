"""Makes executions of Kafka's records: each record triggers each job it matches exactly once.

The rules are pure: what a record is as an input, and which key stands for it. Whoever hands
records over may hand the same ones again, to this node or to another: the keys know them.
"""

from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

import msgspec

from protocols.errors import InvalidError
from protocols.executions import INPUT_BYTES_MAX
from protocols.instants import iso
from protocols.messages import JobsFinished, Ready
from protocols.ports.hints import Hints
from protocols.ports.records import Record, Subscription
from protocols.ports.store import Match, RecordStore, Triggered, TriggerRequest

BATCH_REQUESTS: Final = 1000
BATCH_BYTES: Final = 4 << 20
"""What one statement makes at most."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

ValueAs = Literal["json", "text", "base64", "omitted"]


class Entry(msgspec.Struct, frozen=True):
    """A record, ready to trigger: what filters see of it, the input it makes, and its own key."""

    key: str | None
    value: str | None
    input: bytes
    idempotency_key: str
    omitted: bool = False


class Counts(msgspec.Struct):
    """What became of the records so far; one that triggers two jobs is triggered twice.

    `known` were triggered before, `omitted` lost their value to the limit of an input, `refused`
    were not triggered since somebody else had used their key.
    """

    records: int = 0
    triggered: int = 0
    known: int = 0
    omitted: int = 0
    refused: int = 0


class RecordTriggers:
    """Triggers the jobs that records match; no state but counts.

    Args:
        store: whose triggers they are.
        hints: told of what is ready.
        cluster: the cluster's name.
        now: the Clock port's.
        on_omitted: told of a record whose value was larger than an input may be.
    """

    def __init__(
        self,
        *,
        store: RecordStore,
        hints: Hints,
        cluster: str,
        now: Callable[[], datetime],
        on_omitted: Callable[[Record], None],
    ) -> None:
        self._store = store
        self._hints = hints
        self._cluster = cluster
        self._now = now
        self._on_omitted = on_omitted
        self.counts = Counts()

    async def since(self, subscription: Subscription) -> datetime | None:
        """Since when a job has wanted this topic; records before it trigger nothing.

        Raises:
            UnavailableError: The store is away.
        """
        return await self._store.followed_since(self._cluster, subscription)

    async def take(self, subscription: Subscription, records: Sequence[Record]) -> None:
        """Trigger what these records match; all of it is durable when this returns.

        Raises:
            UnavailableError: The store is away; some of it may be durable.
        """
        entries = [read_record(record) for record in records]
        matches = await self._matches(subscription, entries)
        matched = {match.place for match in matches}
        for place in sorted(matched):
            if entries[place].omitted:
                self.counts.omitted += 1
                self._on_omitted(records[place])
        for batch in _batches(entries, matches):
            for answer in await self._store.trigger(batch, now=self._now()):
                self._count(answer)
        self.counts.records += len(records)

    async def _matches(
        self, subscription: Subscription, entries: Sequence[Entry]
    ) -> Sequence[Match]:
        """The jobs they match; what the store cannot read as JSON is matched by its key alone."""
        keys = [entry.key for entry in entries]
        values = [entry.value for entry in entries]
        match = self._store.match_records
        try:
            return await match(self._cluster, subscription, keys, values)
        except InvalidError:
            found: list[Match] = []
            for place, (key, value) in enumerate(zip(keys, values, strict=True)):
                try:
                    one = await match(self._cluster, subscription, [key], [value])
                except InvalidError:
                    one = await match(self._cluster, subscription, [key], [None])
                found += [msgspec.structs.replace(each, place=place) for each in one]
            return found

    def _count(self, answer: object) -> None:
        if not isinstance(answer, Triggered):
            self.counts.refused += 1  # its job was deleted meanwhile, or the key was taken
        elif answer.known:
            self.counts.known += 1
        else:
            self.counts.triggered += 1
            if answer.state == "blocked":
                self._hints.send(JobsFinished((answer.job_key,)))
            elif answer.state == "scheduled" and answer.pool is not None:
                self._hints.send(Ready(answer.pool))


def read_record(record: Record) -> Entry:
    """What a record is for the jobs it triggers.

    A value that is JSON is given as such, else as text where it is UTF-8, else in base64.
    """
    key, key_as = _text(record.key)
    value, value_as = _value(record.value)
    said: dict[str, Any] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": _instant(record.timestamp_ms),
        "key": key,
        "value": value,
        "value_as": value_as,
        "headers": [_header(name, data) for name, data in record.headers],
    }
    if key_as == "base64":
        said["key_as"] = key_as
    given = msgspec.json.encode(said)
    omitted = len(given) > INPUT_BYTES_MAX
    if omitted:
        said |= {"value": None, "value_as": "omitted", "value_bytes": len(record.value or b"")}
        given = msgspec.json.encode(said)
    if len(given) > INPUT_BYTES_MAX:
        said |= {"key": None, "key_as": "omitted", "headers": []}
        given = msgspec.json.encode(said)
    readable = value_as == "json" and value is not None
    return Entry(
        key=None if key_as == "base64" else key,
        value=bytes(value).decode() if readable else None,
        input=given,
        idempotency_key=f"kafka:{record.topic_id}:{record.partition}:{record.offset}",
        omitted=omitted,
    )


def _value(data: bytes | None) -> tuple[Any, ValueAs]:
    if data is None:
        return None, "json"
    if len(data) <= INPUT_BYTES_MAX and _is_json(data):
        return msgspec.Raw(data), "json"
    return _text(data)


def _is_json(data: bytes) -> bool:
    """Whether it is JSON that PostgreSQL keeps: no NUL, no number beyond a double's range."""
    try:
        decoded = msgspec.json.decode(data)
        return b"\\u0000" not in msgspec.json.encode(decoded).replace(b"\\\\", b"")
    except (ValueError, RecursionError):  # msgspec's own errors are values' errors
        return False


def _text(data: bytes | None) -> tuple[str | None, Literal["text", "base64"]]:
    if data is None:
        return None, "text"
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return b64encode(data).decode(), "base64"
    return (b64encode(data).decode(), "base64") if "\0" in text else (text, "text")


def _header(name: str, data: bytes | None) -> dict[str, str | None]:
    value, value_as = _text(data)
    said = {"name": name.replace("\0", "\N{REPLACEMENT CHARACTER}"), "value": value}
    return said if value_as == "text" else {**said, "value_as": value_as}


def _instant(ms: int) -> str | None:
    """None for one that no calendar has."""
    try:
        return iso(_EPOCH + timedelta(milliseconds=ms)) if ms >= 0 else None
    except OverflowError:
        return None


def _batches(entries: Sequence[Entry], matches: Sequence[Match]) -> Iterator[list[TriggerRequest]]:
    """The requests that the matches stand for, as many at a time as one statement makes."""
    batch: list[TriggerRequest] = []
    size = 0
    for match in matches:
        entry = entries[match.place]
        if batch and (len(batch) >= BATCH_REQUESTS or size + len(entry.input) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(
            TriggerRequest(
                tenant=match.tenant,
                job_key=match.job_key,
                input=entry.input,
                by_event=True,
                key=entry.idempotency_key,
            )
        )
        size += len(entry.input)
    if batch:
        yield batch
