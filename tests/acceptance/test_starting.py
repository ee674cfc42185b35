"""Starting and ending a node: every way it can go wrong is one sentence and an exit code."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import psutil
import pytest

from tests.support.embedded import gone, server_processes, wait_until
from tests.support.node import NodeProcess, run

pytestmark = pytest.mark.slow
GOOD = "jobs: [{job_id: brief, command: sleep 2}, {job_id: slow, command: exec sleep 300}]\n"


def start(ground: Path, *options: str, **env: str):
    return run("start", "--data-dir", str(ground / "never"), *options, cwd=ground, env=env)


def written(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("options", "env", "code", "said"),
    [
        (["--port", "http"], {}, 2, "--port: api.port: a port is a whole number"),
        (["--port", "99999"], {}, 2, "--port: api.port: a port is a whole number"),
        (["--host", "0.0.0.0"], {}, 2, "--host: api.host: the API listens on loopback only"),
        (["--node", "a b"], {}, 2, "node.name: a name is"),
        ([], {"RUNTIME_LEASE__TTLS": "5"}, 2, "environment RUNTIME_LEASE__TTLS: there is no such"),
        ([], {"RUNTIME_SHUTDOWN__GRACE_S": "soon"}, 2, "shutdown.grace_s"),
        ([], {"RUNTIME_ETCD__ENDPOINTS": "http://e:1"}, 2, "a cluster needs database.url"),
        ([], {"RUNTIME_KAFKA__BOOTSTRAP_SERVERS": "k:1"}, 2, "a cluster needs database.url"),
        (["--config", "nowhere.yaml"], {}, 2, "nowhere.yaml: cannot be read"),
        (["--jobs", "nowhere.yaml"], {}, 1, "nowhere.yaml:1:1: cannot be read"),
        (
            [],
            {"RUNTIME_DATABASE__URL": "mysql://x"},
            2,
            "environment RUNTIME_DATABASE__URL: database.url: this must be a URL",
        ),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_what_cannot_start(ground: Path, options, env, code: int, said: str):
    done = start(ground, *options, **env)
    assert done.code == code, done
    assert said in done.err
    assert done.out == ""
    assert done.err.count("\n") == 1
    assert not (ground / "never").exists()


def test_settings_are_told_with_their_place(ground: Path):
    file = written(ground, "bad.yaml", "api:\n  port: many\nnode: {nam: x}\n")
    done = start(ground, "--config", str(file))
    assert done.code == 2
    assert f"{file}:2:9: api.port" in done.err
    assert f"{file}:3:" in done.err
    assert 'did you mean "node.name"?' in done.err


def test_wrong_job_files_start_nothing_and_tell_every_error(ground: Path):
    file = written(
        ground, "bad-jobs.yaml", "jobs:\n- {job_id: a, command: x, timeout: soon}\n- {}\n"
    )
    done = start(ground, "--jobs", str(file))
    assert done.code == 1
    assert f'{file}:2:36: jobs[0].timeout: "soon" is not a duration' in done.err
    assert f"{file}:3:" in done.err
    assert not (ground / "never").exists()


def test_a_missing_callable_ends_the_start_with_its_place(ground: Path):
    file = written(ground, "missing.yaml", "jobs:\n- {job_id: a, python: 'no_such:f'}\n")
    done = run(
        *("start", "--data-dir", str(ground / "missing"), "--port", "0", "--jobs", str(file)),
        cwd=ground,
    )
    assert done.code == 1
    assert f"{file}:2:" in done.err
    assert "no_such" in done.err
    wait_until(lambda: not server_processes(ground / "missing"), "its PostgreSQL has ended")


def test_a_port_in_use_is_named(ground: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = start(ground, "--port", str(port))
    assert done.code == 1
    assert f"the API cannot listen on 127.0.0.1:{port}" in done.err
    assert "--port" in done.err


def test_a_data_directory_that_is_a_file_is_named(ground: Path):
    file = written(ground, "file", "")
    done = run("start", "--data-dir", str(file), "--port", "0", cwd=ground)
    assert done.code == 1
    assert f"{file} is not a folder" in done.err


def test_without_a_database_url_there_is_nothing_to_migrate(ground: Path):
    done = run("migrate", cwd=ground).ok()
    assert "at start" in done.err


def test_the_doctor_needs_no_node(ground: Path):
    done = run("doctor", "--url", "http://127.0.0.1:1", "--json", cwd=ground).ok()
    found = {check["name"]: check for check in done.json()["checks"]}
    assert found["node"]["state"] == "warning"
    assert found["node"]["mend"]
    wrong = run("doctor", "--json", cwd=ground, env={"RUNTIME_API__PORT": "x"})
    assert (wrong.code, wrong.json()["state"]) == (1, "wrong")
    away = run(
        *("doctor", "--json", "--url", "http://127.0.0.1:1"),
        cwd=ground,
        env={"RUNTIME_DATABASE__URL": "postgresql://u:s3cr3t@127.0.0.1:1/x"},
    )
    assert away.code == 1
    assert "s3cr3t" not in away.out


def test_a_second_node_is_told_who_holds_the_data_directory(ground: Path):
    with NodeProcess(ground / "held", options=["--node", "first"]) as first:
        done = run("start", "--data-dir", str(first.data_dir), "--port", "0", cwd=ground)
        assert done.code == 1
        assert "first" in done.err
        assert str(first.pid) in done.err
        assert first.code is None


def test_running_work_finishes_within_the_grace(ground: Path):
    jobs = written(ground, "good.yaml", GOOD)
    with NodeProcess(ground / "graceful", jobs=[jobs]) as node:
        execution = node.run("trigger", "brief", "--json").ok().json()["execution_id"]
        wait_until(lambda: node.run("executions", "--state", "running", "--json").json(), "it runs")
        assert node.stop() == 0
        assert any("ended" in line for line in node.log)
        node.start()
        done = node.run("executions", "show", execution, "--json").ok().json()
        assert (done["state"], done["attempt"]) == ("succeeded", 1)


def test_a_second_signal_ends_at_once_and_leaves_no_process(ground: Path):
    jobs = written(ground, "good.yaml", GOOD)
    with NodeProcess(ground / "hasty", jobs=[jobs]) as node:
        node.run("trigger", "slow").ok()
        wait_until(lambda: node.run("executions", "--state", "running", "--json").json(), "it runs")
        family = psutil.Process(node.pid).children(recursive=True)
        assert any("sleep" in process.name() for process in family)
        node.signal()
        wait_until(lambda: any("second signal" in line for line in node.log), "it is ending")
        node.signal()
        assert node.wait() == 128 + signal.SIGTERM
        wait_until(lambda: all(gone(process.pid) for process in family), "its family has ended")


def test_a_signal_before_the_start_is_over_ends_it_well(ground: Path):
    node = NodeProcess(ground / "early")
    node.launch()
    try:
        wait_until(lambda: any("postgres_created" in line for line in node.log), "it is starting")
        node.signal(signal.SIGINT)
        assert node.wait() in {0, 128 + signal.SIGINT}
    finally:
        node.end()
    wait_until(lambda: not server_processes(node.data_dir), "its PostgreSQL has ended")


def test_a_paused_start_fires_nothing(ground: Path):
    jobs = written(
        ground, "often.yaml", 'jobs: [{job_id: often, schedule: "* * * * * *", command: "true"}]\n'
    )
    with NodeProcess(ground / "paused", jobs=[jobs], options=["--paused"]) as node:
        wait_until(lambda: any("Paused" in line for line in node.out), "it says that it is paused")
        wait_until(
            lambda: node.run("executions", "--state", "skipped", "--json").json(),
            "an instant is recorded as skipped",
        )
        assert node.run("executions", "--state", "succeeded", "--json").json() == []
