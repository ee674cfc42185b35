"""The house over HTTP: health, metrics, nodes, actors, the audit trail, pausing, the document."""

import re
from email.utils import parsedate_to_datetime

import anyio
import pytest

from protocols.messages import SchedulesChanged

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]


async def test_a_node_is_alive_before_it_is_ready(site):
    assert (await site.http.get("/health/live")).json() == {"alive": True}
    starting = await site.http.get("/health/ready")
    assert (starting.status_code, starting.json()["ready"]) == (503, False)
    site.health.begin()
    ready = await site.http.get("/health/ready")
    assert (ready.status_code, ready.json()["reasons"]) == (200, [])
    site.health.trouble("database", "away")
    assert (await site.http.get("/health/ready")).status_code == 503


async def test_metrics_are_prometheus_text_with_units_in_their_names(site):
    site.health.begin()
    answer = await site.http.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    text = answer.text
    names = re.findall(r"^# TYPE (\S+) \S+$", text, re.MULTILINE)
    assert len(names) > 15
    odd = [n for n in names if not n.endswith(("_total", "_seconds", "_bytes", "_count"))]
    assert odd == []
    assert 'tickwright_attempts_ended_total{pool="default",state="succeeded"} 2.0' in text
    assert "tickwright_ready_count 1.0" in text
    assert 'tickwright_leadership_epoch_count{leadership="0"} 0.0' in text
    documented = (site.folder / "docs" / "api.md").read_text()
    assert [name for name in names if name not in documented] == []


async def test_answers_tell_the_time_of_their_day(site):
    first = parsedate_to_datetime((await site.http.get("/health/live")).headers["Date"])
    with anyio.fail_after(20):
        later = first
        while later == first:
            later = parsedate_to_datetime((await site.http.get("/health/live")).headers["Date"])
    assert later > first


async def test_actors_are_shown_as_the_tree_that_lives(site):
    tree = await site.get("actors")
    assert {"name", "path", "state", "depth", "restarts", "children"} <= tree.keys()


async def test_nodes_are_listed(site):
    await site.world.rows(
        "INSERT INTO nodes (name, url, pid, host, version, started_at, last_beat_at)"
        " VALUES ('n', 'http://x', 7, 'h', '0.1', '2026-12-01Z', '2026-12-01Z')"
    )
    (node,) = (await site.get("nodes?limit=0"))["items"]
    assert (node["name"], node["pools"], node["leads"]) == ("n", {}, [])


async def test_the_house_is_paused_with_a_reason_and_resumed(site):
    paused = await site.post("pause", {"reason": "an incident"}, status=200)
    assert paused == {"paused": True, "reason": "an incident"}
    stats = await site.get("stats")
    assert (stats["paused"], stats["paused_reason"]) == (True, "an incident")
    await site.post("resume", {"reason": "over"}, status=200)
    assert (await site.get("stats"))["paused"] is False
    assert SchedulesChanged() in site.hints.hints
    rows = (await site.get("audit"))["items"]
    assert [(row["action"], row["detail"]) for row in rows] == [
        ("resume --all", {"reason": "over"}),
        ("pause --all", {"reason": "an incident"}),
    ]
    await site.post("pause", {"reason": "x" * 2000}, status=422)
    await site.post("pause", {"why": "x"}, status=422)


async def test_every_change_leaves_one_audit_row(site):
    """And a request that is sent again leaves none."""
    await site.job("a", schedule="0 * * * *", overlap="allow")
    key = {"Idempotency-Key": "k"}
    made = await site.post("jobs/a/trigger", headers=key)
    await site.post("jobs/a/trigger", status=200, headers=key)
    span = {"from": "2026-01-01T00:00:00Z", "to": "2026-01-01T00:30:00Z"}
    await site.post("jobs/a/backfill", span)
    for path in ("jobs/a/pause", "jobs/a/resume", "pause", "resume"):
        await site.post(path, status=200, headers=key)
        await site.post(path, status=200, headers=key)
    await site.post(f"executions/{made['execution_id']}/cancel", status=200)
    await site.post(f"executions/{made['execution_id']}/retry", status=200)
    await site.post("events/e", headers=key)
    await site.http.put("/api/v1/jobs/a", json={"command": "two"})
    await site.http.patch("/api/v1/jobs/a", json={"command": "three"})
    await site.http.delete("/api/v1/jobs/a")
    first = await site.get("audit?limit=4")
    rest = await site.get(f"audit?limit=0&cursor={first['next']}")
    assert [row["action"] for row in (*first["items"], *rest["items"])][::-1] == [
        "create",
        "trigger",
        "backfill",
        "pause",
        "resume",
        "pause --all",
        "resume --all",
        "cancel",
        "retry",
        "emit",
        "replace",
        "change",
        "delete",
    ]


