"""Every command against one real node: what it prints for people, for pipes and for programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.embedded import wait_until
from tests.support.node import NodeProcess

EXECUTION = {
    *("execution_id", "tenant", "job_id", "dag_run_id", "task_id", "scheduled_for", "state"),
    *("reason", "attempt", "fencing_token", "priority", "pool", "node", "created_at"),
    *("started_at", "finished_at", "duration_s", "exit_code", "error", "result"),
}
pytestmark = pytest.mark.slow


def trigger(node: NodeProcess, *arguments: str) -> dict:
    return node.run("trigger", *arguments, "--json").ok().json()


def shown(node: NodeProcess, execution: dict) -> dict:
    return node.run("executions", "show", execution["execution_id"], "--json").ok().json()


def test_a_schedule_runs_and_its_executions_are_listed(node: NodeProcess):
    wait_until(
        lambda: node.run("executions", "--job", "hello", "--state", "succeeded", "--json").json(),
        "hello has run",
    )
    (newest,) = node.run("executions", "list", "--job", "hello", "--limit", "1", "--json").json()
    assert newest.keys() >= EXECUTION
    plain = node.run("executions", "--job", "hello", "--limit", "2").ok()
    assert plain.out.splitlines()[0].split()[:2] == ["EXECUTION", "JOB"]


def test_lists_are_arrays_newest_first_and_zero_means_all(node: NodeProcess):
    for _ in range(3):
        trigger(node, "say")
    found = node.run("executions", "--job", "say", "--limit", "0", "--json").ok().json()
    two = node.run("executions", "--job", "say", "--limit", "2", "--json").ok().json()
    assert len(found) >= 3
    ids = [one["execution_id"] for one in found]
    assert ids == sorted(ids, reverse=True)
    assert [one["execution_id"] for one in two] == ids[:2]


def test_jobs_are_listed_shown_paused_resumed(node: NodeProcess):
    found = node.run("jobs", "--json").ok().json()
    assert {job["job_id"] for job in found} >= {"hello", "say", "slow"}
    wanted = {"tenant", "job_id", "schedule", "timezone", "enabled", "paused", "next_fire_at"}
    assert all(job.keys() >= wanted | {"last_state", "tags"} for job in found)
    tagged = node.run("jobs", "list", "--tag", "greeting", "--json").ok().json()
    assert [job["job_id"] for job in tagged] == ["hello"]
    node.run("jobs", "pause", "say", "--reason", "for a test").ok()
    assert node.run("jobs", "show", "say", "--json").ok().json()["paused"] is True
    assert "for a test" in node.run("jobs", "show", "say").ok().out
    node.run("jobs", "resume", "say").ok()
    assert node.run("jobs", "show", "say", "--json").ok().json()["paused"] is False


def test_a_job_that_is_not_there_is_told_with_the_nearest_name(node: NodeProcess):
    for words in (["trigger", "helo"], ["jobs", "show", "helo"], ["next", "helo"]):
        done = node.run(*words)
        assert done.code == 1
        assert "helo" in done.err
        assert done.err.count("\n") == 1
        assert done.out == ""


def test_trigger_hands_over_its_input_and_waits(node: NodeProcess, tmp_path: Path):
    file = tmp_path / "input.json"
    file.write_text('{"day": 3}')
    for given, stdin in (('{"day": 3}', None), (f"@{file}", None), ("-", '{"day": 3}')):
        done = node.run("trigger", "say", "--input", given, "--wait", "--json", given=stdin).ok()
        execution = done.json()
        assert execution.keys() >= EXECUTION
        assert execution["state"] == "succeeded"
        said = node.run("executions", "logs", execution["execution_id"]).ok()
        assert json.loads(said.out.removeprefix("got ")) == {"day": 3}


def test_waiting_for_what_fails_is_exit_code_1(node: NodeProcess):
    done = node.run("trigger", "fail", "--wait", "--json")
    assert done.code == 1
    assert (done.json()["state"], done.json()["exit_code"]) == ("dead", 3)
    (letter,) = [
        one
        for one in node.run("dead-letters", "--job", "fail", "--json").ok().json()
        if one["execution_id"] == done.json()["execution_id"]
    ]
    assert letter["dead_at"]
    said = node.run("executions", "show", letter["execution_id"]).ok()
    assert "on stderr" in said.out
    replayed = node.run("dead-letters", "replay", letter["execution_id"], "--json").ok().json()
    assert replayed == {"execution_ids": [letter["execution_id"]]}
    again = node.run("executions", "follow", letter["execution_id"], "--json")
    assert (again.code, again.json()["state"], again.json()["run"]) == (1, "dead", 2)
    node.run("dead-letters", "discard", "--job", "fail").ok()
    assert node.run("dead-letters", "--job", "fail", "--json").ok().json() == []


def test_a_key_said_twice_is_one_execution(node: NodeProcess):
    first = trigger(node, "say", "--key", "k1", "--input", "1")
    second = trigger(node, "say", "--key", "k1", "--input", "1")
    assert first["execution_id"] == second["execution_id"]
    other = node.run("trigger", "say", "--key", "k1", "--input", "2")
    assert other.code == 1
    assert "k1" in other.err


def test_at_and_in_name_a_later_moment_and_cancel_takes_it_back(node: NodeProcess):
    later = trigger(node, "say", "--in", "1h")
    assert later["state"] == "scheduled"
    at = trigger(node, "say", "--at", "2099-01-01T00:00:00+01:00")
    assert at["run_at"] == "2098-12-31T23:00:00.000000Z"
    done = node.run("executions", "cancel", later["execution_id"], at["execution_id"], "--json")
    assert [one["state"] for one in done.ok().json()] == ["cancelled", "cancelled"]
    again = node.run("executions", "cancel", later["execution_id"])
    assert again.code == 1


def test_what_runs_is_cancelled_and_ends(node: NodeProcess):
    execution = trigger(node, "slow")
    wait_until(lambda: shown(node, execution)["state"] == "running", "it runs")
    assert "slow" in node.run("top").ok().out
    done = node.run("executions", "cancel", execution["execution_id"], "--wait", "--json").ok()
    assert done.json()["state"] == "cancelled"
    retried = node.run("executions", "retry", execution["execution_id"], "--json").ok()
    assert retried.json()["run"] == 2
    node.run("executions", "cancel", execution["execution_id"], "--wait").ok()


def test_an_event_triggers_who_listens(node: NodeProcess):
    node.run("emit", "go", "--payload", '{"a": 1}', "--key", "e1").ok()
    wait_until(
        lambda: (
            node.run("executions", "--job", "wait_for_it", "--state", "succeeded", "--json")
            .ok()
            .json()
        ),
        "the event's execution has run",
    )


def test_next_asks_the_node_for_a_job(node: NodeProcess):
    found = node.run(
        *("next", "hello", "--count", "2", "--json"),
        *("--after", "2027-01-01T00:00:00Z", "--timezone", "Asia/Tokyo"),
    ).ok()
    assert found.json() == ["2027-01-01T09:00:01+09:00", "2027-01-01T09:00:02+09:00"]
    assert node.run("next", "say", "--json").ok().json() == []


def test_backfill_shows_and_makes_the_instants_of_a_window(node: NodeProcess):
    window = ("--from", "2026-01-01T00:00:00Z", "--to", "2026-01-01T00:00:02Z")
    dry = node.run("backfill", "hello", *window, "--dry-run", "--json").ok().json()
    assert {"created", "reopened", "left"} <= dry.keys()
    assert all(one["execution_id"] is None for one in dry["created"])
    made = node.run("backfill", "hello", *window, "--json").ok().json()
    assert len(made["created"]) == len(dry["created"])


def test_the_house_is_seen_paused_and_resumed(node: NodeProcess):
    (seen,) = node.run("nodes", "--json").ok().json()
    wanted = {"name", "incarnation", "state", "url", "pid", "started_at", "last_beat_at"}
    assert seen.keys() >= wanted | {"leads", "epochs", "pools"}
    assert (seen["pid"], seen["url"]) == (node.pid, node.url)
    assert "worker  running" in node.run("actors").ok().out
    assert node.run("actors", "--node", seen["name"], "--json").ok().json()["children"]
    assert node.run("actors", "--node", "other").code == 1
    node.run("pause", "--all", "--reason", "an incident").ok()
    assert "an incident" in node.run("top").ok().out
    node.run("resume", "--all").ok()
    assert "paused" not in node.run("top").ok().out


def test_the_doctor_finds_a_node_that_is_well(node: NodeProcess):
    done = node.run("doctor", "--url", node.url, "--json", RUNTIME_URL=node.url).ok()
    found = {check["name"]: check["state"] for check in done.json()["checks"]}
    assert {"settings", "data dir", "database", "node", "clock", "house"} <= found.keys()
    assert "wrong" not in found.values()


def test_a_change_without_the_token_is_refused_and_reads_are_not(node: NodeProcess):
    for extra in ({"RUNTIME_DATA_DIR": "/nonexistent"}, {"RUNTIME_TOKEN": "x" * 20}):
        done = node.run("trigger", "say", **extra)
        assert done.code == 1
        assert "token" in done.err
        assert node.run("jobs", **extra).code == 0


def test_tenants_do_not_see_each_other(node: NodeProcess):
    assert node.run("jobs", "--tenant", "other", "--json").ok().json() == []
    assert node.run("jobs", "--json", RUNTIME_TENANT="other").ok().json() == []
    assert node.run("--tenant", "other", "jobs", "--json").ok().json() == []


def test_no_input_gives_a_traceback(node: NodeProcess):
    for words in (
        ["trigger", "say", "--input", json.dumps("x" * 100_000)],
        ["trigger", "say", "--input", '"\\u0000"'],
        ["trigger", "say", "--input", '"\\ud800"'],
        ["trigger", "say", "--input", "1" * 5000],
        ["trigger", "../../x"],
        ["trigger", "a/b"],
        ["trigger", ""],
        ["jobs", "show", "é" * 300],
        ["executions", "show", "0" * 36],
        ["executions", "list", "--since", "0001-01-01T00:00:00Z"],
        ["executions", "list", "--job", "x" * 10_000],
        ["emit", "bad name"],
        ["backfill", "say", "--from", "2026-01-01T00:00:00Z", "--to", "2026-01-02T00:00:00Z"],
        ["trigger", "say", "--key", "k" * 10_000],
    ):
        done = node.run(*words)
        assert done.code in {0, 1, 2}, (words, done)
        assert "unexpected" not in done.err, (words, done)


def test_follow_prints_what_happens_as_it_happens(node: NodeProcess):
    with node.begin("executions", "follow", "--job", "hello", "--json") as following:
        happened = [json.loads(following.stdout.readline()) for _ in range(3)]
        following.kill()
    assert all(one["job_id"] == "hello" for one in happened)
    assert all(one["kind"] and one["at"] and one["execution_id"] for one in happened)


def test_a_command_asks_by_its_fencing_token(node: NodeProcess, ground: Path):
    jobs = ground / "asking.yaml"
    jobs.write_text(
        """
