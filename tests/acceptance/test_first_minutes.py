"""What a newcomer does first, as the README and the contract have it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.embedded import ROOT, wait_until
from tests.support.node import NodeProcess, run

# Word for word the smallest job that people already write, and the parent it names.
EXAMPLE = """
jobs:
  - job_id: daily_report
    schedule: "0 0 * * *"
    command: python generate_report.py
    dependencies: [data_ingestion]      # see "Dependencies" below
    max_retries: 3
    timeout: 3600
  - job_id: data_ingestion
    schedule: "0 0 * * *"
    command: python ingest.py
"""


@pytest.mark.slow
def test_the_first_example_runs_as_written(ground: Path):
    (ground / "ingest.py").write_text("open('data.txt', 'w').write('42')")
    (ground / "generate_report.py").write_text("print('report of', open('data.txt').read())")
    jobs = ground / "example.yaml"
    jobs.write_text(EXAMPLE)
    checked = run("check", str(jobs)).ok()
    assert "2 jobs, no errors" in checked.out
    with NodeProcess(ground / "example", jobs=[jobs], cwd=ground) as node:
        parent = node.run("trigger", "data_ingestion", "--wait", "--json").ok().json()
        assert parent["state"] == "succeeded"
        child = node.run("trigger", "daily_report", "--with-dependencies", "--wait", "--json").ok()
        report = child.json()
        assert (report["state"], report["exit_code"], report["attempt"]) == ("succeeded", 0, 1)
        said = node.run("executions", "logs", report["execution_id"]).ok()
        assert said.out == "report of 42\n"


@pytest.mark.slow
def test_the_jobs_that_are_shipped_run_and_outlive_kill_9(ground: Path):
    node = NodeProcess(
        ground / "shipped",
        jobs=[ROOT / "config" / "jobs.yaml"],
        options=["--config", str(ROOT / "config" / "node.yaml")],
    )
    with node:
        assert f"API    {node.url}" in "\n".join(node.out)
        wait_until(lambda: "hello" in "\n".join(node.out), "the jobs are told")
        done = node.run("trigger", "hello", "--wait").ok()
        assert "succeeded" in done.out
        before = node.run("executions", "--job", "hello", "--json").ok().json()
        node.kill()
        node.start()
        after = node.run("executions", "--job", "hello", "--limit", "0", "--json").ok().json()
        known = {one["execution_id"]: one["state"] for one in after}
        assert all(known[one["execution_id"]] == one["state"] for one in before)
        unchanged = "unchanged since the last start"
        wait_until(lambda: any(unchanged in line for line in node.out), "it says so of its files")
        assert node.stop() == 0
