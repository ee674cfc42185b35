"""scripts/import-periodics: what cannot be converted is one sentence, and nothing on stdout."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.files.load import load_files

SCRIPT = Path(__file__).parents[2] / "scripts" / "import-periodics"


def convert(*arguments: object):
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        ("", "this is not JSON"),
        ("[" * 100_000, "this is not JSON"),
        ("{}", "this is not a list"),
        ("[5]", "[0]: this is not a periodic job with a name"),
        ('[{"cron": "@daily"}]', "[0]: this is not a periodic job with a name"),
        ('[{"name": "a"}]', "[0] a: it has none of cron"),
        ('[{"name": "a", "cron": "@daily", "max_concurrency": 2}]', "max_concurrency 2"),
    ],
)
def test_what_cannot_be_converted_is_told_in_a_sentence(tmp_path, content, said):
    file = tmp_path / "p.json"
    if content is not None:
        file.write_text(content)
    done = convert(file)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [(), ("a", "b"), ("--help",)])
def test_a_wrong_command_line_is_exit_code_2(arguments):
    done = convert(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: ")


def test_what_is_converted_can_be_loaded(tmp_path):
    periodics = [
        {"name": "a", "cron": "0 5 * * *", "cluster": "c", "timeout": "2h", "max_concurrency": 1},
        {"name": "b", "interval": "90m"},
        {"name": "c", "minimum_interval": "24h"},
    ]
    (tmp_path / "p.json").write_text(json.dumps(periodics))
    file = tmp_path / "jobs.yaml"
    file.write_text(convert(tmp_path / "p.json").stdout)
    found = {job.spec.job_id: job.spec for job in load_files([file]).jobs}
    assert {name: spec.schedule.text for name, spec in found.items()} == {
        "a": "0 5 * * *",
        "b": "@every 90m",
        "c": "@after 24h",
    }
    assert [found[name].overlap for name in "abc"] == ["skip", "allow", "allow"]
    assert (found["a"].tags, found["a"].timeout_s) == (("c",), 7200.0)
