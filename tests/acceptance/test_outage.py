"""While PostgreSQL is away a node lives on, promises nothing, and loses nothing."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from tests.support.asking import Api
from tests.support.embedded import wait_until
from tests.support.ledger import COMMAND, TASKS, Books, postmaster, read_lines
from tests.support.node import NodeProcess

AWAY_S = 6
Away = Callable[[NodeProcess], AbstractContextManager[None]]


def jobs() -> str:
    often = [
        {"job_id": f"often-{n}", "schedule": "* * * * * *", "python": "work:shared"}
        for n in range(5)
    ]
    long = [
        {"job_id": "shared", "python": "work:shared", "args": [AWAY_S]},
        {"job_id": "process", "python": "work:process", "args": [AWAY_S]},
        {"job_id": "command", "command": COMMAND.format(work=f"sleep {AWAY_S}")},
    ]
    return yaml.safe_dump({"jobs": [{"overlap": "allow", **job} for job in often + long]})


@contextmanager
def gone(node: NodeProcess) -> Iterator[None]:
    """Kill it, and take its disk away, so that it cannot come back."""
    data = node.data_dir / "postgres" / "data"
    away = data.with_name("away")
    pid = postmaster(node.data_dir)
    backends = psutil.Process(pid).children(recursive=True)
    data.rename(away)
    for process in [psutil.Process(pid), *backends]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            data.rmdir()
        away.rename(data)


@contextmanager
def hung(node: NodeProcess) -> Iterator[None]:
    """Stop it where it stands: it answers nobody, and closes nothing."""
    server = psutil.Process(postmaster(node.data_dir))
    family = [server, *server.children(recursive=True)]
    for process in family:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)


@pytest.mark.slow
@pytest.mark.parametrize("away", [gone, hung])
def test_work_goes_on_and_is_told_when_the_database_is_back(land: Path, away: Away):
    (land / "work.py").write_text(TASKS)
    file = land / "jobs.yaml"
    file.write_text(jobs())
    with NodeProcess(land / "data", jobs=[file], cwd=land) as node, Api(node) as api:
        running = [api.trigger(job) for job in ("shared", "process", "command")]
        for execution in running:
            api.wait(execution, "running")
            wait_until(lambda e=execution: ("start", e) in words(land), "it has begun")
        with away(node):
            assert_told(node)
            if away is gone:
                assert_refused(api)
            for execution in running:
                wait_until(lambda e=execution: ("end", e) in words(land), "it ends by itself")
        wait_until(lambda: ready(node), "it is well again")
        for execution in running:
            shown = api.wait(execution)
            assert (shown["state"], shown["attempt"]) == ("succeeded", 1), shown
        after = api.of_job("often-0")[-1]["scheduled_for"]
        wait_until(lambda: api.of_job("often-0")[-1]["scheduled_for"] > after, "it fires again")
        for n in range(5):
            api.do("POST", f"/api/v1/jobs/often-{n}/pause", json={})
        with Books.of(node.data_dir) as books:
            wait_until(lambda: books.unfinished() == 0, "all is over")
            assert books.gaps() == [], "an instant was left out, or came twice"
            reasons = books.rows(
                "SELECT DISTINCT state, reason FROM execution_history WHERE state <> 'succeeded'"
            )
            assert {tuple(row) for row in reasons} <= {("skipped", "paused")}
            (nodes,) = books.rows("SELECT count(*) FROM nodes")
            assert nodes["count"] == 1, "the node took itself for dead"
        assert node.code is None


def assert_told(node: NodeProcess) -> None:
    """The node lives, and says what is wrong."""
    wait_until(lambda: not ready(node), "it shows that the database is away")
    view = httpx.get(f"{node.url}/health/ready", trust_env=False).json()
    assert any("database" in reason for reason in view["reasons"]), view
    troubles = {(trouble["part"], trouble["level"]) for trouble in view["troubles"]}
    assert ("database", "degraded") in troubles, view
    assert httpx.get(f"{node.url}/health/live", trust_env=False).status_code == 200


def assert_refused(api: Api) -> None:
    """Nothing is promised that is not durable."""
    refused = api.ask("POST", "/api/v1/jobs/shared/trigger", json={})
    assert refused.status_code == 503, refused.text
    assert refused.headers["content-type"].startswith("application/problem+json")


def words(folder: Path) -> set[tuple[str, str]]:
    return {(line.word, line.execution) for line in read_lines(folder)}


def ready(node: NodeProcess) -> bool:
    return httpx.get(f"{node.url}/health/ready", trust_env=False).status_code == 200
