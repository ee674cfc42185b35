"""Records of real topics trigger jobs in a real database: once each, whatever happens between."""

import uuid
from base64 import b64decode
from datetime import datetime, timedelta

import anyio
import pytest
import pytest_asyncio
from aiokafka.admin import NewPartitions

from protocols.errors import UnavailableError
from protocols.messages import Ready
from tests.integration.kafka.reading import House, until
from tests.integration.operations.conftest import world_of

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]


@pytest_asyncio.fixture
async def house(postgres_server, kafka_settings):
    async with world_of(postgres_server) as world:
        made = House(world, kafka_settings, f"test-{uuid.uuid4().hex[:12]}")
        await made.make_topic()
        yield made


async def test_a_record_triggers_one_execution_and_is_its_input(house):
    await house.job("j")
    async with house.reading() as node:
        await house.send({"n": 1.5}, key=b"k", headers=[("h", b"x"), ("h", b"\xff"), ("n", None)])
        await house.until_values("j", [{"n": 1.5}])
        await until(lambda: node.counts.triggered == 1, "it is counted")
    (given,) = await house.inputs("j")
    age = await house.clock() - datetime.fromisoformat(given.pop("timestamp"))
    assert abs(age) < timedelta(minutes=5)
    assert given == {
        "topic": house.topic,
        "partition": 0,
        "offset": 0,
        "key": "k",
        "value": {"n": 1.5},
        "value_as": "json",
        "headers": [
            {"name": "h", "value": "x"},
            {"name": "h", "value": "/w==", "value_as": "base64"},
            {"name": "n", "value": None},
        ],
    }
    assert node.hints.hints == [Ready("default")]
    assert node.states == []


async def test_a_node_that_dies_between_row_and_commit_leaves_one_execution(house):
    await house.job("j")
    kept = anyio.Event()

    async def keep_and_die(subscription, records):
        await dying.triggers.take(subscription, records)
        kept.set()
        await anyio.sleep_forever()

    async with house.reading(keep_and_die) as dying:
        await house.send(1, 2)
        await kept.wait()
    async with house.reading() as node:
        await until(lambda: node.counts.known, "the records came again")
        await house.send(3)
        await house.until_values("j", [1, 2, 3])
    async with house.reading() as node:  # what was committed does not come again
        await house.send(4)
        await house.until_values("j", [1, 2, 3, 4])
        assert node.counts.known == 0


@pytest.mark.parametrize("meanwhile", [True, False])
async def test_a_topic_made_anew_triggers_anew_at_the_same_offsets(house, meanwhile):
    await house.job("j")
    async with house.reading():
        await house.send("a", "b")
        await house.until_values("j", ["a", "b"])
        if meanwhile:
            await house.make_topic_anew()
            await house.send("c", "d", "e")
            await house.until_values("j", ["a", "b", "c", "d", "e"])
    if not meanwhile:
        await house.make_topic_anew()
        await house.send("c", "d", "e")
        async with house.reading():
            await house.until_values("j", ["a", "b", "c", "d", "e"])
    offsets = [given["offset"] for given in await house.inputs("j")]
    assert offsets == [0, 1, 0, 1, 2]


async def test_an_offset_of_the_topic_before_is_no_place_in_this_one(house, monkeypatch):
    await house.job("j")
    monkeypatch.setattr("runtime.kafka.reader._MARK", "tickwright topic before ")
    async with house.reading():
        await house.send("a", "b")
        await house.until_values("j", ["a", "b"])
    monkeypatch.setattr("runtime.kafka.reader._MARK", "tickwright topic ")
    async with house.reading() as node:
        await until(lambda: node.counts.known == 2, "it began at the beginning")


async def test_only_records_with_the_key_and_the_fields_count(house):
    await house.job("all")
    await house.job("key", key="7")
    await house.job("empty", key="")
    await house.job("filter", fields={"order.country": "DE"})
    await house.job("both", key="7", fields={"order.country": "DE"})
    german, french = {"order": {"country": "DE"}}, {"order": {"country": "FR"}}
    async with house.reading():
        await house.send(german, french, key=b"7")
        await house.send(german, b"DE", b"null", key=b"8")
        await house.send(french, key=b"")
        await house.send(french, key=b"\xff7")
        await house.send("last")
        await house.until_values(
            "all", [german, french, german, "DE", None, french, french, "last"]
        )
        await house.until_values("key", [german, french])
        await house.until_values("empty", [french])
        await house.until_values("filter", [german, german])
        await house.until_values("both", [german])


async def test_a_group_is_a_place_in_the_topic_and_each_of_its_jobs_gets_each_record(house):
    for job_id, group in (("a", None), ("b", None), ("c", "one"), ("d", "two"), ("e", "two")):
        await house.job(job_id, group=group)
    wanted = await house.store.subscriptions(house.cluster)
    groups = {f"{house.cluster}.default.{house.topic}", "one", "two"}
    assert {subscription.group for subscription in wanted} == groups
    async with house.reading():
        await house.send(1, 2)
        for job_id in "abcde":
            await house.until_values(job_id, [1, 2])


async def test_records_count_from_the_moment_the_job_names_the_topic(house):
    await house.send("before")
    await anyio.sleep(0.05)  # instants of records are whole milliseconds
    applied = await house.clock()
    await house.job("j", now=applied)
    await house.send("since")
    await house.job("j", now=applied + timedelta(days=1), key=None, fields={"a": 1})
    await house.job("j", now=applied + timedelta(days=1))
    async with house.reading():
        await house.send("later")
        await house.until_values("j", ["since", "later"])


