"""Executions over HTTP: triggered, listed, waited for, cancelled, run again, followed."""

import asyncio
import json
from datetime import UTC, datetime

import pytest

from protocols.ids import execution_key
from protocols.messages import CancelRequested, EventsAppended, JobsFinished, Ready
from tests.integration.api.conftest import followed
from tests.integration.operations.helpers import hot, over

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]


async def test_a_trigger_is_answered_by_its_execution(site):
    await site.job("a")
    made = await site.http.post("/api/v1/jobs/a/trigger", json={"input": {"day": 3}})
    assert made.status_code == 201
    execution = made.json()
    assert (execution["state"], execution["input"]) == ("ready", {"day": 3})
    assert made.headers["Location"].endswith(execution["execution_id"])
    assert site.hints.hints[-1] == Ready("default")
    shown = await site.get(f"executions/{execution['execution_id']}")
    assert shown["job_id"] == "a"
    second = await site.post("jobs/a/trigger")
    assert (second["state"], second["reason"]) == ("blocked", "overlap")
    assert isinstance(site.hints.hints[-1], JobsFinished)
    assert [row["action"] for row in (await site.get("audit"))["items"]].count("trigger") == 2


async def test_a_trigger_under_a_key_is_done_once(site):
    await site.job("a")
    key = {"Idempotency-Key": "k"}
    first = await site.post("jobs/a/trigger", {"input": 1}, headers=key)
    again = await site.post("jobs/a/trigger", {"input": 1}, status=200, headers=key)
    inside = await site.post("jobs/a/trigger", {"input": 1, "key": "k"}, status=200)
    assert {first["execution_id"]} == {again["execution_id"], inside["execution_id"]}
    other = await site.post("jobs/a/trigger", {"input": 2}, status=422, headers=key)
    assert other["code"] == "idempotency_key_reused"
    assert len((await site.get("executions?job=a"))["items"]) == 1


async def test_many_at_once_under_one_key_make_one(site):
    await site.job("a")

    async def one():
        return await site.http.post("/api/v1/jobs/a/trigger", headers={"Idempotency-Key": "k"})

    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(one()) for _ in range(8)]
    answers = [task.result() for task in asked]
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({answer.json()["execution_id"] for answer in answers}) == 1


async def test_a_trigger_for_later_waits(site):
    await site.job("a")
    at = await site.post("jobs/a/trigger", {"at": "2199-01-01T01:00:00+01:00"})
    assert (at["state"], at["scheduled_for"]) == ("scheduled", "2199-01-01T00:00:00.000000Z")
    assert (await site.post("jobs/a/trigger", {"in": "1h"}))["state"] == "scheduled"


WRONG_TRIGGERS = (
    ({"at": "soon"}, "/at"),
    ({"at": "2026-12-01T09:00:00"}, "/at"),
    ({"at": "0001-01-01T00:00:00+23:59"}, "/at"),
    ({"in": "soon"}, "/in"),
    ({"in": 0}, "/in"),
    ({"in": 1, "at": "2026-12-01T09:00:00Z"}, "/in"),
    ({"inpt": 1}, "/inpt"),
    ({"key": ""}, "/key"),
    ({"key": "a\0"}, "/key"),
    ({"key": 7}, "/key"),
    ({"with_dependencies": "yes"}, "/with_dependencies"),
    ({"input": "x" * 300_000}, "/input"),
)


async def test_a_wrong_trigger_is_told_with_its_place(site):
    await site.job("a")
    for body, pointer in WRONG_TRIGGERS:
        problem = await site.post("jobs/a/trigger", body, status=422)
        assert [error["pointer"] for error in problem["errors"]] == [pointer]


async def test_what_is_unknown_is_not_found(site):
    missing = "01890000-0000-7000-8000-000000000001"
    for path in (f"executions/{missing}", "executions/x", f"executions/{missing}/logs"):
        await site.get(path, status=404)
    for path in ("jobs/x/trigger", "jobs/x/pause", f"executions/{missing}/cancel"):
        await site.post(path, status=404)
    await site.get("executions?job=nobody", status=404)
    await site.get("executions?state=odd", status=422)


