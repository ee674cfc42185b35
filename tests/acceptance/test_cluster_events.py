"""A cluster tells Kafka what happened to its jobs, whichever node dies, and its dead letters."""

import anyio
import httpx
import pytest

from runtime.kafka.client import KafkaSettings
from tests.integration.kafka.outbox import dead_letters, published
from tests.support.cluster import TOKEN, cluster

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]

JOBS = """
jobs:
  - {job_id: good, command: "true", overlap: allow}
  - {job_id: bad, command: "echo no >&2; exit 3", max_retries: 1, retry: {base: 10ms, jitter: 0}}
"""
TELLS = """
SELECT n.name FROM outbox o JOIN nodes n USING (incarnation)
WHERE o.held_until > clock_timestamp()
"""
BEHIND = "SELECT count(*) FROM events e, outbox o WHERE (e.xid, e.number) > (o.xid, o.number)"


async def test_what_happened_is_told_once_more_nodes_or_fewer(land, servers):
    kafka = KafkaSettings(bootstrap_servers=(servers.kafka.bootstrap,))
    async with cluster(land, servers) as house:
        a, b = house.up("a", "b")
        house.apply(a, JOBS)
        teller = await _until(house, TELLS)
        ran = [_run(a, "good") for _ in range(3)]
        house.nodes[teller].kill()
        name, other = ("a", a) if teller == "b" else ("b", b)
        ran += [_run(other, "good") for _ in range(3)]
        died = _run(other, "bad", code=1)
        assert await _until(house, f"{TELLS} AND n.name <> '{teller}'") == name
        await _until(house, f"SELECT true WHERE ({BEHIND}) = 0")
        records = await published(kafka, house.env["RUNTIME_CLUSTER__NAME"])
        (letter,) = await dead_letters(kafka, house.env["RUNTIME_CLUSTER__NAME"])
        metrics = _metrics(other)
    told = {}
    for _, key, value, _ in records:
        states = told.setdefault(key, {})
        states[value["sequence"]] = (value["state"], value["attempt"], value["node"])
    told = {key: [states[n] for n in sorted(states)] for key, states in told.items()}
    for execution in ran:
        first, last = told[execution["execution_id"]]
        assert first == ("scheduled", 0, None)
        assert last == ("succeeded", 1, execution["node"])
    assert [state[:2] for state in told[died["execution_id"]]] == [
        ("scheduled", 0),
        ("scheduled", 1),
        ("dead", 2),
    ]
    assert {name: letter[name] for name in letter if name not in {"timestamp", "error"}} == {
        "job_id": "bad",
        "execution_id": died["execution_id"],
        "tenant": "default",
        "scheduled_for": died["scheduled_for"],
        "attempt": 2,
        "retry_count": 1,
        "failure_reason": "failed",
        "node": name,
    }
    assert letter["error"] == died["error"]
    assert letter["timestamp"] >= died["finished_at"]
    assert "tickwright_outbox_behind_count" in metrics


def _run(node, job: str, *, code: int = 0):
    """Trigger a job by a node and wait for its end."""
    done = node.run("trigger", job, "--wait", "--json", RUNTIME_TOKEN=TOKEN)
    assert done.code == code, done
    return done.json()


def _metrics(node) -> str:
    return httpx.get(f"{node.url}/metrics").text


async def _until(house, query: str):
    """Return what the books answer as soon as they do."""
    with anyio.fail_after(60):
        while (value := await house.value(query)) is None:  # noqa: ASYNC110 - of the database
            await anyio.sleep(0.05)
    return value
