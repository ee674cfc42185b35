"""Real workflow traces as job files, and what must be true of their runs whatever happened."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import yaml

from tests.support.embedded import ROOT
from tests.support.ledger import Books
from tests.support.node import environment

TRACES = ROOT.parent / "shared" / "data" / "workflows"
MOST_TASKS = int(os.environ.get("TICKWRIGHT_TEST_WORKFLOW_TASKS", "120"))
"""Of larger traces only the check is run here; all of them by hand."""

needs_traces = pytest.mark.skipif(
    not TRACES.is_dir(), reason="the real traces are not beside the project"
)

_TOLD = (
    'echo "start $RUNTIME_DAG_RUN_ID $RUNTIME_TASK_ID $RUNTIME_FENCING_TOKEN" >> lines; {work}; '
    'echo "end $RUNTIME_DAG_RUN_ID $RUNTIME_TASK_ID $RUNTIME_FENCING_TOKEN" >> lines'
)


def traces() -> list[Path]:
    """The traces, by name; none where they are not beside the project."""
    return sorted(TRACES.glob("*.json"))


def converted(trace: Path, folder: Path) -> Path:
    """The job file that the script makes of a trace."""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "import-workflow", trace],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
        stdin=subprocess.DEVNULL,
    )
    file = folder / f"{trace.stem}.yaml"
    file.write_text(done.stdout)
    return file


def telling(file: Path) -> dict[str, list[str]]:
    """Make the file's tasks write down when they start and end; the parents of each task."""
    text = re.sub(
        r"command: (sleep \S+)",
        lambda found: "command: " + json.dumps(_TOLD.format(work=found[1])),
        file.read_text(),
    )
    file.write_text(text)
    (dag,) = yaml.safe_load(text)["dags"]
    return {task["task_id"]: task.get("dependencies", []) for task in dag["tasks"]}


def one_end_each(lines: list[str], graphs: dict[str, dict[str, list[str]]], books: Books) -> int:
    """Hold what the tasks themselves wrote down against the books; how many were repeated.

    Args:
        lines: what the tasks wrote, in that order.
        graphs: the parents of each task, by the name of its run.
        books: of the cluster that ran them.
    """
    tokens: dict[tuple[str, str], list[int]] = defaultdict(list)
    ended: set[tuple[str, str]] = set()
    for line in lines:
        word, run, task_id, token = line.split()
        if word == "end":
            ended.add((run, task_id))
            continue
        missing = [p for p in graphs[run][task_id] if (run, p) not in ended]
        assert not missing, f"{task_id} of {run} began before {missing} had ended"
        tokens[run, task_id].append(int(token))
    assert set(tokens) == ended == {(run, task) for run in graphs for task in graphs[run]}
    for name, given in tokens.items():
        assert given == sorted(set(given)), f"{name}: tokens {given}"
    assert books.rows("SELECT DISTINCT state FROM dag_runs") == [("succeeded",)]
    assert books.rows("SELECT DISTINCT state FROM dag_tasks") == [("succeeded",)]
    assert books.value("SELECT count(*) FROM dag_tasks") == len(tokens)
    rows = books.rows(
        "SELECT h.job_id, h.state, h.attempt, (SELECT count(*) FROM attempts a WHERE a.id = h.id "
        "AND a.state = 'lost') AS lost, (SELECT count(*) FROM attempts a WHERE a.id = h.id "
        "AND a.state <> 'lost' AND a.attempt <> h.attempt) AS others "
        "FROM execution_history h WHERE strpos(h.job_id, '/') > 0"
    )
    assert len(rows) == len(tokens)
    assert {(row["state"], row["others"]) for row in rows} == {("succeeded", 0)}
    losses = sum(row["lost"] for row in rows)
    assert sum(row["attempt"] - 1 for row in rows) == losses
    repeated = Counter({name: len(given) - 1 for name, given in tokens.items()}).total()
    assert repeated <= losses, f"{repeated} tasks began again, and {losses} losses are recorded"
    return repeated
