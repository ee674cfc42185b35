"""`runtime apply`: the diff, whole or not at all, each source its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.node import NodeProcess

pytestmark = pytest.mark.slow


def written(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def ids(node: NodeProcess) -> set[str]:
    return {job["job_id"] for job in node.run("jobs", "--limit", "0", "--json").ok().json()}


def test_the_diff_is_shown_and_applied(node: NodeProcess, tmp_path: Path):
    file = written(
        tmp_path,
        "jobs:\n  - {job_id: one, command: 'true', schedule: '@daily'}\n"
        "  - {job_id: two, command: 'true'}\n",
    )
    dry = node.run("apply", str(file), "--dry-run", "--json").ok().json()
    assert (dry["created"], dry["updated"], dry["deleted"]) == (["one", "two"], [], [])
    assert not {"one", "two"} & ids(node)
    first = node.run("apply", str(file)).ok()
    assert first.out.splitlines() == ["+ one", "+ two"]
    assert {"one", "two"} <= ids(node)
    again = node.run("apply", str(file), "--json").ok().json()
    assert again["unchanged"] == ["one", "two"]

    written(tmp_path, "jobs:\n  - {job_id: one, command: 'true', schedule: '@hourly'}\n")
    kept = node.run("apply", str(file)).ok()
    lines = kept.out.splitlines()
    assert lines[0] == "~ one"
    assert any("schedule" in line and "->" in line for line in lines[1:])
    assert "two" in ids(node)
    pruned = node.run("apply", str(file), "--prune", "--json").ok().json()
    assert (pruned["deleted"], pruned["unchanged"]) == (["two"], ["one"])
    assert "two" not in ids(node)


def test_a_wrong_file_changes_nothing(node: NodeProcess, tmp_path: Path):
    before = ids(node)
    file = written(
        tmp_path, "jobs:\n  - {job_id: fine, command: x}\n  - {job_id: bad, comand: x}\n"
    )
    done = node.run("apply", str(file))
    assert done.code == 1
    assert f"{file}:3:" in done.err
    assert done.out == ""
    assert ids(node) == before


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ("python: 'no_such_package:f'", "no_such_package"),
        ("command: x, dependencies: [nobody]", "nobody"),
        ("command: x, schedule: {cron: '@daily', calendar: [xmas]}", "xmas"),
    ],
)
def test_what_only_the_node_can_know_is_told_with_its_place(
    node: NodeProcess, tmp_path: Path, job: str, said: str
):
    file = written(tmp_path, f"jobs:\n  - {{job_id: lost, {job}}}\n")
    done = node.run("apply", str(file))
    assert done.code == 1
    assert f"{file}:2:" in done.err
    assert said in done.err
    assert "lost" not in ids(node)


def test_another_sources_job_is_taken_over_only_when_asked(node: NodeProcess, tmp_path: Path):
    file = written(tmp_path, "jobs: [{job_id: shared, command: 'true'}]\n")
    node.run("apply", str(file), "--source", "a").ok()
    refused = node.run("apply", str(file), "--source", "b")
    assert refused.code == 1
    assert "--adopt" in refused.err
    node.run("apply", str(file), "--source", "b", "--adopt").ok()
    assert node.run("jobs", "show", "shared", "--json").ok().json()["source"] == "b"
    node.run("jobs", "delete", "shared").ok()
    assert "shared" not in ids(node)
    assert node.run("jobs", "delete", "shared").code == 1


def test_a_folder_is_applied_whole(node: NodeProcess, tmp_path: Path):
    (tmp_path / "in").mkdir()
    written(tmp_path / "in", "jobs: [{job_id: f1, command: 'true'}]\n", "a.yaml")
    written(tmp_path / "in", "jobs: [{job_id: f2, command: 'true'}]\n", "b.yml")
    written(tmp_path / "in", "not: [a job file", "notes.txt")
    done = node.run("apply", str(tmp_path / "in"), "--json").ok().json()
    assert done["created"] == ["f1", "f2"]
