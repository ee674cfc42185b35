"""A node, or its PostgreSQL, is killed or stopped at random moments, and nothing is lost.

`TICKWRIGHT_TEST_KILLS` says how often (4 where it does not), `TICKWRIGHT_TEST_SEED` when.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from itertools import count
from pathlib import Path
from typing import Self

import httpx
import psutil
import pytest
import yaml

from tests.support.embedded import gone, wait_until
from tests.support.ledger import (
    COMMAND,
    TASKS,
    Books,
    kill_postgres,
    marked,
    one_story,
    wait_for_lines,
)
from tests.support.node import NodeProcess

KILLS = int(os.environ.get("TICKWRIGHT_TEST_KILLS", "4"))
SEED = int(os.environ.get("TICKWRIGHT_TEST_SEED", "1"))
SCHEDULED = 170
"""Jobs of every second, so this many a second; what is triggered makes it 200."""
TRIGGERED_A_SECOND = 30
TRIGGERED = ("shared", "shared", "once", "command", "command", "process", "failing")
# In turn. `starting`: killed once more while it starts; `both`: with the guardian, which would
# otherwise have ended its tasks; `stopped`: it stands still, for longer than its lease perhaps;
# `ended`: in good order, which loses nothing at all.
WAYS = ("node", "postgres", "both", "ended", "starting", "stopped", "node", "guardian")


_LOST = "SELECT count(*) FROM attempts WHERE state = 'lost'"


def jobs() -> str:
    each = {"overlap": "allow", "timeout": "1m"}
    tasks = {
        "shared": {"python": "work:shared"},
        "command": {"command": COMMAND.format(work="true")},
        "process": {"python": "work:process"},
        "failing": {"command": "exit 3"},
        "once": {"python": "work:shared", "guarantee": "at_most_once"},
        "heir": {"python": "work:shared", "on": {"job": "command", "state": "succeeded"}},
    }
    named = [{"job_id": name, **task, **each} for name, task in tasks.items()]
    every = [
        {"job_id": f"every-{n}", "schedule": "* * * * * *", "python": "work:shared", **each}
        for n in range(SCHEDULED)
    ]
    return yaml.safe_dump({"jobs": named + every})


class Asker:
    """Triggers jobs at a steady rate, each until it is acknowledged, over every kill."""

    def __init__(self, node: NodeProcess) -> None:
        self._node = node
        self._over = threading.Event()
        self._numbers = count()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask_on) for _ in range(4)]
        self._began = time.monotonic()
        self.acknowledged: dict[str, str] = {}
        self.faults: list[str] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask_on(self) -> None:
        with httpx.Client(trust_env=False, timeout=30) as client:
            while not self._over.is_set():
                with self._lock:
                    number = next(self._numbers)
                due = self._began + number / TRIGGERED_A_SECOND
                self._over.wait(max(0.0, due - time.monotonic()))
                self._ask(client, number)

    def _ask(self, client: httpx.Client, number: int) -> None:
        """Ask until there is an answer; the key makes a second asking the same as the first."""
        job = TRIGGERED[number % len(TRIGGERED)]
        token_file = self._node.data_dir / "token"
        while not self._over.is_set():
            try:
                answer = client.post(
                    f"{self._node.url}/api/v1/jobs/{job}/trigger",
                    json={},
                    headers={
                        "Authorization": f"Bearer {token_file.read_text().strip()}",
                        "Idempotency-Key": f"ask-{number}",
                    },
                )
            except (httpx.HTTPError, httpx.InvalidURL, OSError):
                self._over.wait(0.1)
                continue
            if answer.status_code in {200, 201}:
                self.acknowledged[answer.json()["execution_id"]] = job
                return
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                self.faults.append(f"{answer.status_code}: {answer.text}")
                return
            self._over.wait(0.1)


def guardian(node: NodeProcess) -> int:
    """The process that starts and ends all that a node runs."""
    family = psutil.Process(node.pid).children()
    (found,) = [p.pid for p in family if "runtime.hosts.guarding" in " ".join(p.cmdline())]
    return found


def interrupt(node: NodeProcess, way: str, rng: random.Random) -> None:
    """Do what a bad day does to a node, once it has run for a random while."""
    if way != "starting":
        wait_for_lines(node.data_dir.parent, rng.randrange(1, 600))
    before = node.pid
    match way:
        case "postgres":
            old = kill_postgres(node.data_dir)
            wait_until(lambda: gone(old), "its PostgreSQL is gone")
            wait_for_lines(node.data_dir.parent, 200)
            assert node.pid == before
            assert node.code is None
        case "stopped":
            node.signal(signal.SIGSTOP)
            threading.Event().wait(rng.uniform(0.5, 7.0))
            node.signal(signal.SIGCONT)
            wait_for_lines(node.data_dir.parent, 200)
            assert node.code is None
        case "guardian":
            os.kill(guardian(node), signal.SIGKILL)
            wait_for_lines(node.data_dir.parent, 200)
            assert node.code is None
        case "both":
            node.signal(signal.SIGSTOP)  # or it would see the guardian's end before its own
            os.kill(guardian(node), signal.SIGKILL)
            node.kill()
            node.start()
        case "ended":
            with Books.of(node.data_dir) as books:
                lost = books.value(_LOST)
                assert node.stop() == 0
            node.start()
            with Books.of(node.data_dir) as books:
                assert books.value(_LOST) == lost, "an end in good order lost work in hand"
        case "starting":
            node.kill()
            node.launch()
            threading.Event().wait(rng.uniform(0.0, 3.0))
            node.kill()
            node.start()
        case _:
            node.kill()
            node.start()
    survivors = [(p.pid, p.cmdline()) for p in marked(node.data_dir, but=node.pid)]
    assert not survivors, f"{way}: what a killed node ran lives on: {survivors}"


def followed(books: Books) -> bool:
    """Whether each success of `command` has one heir; a second one of any is an error."""
    (row,) = books.rows(
        "SELECT count(*) FILTER (WHERE job_id = 'command') AS parents, "
        "count(*) FILTER (WHERE job_id = 'heir') AS heirs "
        "FROM execution_history WHERE state = 'succeeded'"
    )
    assert row["heirs"] <= row["parents"], "a success was told twice"
    return row["heirs"] == row["parents"]


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_whatever_is_killed(land: Path):
    (land / "work.py").write_text(TASKS)
    file = land / "jobs.yaml"
    file.write_text(jobs())
    rng = random.Random(SEED)
    with NodeProcess(land / "data", jobs=[file], cwd=land) as node:
        began = time.monotonic()
        with Asker(node) as asker:
            for number in range(KILLS):
                interrupt(node, WAYS[number % len(WAYS)], rng)
            wait_for_lines(land, 400)
        asked_s = time.monotonic() - began
        assert asker.faults == []
        headers = {"Authorization": f"Bearer {(node.data_dir / 'token').read_text().strip()}"}
        with httpx.Client(base_url=node.url, headers=headers, trust_env=False, timeout=60) as api:
            for n in range(SCHEDULED):
                api.post(f"/api/v1/jobs/every-{n}/pause", json={}).raise_for_status()
        with Books.of(node.data_dir) as books:
            wait_until(
                lambda: books.unfinished() == 0 and followed(books),
                "the node has drained, and each success has its heir",
            )
            told = one_story(land, books, asker.acknowledged, failing="failing", once="once")
            assert books.gaps() == [], "an instant was left out, or came twice"
        assert len(asker.acknowledged) > 0
        rate = sum(v for k, v in told.items() if k in {"succeeded", "dead"}) / asked_s
        print(f"{KILLS} kills, {len(asker.acknowledged)} acknowledged, {rate:.0f}/s, {dict(told)}")  # noqa: T201 - figures for -s
    assert not list(marked(node.data_dir))
