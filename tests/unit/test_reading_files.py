"""Which files are read: all of them and each once; and what stands in them, as it was written."""

import os

import pytest

from runtime.files.load import load_files, read_texts
from runtime.files.places import InvalidFileError

JOB = 'jobs: [{job_id: a, command: "true"}]'


def told(*paths) -> str:
    with pytest.raises(InvalidFileError) as caught:
        load_files(paths)
    return str(caught.value)


def test_a_folder_named_like_a_file_is_looked_into(tmp_path):
    inner = tmp_path / "x.yaml"
    inner.mkdir()
    (inner / "a.yml").write_text(JOB)
    assert read_texts([tmp_path]) == [(str(inner / "a.yml"), JOB.encode())]


def test_a_file_named_twice_is_read_once(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(JOB)
    assert len(read_texts([file, tmp_path, file])) == 1


def test_no_file_is_passed_over(tmp_path):
    """Under --prune a file that was not read would delete its jobs."""
    (tmp_path / "a.yaml").write_text(JOB)
    (tmp_path / "gone.yaml").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.yaml").symlink_to(tmp_path / "loop.yaml")
    os.mkfifo(tmp_path / "pipe.yaml")
    said = told(tmp_path).splitlines()
    assert [line.rpartition(": ")[0].removeprefix(f"{tmp_path}/") for line in said] == [
        "gone.yaml:1:1: cannot be read",
        "loop.yaml:1:1: cannot be read",
        "pipe.yaml:1:1",
    ]


def test_what_cannot_be_read_is_told_with_what_is_wrong(tmp_path):
    file = tmp_path / "b.yaml"
    file.write_text("jobs: 5")
    long = tmp_path / ("a" * 5000)
    said = told(file, tmp_path / "none.yaml", long)
    assert "jobs are a list" in said
    assert "none.yaml:1:1: cannot be read: No such file or directory" in said
    assert "File name too long" in said


def test_a_folder_that_cannot_be_listed_is_told(tmp_path, monkeypatch):
    (tmp_path / "a.yaml").write_text(JOB)
    (tmp_path / "secret").mkdir()
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert told(tmp_path) == f"{tmp_path / 'secret'}:1:1: cannot be read: Permission denied"


@pytest.mark.parametrize(
    "written", ["1.10", "0755", "1e3", "08", "True", "yes", ".inf", "0x1F", "+1", "9" * 500, "-"]
)
def test_a_variable_is_the_text_that_was_written(tmp_path, written):
    file = tmp_path / "a.yaml"
    value = "'-'" if written == "-" else written
    file.write_text(
        f"defaults: {{env: {{D: {value}}}}}\n"
        f"jobs:\n- {{job_id: a, command: x}}\n- {{job_id: b, command: x, env: {{V: {value}}}}}\n"
        f"- {{job_id: c, env: {{}}, command: x}}\n"
    )
    jobs = {job.spec.job_id: job.spec.task for job in load_files([file]).jobs}
    assert jobs["a"].env == {"D": written}
    assert jobs["b"].env == {"V": written}


def test_a_header_is_the_text_that_was_written(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("jobs: [{job_id: a, http: {url: 'http://h', headers: {X-Version: 1.10}}}]")
    (job,) = load_files([file]).jobs
    assert job.spec.task.headers == {"X-Version": "1.10"}


def test_elsewhere_a_number_is_a_number(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("jobs: [{job_id: a, python: 'm:f', kwargs: {env: {V: 1.10}}, args: [1.10]}]")
    (job,) = load_files([file]).jobs
    assert (job.spec.task.kwargs, job.spec.task.args) == ({"env": {"V": 1.1}}, (1.1,))


@pytest.mark.parametrize("value", ["", "~", "null", "[1]", "{a: 1}"])
def test_a_variable_without_a_text_is_refused(tmp_path, value):
    file = tmp_path / "a.yaml"
    file.write_text(f"jobs: [{{job_id: a, command: x, env: {{V: {value}}}}}]")
    assert "jobs[0].env.V:" in told(file)


@pytest.mark.parametrize("name", ["k" * 201, "a\\tb", ""])
def test_a_calendars_name_is_one_that_can_be_shown(tmp_path, name):
    file = tmp_path / "a.yaml"
    file.write_text(f'calendars: {{"{name}": [2026-01-01]}}\njobs: []')
    assert ":1:13: calendars" in told(file)
    file.write_text('calendars: {"Feiertage, Köln": [2026-01-01]}\njobs: []')
    assert [name for _, name in load_files([file]).calendars] == ["Feiertage, Köln"]


def test_a_key_neither_fills_a_page_nor_steers_a_terminal(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text('"\\e]0;x\\a": 1\n? ' + "k" * 100_000 + "\n: 1\n")
    said = told(file)
    assert "\x1b" not in said
    assert len(said) < 1000
    file.write_text('"\\e[2J": 1\n"\\e[2J": 2\n')
    assert "\x1b" not in told(file)
