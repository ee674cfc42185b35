"""`runtime dags` against a real node: what it prints for pipes and programs, and as pictures."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.embedded import wait_until
from tests.support.node import NodeProcess

pytestmark = pytest.mark.slow

DAGS = """
jobs:
  - {job_id: plain, command: "true"}
dags:
  - dag_id: etl
    schedule: "0 2 * * *"
    tasks:
      - {task_id: extract, command: "true"}
      - {task_id: clean, dependencies: [extract], command: test -e {ok}}
      - {task_id: load, dependencies: [clean], command: "true"}
      - {task_id: audit, dependencies: [extract], command: "true"}
  - dag_id: held
    tasks:
      - {task_id: approve, wait: {signal: approved}}
      - {task_id: pay, dependencies: [approve], command: "echo ${{ tasks.approve.result.by }}"}
"""


@pytest.fixture(scope="module")
def node(ground: Path) -> Iterator[NodeProcess]:
    """A node with two DAGs; `ok` in its folder is what one of them looks for."""
    file = ground / "dags.yaml"
    file.write_text(DAGS.replace("{ok}", str(ground / "ok")))
    with NodeProcess(ground / "data", jobs=[file]) as running:
        yield running


def states(run: dict) -> dict[str, str]:
    return {task["task_id"]: task["state"] for task in run["tasks"]}


def test_dags_are_listed_and_drawn_and_their_tasks_are_no_jobs(node: NodeProcess):
    found = node.run("dags", "list", "--json").ok().json()
    assert {dag["dag_id"] for dag in found} == {"etl", "held"}
    assert all(dag.keys() >= {"schedule", "next_fire_at", "last_state"} for dag in found)
    jobs = node.run("jobs", "--limit", "0", "--json").ok().json()
    assert {job["job_id"] for job in jobs} == {"etl", "held", "plain"}
    drawn = node.run("dags", "show", "etl").ok().out
    assert "| extract |" in drawn
    assert drawn.isascii()
    assert node.run("dags", "show", "etl", "--dot").ok().out.startswith('digraph "etl" {')
    picture = ET.fromstring(node.run("dags", "show", "etl", "--svg").ok().out)
    assert picture.tag.endswith("svg")
    assert node.run("next", "etl", "--count", "1", "--json").ok().json()
    wrong = node.run("dags", "show", "plain")
    assert wrong.code == 1
    assert wrong.err == "runtime: plain is a job, and no DAG: `runtime jobs show plain`\n"
    assert node.run("dags", "show", "etl", "--dot", "--svg").code == 2


def test_a_run_is_triggered_drawn_retried_and_marked(node: NodeProcess, ground: Path):
    done = node.run("trigger", "etl", "--wait", "--json")
    assert done.code == 1
    run = done.json()
    assert run["state"] == "failed"
    assert states(run)["load"] == "skipped"
    name = run["run_id"]
    shown = node.run("dags", "runs", "show", name).ok().out
    assert "x clean" in shown
    assert "- load upstream_failed" in shown
    assert "exit code 1" in shown
    assert "critical path: extract -> " in shown
    table = node.run("dags", "runs", "show", name, "--tasks").ok().out.splitlines()
    (load,) = [line.split() for line in table if line.startswith("load ")]
    assert load[1:4] == ["skipped", "upstream_failed", "clean"]
    (ground / "ok").touch()
    again = node.run("dags", "retry", name, "--failed", "--wait", "--json").ok().json()
    assert set(states(again).values()) == {"succeeded"}
    refused = node.run("dags", "retry", name)
    assert refused.code == 1
    assert refused.err.count("\n") == 1
    (ground / "ok").unlink()
    failed = node.run("trigger", "etl", "--wait", "--json").json()["run_id"]
    marked = node.run("dags", "mark", failed, "clean", "skipped", "--reason", "known", "--json")
    assert "clean" in marked.ok().json()["tasks"]
    listed = node.run("dags", "runs", "list", "etl", "--json").ok().json()
    assert [one["run_id"] for one in listed] == [failed, name]
    assert [one["run_id"] for one in node.run("dags", "runs", "--json").ok().json()][:1] == [failed]


def test_a_run_is_watched_while_it_waits_is_paused_and_goes_on(node: NodeProcess):
    run = node.run("trigger", "held", "--json").ok().json()["run_id"]

    def looked() -> dict:
        return node.run("dags", "runs", "show", run, "--json").ok().json()

    wait_until(lambda: states(looked())["approve"] == "waiting", "it waits for its signal")
    watching = node.begin("dags", "runs", "show", run, "--watch")
    node.run("dags", "runs", "pause", run, "--reason", "lunch").ok()
    assert looked()["state"] == "paused"
    node.run("dags", "runs", "resume", run).ok()
    node.run("dags", "signal", run, "approved", "--payload", '{"by": "ada"}').ok()
    out, err = watching.communicate(timeout=60)
    assert watching.returncode == 0, err
    lines = out.splitlines()
    assert "pay  succeeded" in lines
    assert lines[-1] == "run succeeded: 2 succeeded"
    pay = next(task for task in looked()["tasks"] if task["task_id"] == "pay")
    assert node.run("executions", "logs", pay["execution_id"]).ok().out == "ada\n"
    other = node.run("trigger", "held", "--json").ok().json()["run_id"]
    gone = node.run("dags", "runs", "cancel", other, "--wait", "--json").ok().json()
    assert gone["state"] == "cancelled"


def test_a_window_of_the_past_is_run(node: NodeProcess, ground: Path):
    (ground / "ok").touch()
    window = ("--from", "2026-06-01T00:00:00Z", "--to", "2026-06-03T00:00:00Z", "--parallel", "1")
    would = node.run("backfill", "etl", *window, "--dry-run", "--json").ok().json()
    assert len(would["created"]) == 2
    filled = node.run("backfill", "etl", *window, "--json").ok().json()
    for one in filled["created"]:
        run = one["execution_id"]
        wait_until(
            lambda run=run: (
                node.run("dags", "runs", "show", run, "--json").json()["state"] == "succeeded"
            ),
            "the night was run",
        )