async def test_a_list_is_filtered_and_its_pages_are_stable_under_inserts(site):
    await site.job("a", overlap="allow")
    ids = [(await site.post("jobs/a/trigger"))["execution_id"] for _ in range(5)]
    first = await site.get("executions?limit=2")
    await site.post("jobs/a/trigger")
    second = await site.get(f"executions?limit=2&cursor={first['next']}")
    third = await site.get(f"executions?limit=2&cursor={second['next']}")
    seen = [one["execution_id"] for page in (first, second, third) for one in page["items"]]
    assert seen == ids[::-1]
    assert len((await site.get("executions?limit=0&state=ready"))["items"]) == 6
    assert (await site.get("executions?state=running"))["items"] == []
    assert len((await site.get("executions?since=1h"))["items"]) == 6
    assert (await site.get("executions?since=2199-01-01T00:00:00Z"))["items"] == []


async def test_what_waits_is_cancelled_and_run_again(site):
    await site.job("a")
    made = (await site.post("jobs/a/trigger"))["execution_id"]
    cancelled = await site.post(f"executions/{made}/cancel", status=200)
    assert cancelled["state"] == "cancelled"
    assert isinstance(site.hints.hints[-1], JobsFinished)
    await site.post(f"executions/{made}/cancel", status=409)
    again = await site.post(f"executions/{made}/retry", status=200)
    assert (again["state"], again["run"]) == ("ready", 2)
    assert site.hints.hints[-1] == Ready("default")
    await site.post(f"executions/{made}/retry", status=409)


async def test_what_runs_is_asked_to_stop(site):
    await site.job("a")
    running = await hot(site.world, "a", 0, "running")
    asked = await site.post(f"executions/{running}/cancel", status=200)
    assert (asked["state"], asked["cancel_requested"]) == ("running", True)
    assert site.hints.hints[-1] == CancelRequested(execution_key(running), 7)


async def test_a_wait_ends_when_the_state_is_final(site):
    await site.job("a")
    made = (await site.post("jobs/a/trigger"))["execution_id"]
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(site.get(f"executions/{made}/wait?timeout_s=30"))
        await followed(site)
        await site.post(f"executions/{made}/cancel", status=200)
    assert waiting.result()["state"] == "cancelled"
    short = await site.post("jobs/a/trigger")
    still = await site.get(f"executions/{short['execution_id']}/wait?timeout_s=0.01")
    assert still["state"] == "ready"
    await site.get(f"executions/{made}/wait?timeout_s=61", status=422)


async def test_dead_letters_are_listed_replayed_and_put_away(site):
    await site.job("a")
    await site.job("b", overlap="allow")
    died = {"reason": "failed", "finished_at": datetime(2026, 1, 1, tzinfo=UTC)}
    dead = [await over(site.world, "b", n, "dead", **died) for n in range(3)]
    other = await over(site.world, "a", 0, "dead", **died)
    listed = await site.get("dead-letters?job=b")
    assert [one["execution_id"] for one in listed["items"]] == dead[::-1]
    assert listed["items"][0]["dead_at"]
    one = {"execution_ids": [dead[0]]}
    assert (await site.post("dead-letters/replay", one, status=200))["execution_ids"] == [dead[0]]
    gone = await site.post("dead-letters/discard", {"job": "b"}, status=200)
    assert sorted(gone["execution_ids"]) == sorted(dead[1:])
    rest = await site.post("dead-letters/replay", {"all": True}, status=200)
    assert (rest["execution_ids"], rest["more"]) == ([other], False)
    for wrong in ({}, {"all": True, "job": "b"}, {"execution_ids": ["x"]}, {"all": False}):
        await site.post("dead-letters/replay", wrong, status=422)


