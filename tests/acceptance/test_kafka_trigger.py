"""A record on a topic runs a job on a cluster as users run it, and a node alone refuses the job."""

from pathlib import Path

import anyio
import httpx
import msgspec
import pytest

from runtime.kafka.client import KafkaSettings, new_producer
from runtime.kafka.topics import Topic, create_topics
from tests.support.cluster import cluster
from tests.support.folders import walkable_folder
from tests.support.node import run

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]

WITHIN_S = 60.0
JOBS = """
jobs:
  - job_id: paid
    command: echo "$RUNTIME_INPUT"
    overlap: allow
    on: {kafka: {topic: TOPIC}, filter: {state: paid}}
"""
ENDED = "SELECT state, input FROM execution_history WHERE job_id = 'paid' ORDER BY id"


async def test_records_run_a_job_over_the_death_of_the_node_that_read_them(servers):
    settings = KafkaSettings(bootstrap_servers=(servers.kafka.bootstrap,))
    with walkable_folder() as folder:
        async with cluster(folder, servers) as house:
            topic = f"{house.env['RUNTIME_CLUSTER__NAME']}.orders"
            await create_topics(settings, Topic(name=topic, partitions=2, retention_s=3600))
            a, b = house.up("a", "b")
            house.apply(a, JOBS.replace("TOPIC", topic))
            producer = new_producer(settings)
            await producer.start()
            try:
                for n in range(40):
                    if n == 20:
                        await ended(house, 20)
                        a.kill()
                    state = b'{"state": "paid", "n": %d}' % n
                    await producer.send_and_wait(topic, state, partition=n % 2)
                    await producer.send_and_wait(topic, b'{"state": "open"}', partition=n % 2)
            finally:
                await producer.stop()
            rows = await ended(house, 40)
            assert {row["state"] for row in rows} == {"succeeded"}
            values = [msgspec.json.decode(row["input"])["value"]["n"] for row in rows]
            assert sorted(values) == list(range(40))
            metrics = await anyio.to_thread.run_sync(_metrics, b)
            assert 'tickwright_kafka_triggers_total{fate="triggered"}' in metrics


def _metrics(node) -> str:
    return httpx.get(f"{node.url}/metrics").text


async def ended(house, count: int):
    rows = []
    with anyio.move_on_after(WITHIN_S):
        while len(rows) < count:
            rows = await house.rows(ENDED)
            await anyio.sleep(0.05)
    assert len(rows) == count, "\n".join(node.story() for node in house.nodes.values())
    return rows


async def test_a_file_with_such_a_job_is_right_and_a_node_alone_will_not_start_on_it():
    with walkable_folder() as folder:
        file = Path(folder) / "jobs.yaml"
        file.write_text(JOBS)
        run("check", str(file)).ok()
        refused = run(
            "start", "--jobs", str(file), "--data-dir", str(folder / "data"), "--port", "0"
        )
        assert refused.code == 1, refused
        assert "on[0].kafka: this node has no Kafka" in refused.err