jobs:
  - job_id: asking
    heartbeat: 60
    max_retries: 1
    retry: {base: 1ms}
    command: |
      runtime heartbeat || exit 9
      echo "saved: $RUNTIME_CHECKPOINT"
      runtime once "$RUNTIME_JOB_ID"
      runtime checkpoint '{"page": 3}'
      test -n "$RUNTIME_CHECKPOINT" || exit 1
  - job_id: also
    command: runtime once asking || echo "code $?"
"""
    )
    node.run("apply", str(jobs)).ok()
    done = node.run("trigger", "asking", "--wait", "--json").ok().json()
    assert done["attempt"] == 2
    logs = node.run("executions", "logs", done["execution_id"], "--all", "--json").ok().json()
    assert [log["head"].splitlines() for log in logs] == [
        ["saved: ", "first"],
        ['saved: {"page":3}', "again"],
    ]
    other = node.run("trigger", "also", "--wait", "--json").ok().json()
    assert node.run("executions", "logs", other["execution_id"]).ok().out == "no\ncode 1\n"
    spent = node.run(
        "checkpoint",
        "1",
        RUNTIME_EXECUTION_ID=done["execution_id"],
        RUNTIME_FENCING_TOKEN=str(done["fencing_token"]),
    )
    assert spent.code == 1
    assert "token" in spent.err