async def test_a_key_that_comes_with_another_body_is_refused_everywhere(site):
    await site.job("a")
    key = {"Idempotency-Key": "k"}
    await site.post("jobs/a/pause", {"reason": "x"}, status=200, headers=key)
    again = await site.post("jobs/a/pause", {"reason": "y"}, status=422, headers=key)
    assert again["code"] == "idempotency_key_reused"
    body = {"job_id": "b", "command": "x"}
    await site.post("jobs", body, headers=key)
    await site.post("jobs", body, status=200, headers=key)
    await site.post("jobs", {**body, "command": "y"}, status=422, headers=key)
    for odd in ("", "x" * 256):
        await site.post("jobs/a/pause", status=422, headers={"Idempotency-Key": odd})


async def test_the_document_tells_of_every_route(site):
    answer = await site.http.get("/api/openapi.json")
    document = answer.json()
    assert document["openapi"].startswith("3.1")
    paths = document["paths"]
    trigger = paths["/api/v1/jobs/{job_id}/trigger"]["post"]
    names = {parameter["name"] for parameter in trigger["parameters"]}
    assert {"job_id", "Idempotency-Key", "X-Tenant"} <= names
    assert trigger["security"] == [{"token": []}]
    ref = trigger["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    fields = document["components"]["schemas"][ref.rpartition("/")[2]]["properties"]
    assert fields.keys() == {"input", "at", "in", "key", "with_dependencies"}
    assert "application/problem+json" in trigger["responses"]["default"]["content"]
    listing = {p["name"] for p in paths["/api/v1/executions"]["get"]["parameters"]}
    assert {"job", "state", "since", "limit", "cursor"} <= listing
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', answer.text))
    assert references <= document["components"]["schemas"].keys()


async def test_a_node_is_asked_to_leave_by_its_name(site):
    await site.world.rows(
        "INSERT INTO nodes (name, url, pid, host, version, started_at, last_beat_at)"
        " VALUES ('n', 'http://x', 7, 'h', '0.1', '2026-12-01Z', '2026-12-01Z')"
    )
    done = await site.post("nodes/n/drain", status=200)
    incarnation = done["incarnation"]
    assert done == {"name": "n", "incarnation": incarnation, "state": "draining"}
    await site.post("nodes/n/drain", status=200)
    (node,) = (await site.get("nodes"))["items"]
    assert node["state"] == "draining"
    assert (await site.get("audit"))["items"][0]["action"] == "drain"
    await site.world.rows("UPDATE nodes SET state = 'stopped'")
    await site.world.rows(
        "INSERT INTO nodes (name, url, pid, host, version, started_at, last_beat_at)"
        " VALUES ('n', 'http://x', 8, 'h', '0.1', '2026-12-01Z', '2026-12-01Z')"
    )
    (newest,) = (await site.get("nodes"))["items"]
    assert newest["incarnation"] > incarnation
    (ended,) = (await site.get(f"nodes?incarnation={incarnation}"))["items"]
    assert (ended["incarnation"], ended["state"]) == (incarnation, "stopped")
    assert (await site.get(f"nodes?incarnation={2**63 - 1}"))["items"] == []


async def test_a_node_that_is_not_up_cannot_be_drained(site):
    problem = await site.post("nodes/nobody/drain", status=404)
    assert "no node nobody is up" in problem["detail"]


async def test_leaderships_are_regrouped_while_a_node_runs(site):
    done = await site.post("shards", {"shards": 3}, status=200)
    assert done == {"shards": 3, "had": 1}
    stats = await site.get("stats")
    assert [one["number"] for one in stats["leaderships"]] == [0, 1, 2]
    for wrong in ({"shards": 0}, {"shards": 257}, {"shards": "3"}, {}, {"shards": 1, "x": 1}):
        await site.post("shards", wrong, status=422)
    assert (await site.get("audit"))["items"][0]["detail"] == {"from": 1, "to": 3}
