"""`runtime check`: every error of every file with its place, and the next fires without one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from runtime.cli.main import commands

GOOD = """
jobs:
  - job_id: data_ingestion
    schedule: "0 0 * * *"
    command: python ingest.py
  - job_id: daily_report
    schedule: "0 0 * * *"
    command: python generate_report.py
    dependencies: [data_ingestion]
    max_retries: 3
    timeout: 3600
  - job_id: at_hand
    command: "true"
  - job_id: after_a_day
    schedule: "@after 24h"
    command: "true"
  - job_id: off
    schedule: "@hourly"
    command: "true"
    enabled: false
"""


def check(*arguments: object):
    return CliRunner().invoke(commands, ["check", *map(str, arguments)], standalone_mode=False)


def written(folder: Path, text: str, name: str = "jobs.yaml") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def test_right_files_show_the_next_three_fires_of_each_job(tmp_path: Path):
    done = check(written(tmp_path, GOOD), "--json")
    assert done.return_value == 0
    said = json.loads(done.stdout)
    assert said["errors"] == []
    fires = {job["job_id"]: job["next"] for job in said["jobs"]}
    assert {name: len(found) for name, found in fires.items()} == {
        "data_ingestion": 3,
        "daily_report": 3,
        "at_hand": 0,
        "after_a_day": 1,
        "off": 0,
    }
    assert fires["daily_report"] == sorted(fires["daily_report"])
    assert all("T00:00:00" in fire for fire in fires["daily_report"])


def test_plain_columns_name_every_job(tmp_path: Path):
    done = check(written(tmp_path, GOOD))
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["JOB", "SCHEDULE", "NEXT", "FIRES"]
    assert [line.split()[0] for line in lines[1:-1]] == [
        "data_ingestion",
        "daily_report",
        "at_hand",
        "after_a_day",
        "off",
    ]
    assert lines[-1] == "5 jobs, no errors"


def test_every_error_is_told_with_its_place(tmp_path: Path):
    one = written(
        tmp_path,
        "jobs:\n  - job_id: a\n    schedule: '61 * * * *'\n    command: x\n    timeout: soon\n",
        "one.yaml",
    )
    two = written(tmp_path, "jobs:\n  - job_id: b\n    command: x\n    retires: 3\n", "two.yaml")
    done = check(one, two)
    assert done.return_value == 1
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        f"{one}:3:15",
        f"{one}:5:14",
        f"{two}:4:5",
        "3 errors",
    ]
    assert "jobs[0].timeout" in lines[1]
    assert "max_retries" in lines[2] or "retires" in lines[2]


def test_errors_are_json_for_programs(tmp_path: Path):
    file = written(tmp_path, "jobs:\n  - job_id: a\n    command: x\n    timeout: soon\n")
    done = check(file, "--json")
    assert done.return_value == 1
    (error,) = json.loads(done.stdout)["errors"]
    assert {**error, "message": ""} == {
        "file": str(file),
        "line": 4,
        "column": 14,
        "path": "jobs[0].timeout",
        "message": "",
    }


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        (
            (
                "defaults: {command: x}\n"
                "jobs: [{job_id: a, dependencies: [b]}, {job_id: b, dependencies: [a]}]"
            ),
            "2:",
            "circle",
        ),
        ("jobs:\n  - {job_id: a, command: x, dependencies: [bb]}\n", "2:", 'no job "bb"'),
        ("jobs:\n  - {job_id: a, python: 'os:nothing_here'}\n", "2:", "cannot be imported"),
        ("jobs:\n  - {job_id: a, python: 'no_such_package.x:f'}\n", "2:", "cannot be imported"),
        (
            "jobs:\n- {job_id: a, command: x, schedule: {cron: '@daily', calendar: [xmas]}}\n",
            "2:",
            'no calendar "xmas"',
        ),
        ("jobs:\n  - {job_id: a, command: x}\n  - {job_id: a, command: y}\n", "3:", "already"),
        ("dags:\n  - {dag_id: etl}\n", "2:", "needs a list of tasks"),
        ("jobs: [", "", "jobs.yaml:"),
        ("a: !!python/object:os.system x\n", "1:", "tag"),
        ("jobs:\n  - job_id: 'a\\0'\n    command: x\n", "2:", ""),
    ],
)
def test_what_a_file_cannot_be(tmp_path: Path, text: str, place: str, said: str):
    file = written(tmp_path, text)
    done = check(file)
    assert done.return_value == 1, done.output
    assert f"{file}:{place}" in done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_job_that_is_applied_already_may_be_named(tmp_path: Path):
    file = written(tmp_path, "jobs:\n  - {job_id: a, command: x, dependencies: [elsewhere]}\n")
    assert check(file).return_value == 1
    assert check(file, "--known", "elsewhere").return_value == 0


def test_jobs_of_two_tenants_do_not_know_each_other(tmp_path: Path):
    written(tmp_path, "tenant: one\njobs:\n  - {job_id: a, command: x}\n", "one.yaml")
    written(
        tmp_path,
        "tenant: two\njobs:\n  - {job_id: b, command: x, dependencies: [a]}\n",
        "two.yaml",
    )
    done = check(tmp_path)
    assert done.return_value == 1
    assert 'no job "a"' in done.stderr


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path):
    done = check(tmp_path / "nothing.yaml")
    assert done.return_value == 1
    assert "nothing.yaml" in done.stderr
    assert check(tmp_path).return_value == 1


def test_the_files_that_are_shipped_are_right():
    config = Path(__file__).resolve().parents[3] / "config"
    assert check(config / "jobs.yaml").return_value == 0


def test_a_dag_of_ten_thousand_tasks_is_answered(tmp_path: Path):
    deep = "".join(
        f"      - {{task_id: t{n}, command: x, dependencies: [{f't{n - 1}' if n else ''}]}}\n"
        for n in range(10_000)
    )
    wide = "".join(f"      - {{task_id: t{n}, command: x}}\n" for n in range(10_000))
    every = ", ".join(f"t{n}" for n in range(10_000))
    end = f"      - {{task_id: z, command: x, dependencies: [{every}]}}"
    file = written(
        tmp_path,
        f"dags:\n  - dag_id: deep\n    tasks:\n{deep}  - dag_id: wide\n    tasks:\n{wide}{end}",
    )
    # Hours, where asyncio spells its main task's result out.
    done = subprocess.run(
        [sys.executable, "-m", "runtime.cli.main", "check", str(file)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("2 jobs, no errors\n")


def test_hints_are_given_for_the_first_errors_only(tmp_path: Path):
    dags = "".join(
        f"  - {{dag_id: d{n}, tasks: [{{task_id: a, dag: e{n}}}]}}\n" for n in range(3000)
    )
    jobs = "".join(f"  - {{job_id: j{n}, command: x, dependencies: [k{n}]}}\n" for n in range(3000))
    fields = "".join(f"    taks_{n}: 1\n" for n in range(3000))
    file = written(tmp_path, f"dags:\n{dags}jobs:\n{jobs}")
    found = check(file, "--json").output
    errors = [error["message"] for error in json.loads(found)["errors"]]
    assert len(errors) == 6000
    assert 0 < sum("did you mean" in error for error in errors) <= 40
    unknown = written(tmp_path, f"dags:\n  - dag_id: d\n    tasks: [{{}}]\n{fields}", "fields.yaml")
    errors = [error["message"] for error in json.loads(check(unknown, "--json").output)["errors"]]
    assert sum("there is no field" in error for error in errors) == 3000
    assert sum("did you mean" in error for error in errors) <= 20
