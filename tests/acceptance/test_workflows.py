"""Real workflows, as their traces have them: each child after its parents, each task once."""

import json
from collections.abc import Iterator
from datetime import datetime

import pytest

from tests.support.folders import walkable_folder
from tests.support.node import NodeProcess
from tests.support.workflows import MOST_TASKS, converted, needs_traces, traces

pytestmark = [pytest.mark.postgres, needs_traces]


@pytest.fixture(scope="module")
def node() -> Iterator[NodeProcess]:
    with walkable_folder() as folder, NodeProcess(folder / "data") as running:
        yield running


@pytest.mark.parametrize("trace", traces(), ids=lambda trace: trace.stem)
def test_a_real_workflow_runs_each_task_once_and_after_its_parents(trace, node, tmp_path):
    file = converted(trace, tmp_path)
    node.run("check", str(file)).ok()
    known = file.read_text().count("task_id:")
    if known > MOST_TASKS:
        pytest.skip(f"{known} tasks: TICKWRIGHT_TEST_WORKFLOW_TASKS={known} runs it")
    node.run("apply", str(file)).ok()
    run = node.run("trigger", trace.stem, "--wait", "--json").ok().json()
    shown = node.run("dags", "runs", "show", run["run_id"], "--json").ok().json()
    assert shown["state"] == "succeeded", shown
    tasks = {task["task_id"]: task for task in shown["tasks"]}
    assert len(tasks) == known
    for task in tasks.values():
        assert (task["state"], task["attempts"]) == ("succeeded", 1), task
        began = datetime.fromisoformat(task["started_at"])
        for parent in task["parents"]:
            assert datetime.fromisoformat(tasks[parent]["finished_at"]) <= began, (task, parent)
    listed = node.run("executions", "--limit", "0", "--json").ok().json()
    ours = [one for one in listed if one["dag_run_id"] == run["run_id"] and one["task_id"]]
    assert sorted(one["task_id"] for one in ours) == sorted(tasks)
    assert json.dumps(ours).count('"succeeded"') == len(tasks)
