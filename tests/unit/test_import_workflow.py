"""scripts/import-workflow: real traces become DAGs; what cannot is one sentence."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from protocols.dags import DagTask
from runtime.files.load import load_texts

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "import-workflow"
WORKFLOWS = ROOT.parent / "shared" / "data" / "workflows"


def convert(*arguments: object):
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        ("[" * 100_000, "this is not JSON"),
        ("[]", "this is not a workflow"),
        ('{"tasks": []}', "this is not a workflow"),
        ('{"tasks": [5]}', "tasks[0]: this is not a task with an id"),
        ('{"tasks": [{"id": "//"}]}', "tasks[0]: this is not a task with an id"),
        ('{"tasks": [{"id": "a b"}, {"id": "a/b"}]}', "are both a-b here"),
        ('{"tasks": [{"id": "a"}, {"id": "a"}]}', "stands here twice"),
        ('{"tasks": [{"id": "a", "parents": [[]]}]}', "its parents are not tasks"),
        ('{"tasks": [{"id": "a", "parents": ["b"]}]}', "its parents are not tasks"),
        ('{"tasks": [{"id": "1"}, {"id": "a", "parents": [1]}]}', "its parents are not tasks"),
        ('{"tasks": [{"id": "a", "runtime_s": -1}]}', "is not a time"),
        (f'{{"tasks": [{{"id": "a", "runtime_s": 1{"0" * 400}}}]}}', "is not a time"),
        ('{"tasks": [{"id": "a", "runtime_s": "1"}]}', "is not a number"),
    ],
)
def test_what_cannot_be_converted_is_told_in_a_sentence(tmp_path, content, said):
    file = tmp_path / "w.json"
    if content is not None:
        file.write_text(content)
    done = convert(file)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_file_it_says_how_it_is_used():
    assert convert().returncode == 2


@pytest.mark.skipif(not WORKFLOWS.is_dir(), reason="the traces are not on this machine")
def test_every_real_trace_is_a_dag_with_the_same_graph():
    files = sorted(WORKFLOWS.glob("*.json"))
    assert len(files) == 14
    for file in files:
        tasks = json.loads(file.read_text())["tasks"]
        done = convert(file)
        assert done.returncode == 0, done.stderr
        root, *hidden = load_texts([(file.stem, done.stdout.encode())], source="x").jobs
        assert isinstance(root.spec.task, DagTask)
        assert root.spec.job_id == file.stem
        found = {task.task_id: set(task.dependencies) for task in root.spec.task.tasks}
        assert len(found) == len(tasks) == len(hidden)
        assert sum(map(len, found.values())) == sum(len(set(task["parents"])) for task in tasks)
        assert {job.spec.retry.max_lost for job in hidden} == {100}