async def test_records_outlast_a_restart_of_kafka(house, kafka_server):
    await house.job("j")
    async with house.reading() as node:
        await house.send("before")
        await house.until_values("j", ["before"])
        await anyio.to_thread.run_sync(kafka_server.restart)
        await house.send("after")
        await house.until_values("j", ["before", "after"])
        await until(lambda: node.states[-1:] in ([], [None]), "all is well")


async def test_what_is_not_json_and_what_is_too_large_stands_in_nobodys_way(house):
    await house.job("j")
    await house.job("f", fields={"a": 1})
    large = b'{"a": 1, "b": "' + b"x" * 400_000 + b'"}'
    odd = [
        b"plain", b"\xff\xfe", b"a\0b", b'{"a": "\\u0000"}', b'{"a": "\\ud800"}', b"[" * 5000,
        b"1e400", b"9" * 5000, b"NaN", b"", None, large, b'{"a": 1e300}',
    ]  # fmt: skip
    async with house.reading() as node:
        await house.send(*odd, key=b"k")
        await house.send({"a": 1}, key=b"\0", headers=[("big", b"\0" * 300_000)])
        await until(lambda: node.counts.records == 14, "all were read")
    given = await house.inputs("j")
    said = [(one["value"], one["value_as"]) for one in given]
    assert said[0] == ("plain", "text")
    assert [b64decode(value) for value, _ in said[1:3]] == odd[1:3]
    assert said[3:10] == [(value.decode(), "text") for value in odd[3:10]]
    assert said[10:13] == [(None, "json"), (None, "omitted"), ({"a": 1e300}, "json")]
    assert (given[11]["value_bytes"], given[11]["offset"]) == (len(large), 11)
    assert (given[13]["value_as"], given[13]["headers"]) == ("omitted", [])
    assert [one["value_as"] for one in await house.inputs("f")] == ["omitted"]
    assert (node.counts.omitted, len(node.omitted)) == (2, 2)


async def test_what_only_the_database_finds_wrong_loses_its_filters_and_nothing_else(
    house, monkeypatch
):
    monkeypatch.setattr("actors.records._is_json", lambda data: True)
    await house.job("j")
    await house.job("f", fields={"a": 1})
    async with house.reading() as node:
        await house.send({"a": 1}, b'{"a": "\\u0000"}', {"a": 1})
        await until(lambda: node.counts.records == 3, "all were read")
    assert await house.values("j") == [{"a": 1}, {"a": "\0"}, {"a": 1}]
    assert await house.values("f") == [{"a": 1}, {"a": 1}]


async def test_a_paused_jobs_records_are_skipped_rows_and_a_disabled_ones_are_nothing(house):
    await house.job("p")
    await house.job("j")
    await house.world.node.fetch("UPDATE jobs SET paused = true WHERE job_id = 'p'")
    async with house.reading():
        await house.send(1)
        await house.until_values("j", [1])
        await house.until_values("p", [1])
    row = await house.world.one("SELECT state, reason FROM all_executions WHERE job_id = 'p'")
    assert row == {"state": "skipped", "reason": "paused"}


async def test_records_wait_for_a_database_that_is_away(house, monkeypatch):
    monkeypatch.setattr("runtime.kafka.reader.PATIENCE_S", 0.5)
    await house.job("j")
    refusals = iter(range(6))

    async def take(subscription, records):
        if next(refusals, None) is not None:
            raise UnavailableError("away")
        await node.triggers.take(subscription, records)

    async with house.reading(take) as node:
        await house.send(1, 2)
        await house.until_values("j", [1, 2])
    assert next(refusals, None) is None


async def test_no_record_is_lost_or_doubled_while_nodes_come_and_go(house):
    async with house.admin() as admin:
        await admin.create_partitions({house.topic: NewPartitions(4)})
    await house.job("j")
    sent = []
    async with house.reading() as first:
        for n in range(20):
            sent.append(n)
            await house.send(n, partition=n % 4)
        async with house.reading() as second:
            await until(lambda: second.states or first.counts.records, "it has begun")
            for n in range(20, 40):
                sent.append(n)
                await house.send(n, partition=n % 4)
            await _all(house, sent)
        for n in range(40, 60):
            sent.append(n)
            await house.send(n, partition=n % 4)
        await _all(house, sent)


async def test_a_topic_that_is_not_there_yet_is_told_and_read_from_its_beginning(house):
    house.topic += ".later"
    await house.job("j")
    async with house.reading() as node:
        await until(lambda: node.states, "it is told")
        assert node.states == [f"topic {house.topic}: there is no topic {house.topic}: make it"]
        await house.make_topic()
        await house.send("first")
        await house.until_values("j", ["first"])
        assert node.states[-1] is None


async def test_what_nobody_wants_any_more_is_read_no_more(house):
    await house.job("j")
    async with house.reading() as node:
        await house.send(1)
        await house.until_values("j", [1])
        node.subscriber.want(frozenset())
        await until(lambda: not node.subscriber.reading, "it has ended")
        await house.send(2)
        node.subscriber.want(await house.store.subscriptions(house.cluster))
        await house.until_values("j", [1, 2])


async def _all(house, sent) -> None:
    with anyio.move_on_after(60):
        while sorted(await house.values("j")) != sent:  # noqa: ASYNC110 - the nodes are elsewhere
            await anyio.sleep(0.05)
        return
    raise AssertionError(await house.values("j"))