async def test_a_backfill_runs_what_is_past(site):
    await site.job("a", schedule="0 * * * *", overlap="allow")
    span = {"from": "2026-01-01T00:00:00Z", "to": "2026-01-01T02:00:00Z"}
    dry = await site.post("jobs/a/backfill", {**span, "dry_run": True})
    assert (len(dry["created"]), dry["created"][0]["execution_id"]) == (3, None)
    key = {"Idempotency-Key": "k"}
    done = await site.post("jobs/a/backfill", span, headers=key)
    again = await site.post("jobs/a/backfill", span, status=200, headers=key)
    assert done == again
    assert len((await site.get("executions?job=a"))["items"]) == 3
    await site.post("jobs/a/backfill", {**span, "limit": 0}, status=422)
    await site.post("jobs/a/backfill", {"from": "x", "to": "y"}, status=422)
    await site.post("jobs/a/backfill", {}, status=422)


async def test_logs_are_read_by_attempt_and_searched(site):
    await site.job("a")
    ended = await over(site.world, "a", 0, "succeeded")
    row = await site.world.one("SELECT id, scheduled_for FROM execution_history")
    await site.world.rows(
        "INSERT INTO outputs (tenant, id, attempt, scheduled_for, head, tail, omitted_bytes)"
        " VALUES ('default', $1, 1, $2, $3, $4, 7)",
        row["id"],
        row["scheduled_for"],
        b"one\ntwo\n",
        b"\xffthree\n",
    )
    (log,) = (await site.get(f"executions/{ended}/logs"))["items"]
    assert (log["head"], log["tail"], log["omitted_bytes"]) == ("one\ntwo\n", "\ufffdthree\n", 7)
    (found,) = (await site.get(f"executions/{ended}/logs?grep=two"))["items"]
    assert (found["head"], found["tail"]) == ("two\n", "")
    await site.get(f"executions/{ended}/logs?attempt=2", status=404)
    await site.get(f"executions/{ended}/logs?attempt=0", status=422)


async def test_a_task_proves_itself_by_its_token_alone(site):
    await site.job("a")
    running = await hot(site.world, "a", 0, "running", fencing_token=41)
    mine, other = {"X-Fencing-Token": "41"}, {"X-Fencing-Token": "42"}
    site.http.headers.pop("Authorization")
    await site.post(f"executions/{running}/checkpoint", {"value": {"at": 3}}, 200, headers=mine)
    row = await site.world.one("SELECT value FROM checkpoints")
    assert json.loads(row["value"]) == {"at": 3}
    await site.post(f"executions/{running}/heartbeat", status=200, headers=mine)
    assert site.executors["default"].beats == [(execution_key(running), 41)]
    first = await site.post(f"executions/{running}/once", {"key": "k"}, 200, headers=mine)
    assert first == {"answer": "first"}
    bodies = {"checkpoint": {"value": 1}, "heartbeat": {}, "once": {"key": "k"}}
    for what, body in bodies.items():
        spent = await site.post(f"executions/{running}/{what}", body, 409, headers=other)
        assert "stop the work" in spent["detail"]
        await site.post(f"executions/{running}/{what}", body, 401)
        for odd in ("x", "-1", "9" * 30, "\u00b2"):
            headers = {"X-Fencing-Token": odd.encode("utf-8")}
            await site.post(f"executions/{running}/{what}", body, 422, headers=headers)
    for odd in (0, -1, 1e308):
        body = {"key": "k", "ttl_s": odd}
        wrong = await site.post(f"executions/{running}/once", body, 422, headers=mine)
        assert wrong["errors"][0]["pointer"] == "/ttl_s"
    await site.post(f"executions/{running}/cancel", status=401, headers=mine)


async def test_an_event_is_emitted_once_under_its_key(site):
    key = {"Idempotency-Key": "k"}
    assert (await site.post("events/paid", {"payload": {"n": 1}}, headers=key))["event"] == "paid"
    assert site.hints.hints == [EventsAppended()]
    await site.post("events/paid", {"payload": {"n": 1}}, status=200, headers=key)
    await site.post("events/paid", {"payload": {"n": 2}}, status=422, headers=key)
    row = await site.world.one("SELECT name, payload::text FROM events WHERE kind = 'emitted'")
    assert (row["name"], json.loads(row["payload"])) == ("paid", {"n": 1})
    await site.post("events/paid", {"payload": "\0"}, status=422)
    await site.post("events/a b", status=422)
