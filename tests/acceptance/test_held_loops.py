"""A task that cannot be cancelled ends at its timeout, and nobody but its host-mates notices.

`TICKWRIGHT_TEST_KILL_GRACE` is the kill grace in seconds: 1 where it is not set, a node's own
default is 5.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from tests.support.asking import Api
from tests.support.embedded import wait_until
from tests.support.ledger import TASKS, Books, read_lines
from tests.support.node import NodeProcess

pytestmark = pytest.mark.slow

GRACE_S = float(os.environ.get("TICKWRIGHT_TEST_KILL_GRACE", "1"))
TIMEOUT_S = 2.0
SLACK_S = 2.0
MATES = 5
HOLDERS = """
import ctypes


async def mate(ctx):
    note("start", ctx)
    if ctx.attempt == 1:
        await asyncio.sleep(60)


async def spin(ctx):
    note("start", ctx)
    while True:
        pass


async def c_call(ctx):
    note("start", ctx)
    ctypes.PyDLL(None).sleep(30)  # keeps the interpreter lock, so that no thread of ours runs


async def block(ctx):
    note("start", ctx)
    time.sleep(30)
"""


@pytest.fixture(scope="module")
def node(ground: Path) -> Iterator[NodeProcess]:
    (ground / "work.py").write_text(TASKS + HOLDERS)
    often = {"schedule": "* * * * * *", "overlap": "allow"}
    jobs = [
        {
            "job_id": f"{how}-{isolation}",
            "python": f"work:{how}",
            "isolation": isolation,
            "timeout": TIMEOUT_S,
        }
        for how in ("spin", "c_call", "block")
        for isolation in ("shared", "process")
    ]
    jobs += [
        {"job_id": "mate", "python": "work:mate"},
        {"job_id": "often-command", "command": "true", **often},
        {"job_id": "often-process", "python": "work:process", "args": [0], **often},
        {"job_id": "often-shared", "python": "work:shared", "args": [0], **often},
        {"job_id": "often-elsewhere", "python": "work:shared", "args": [0], "pool": "b", **often},
    ]
    for job in jobs:
        job.setdefault("overlap", "allow")
    file = ground / "jobs.yaml"
    file.write_text(yaml.safe_dump({"jobs": jobs}))
    env = {"RUNTIME_TASKS__KILL_GRACE_S": str(GRACE_S), "RUNTIME_POOLS__B__SLOTS": "8"}
    with NodeProcess(ground / "data", jobs=[file], env=env, cwd=ground) as running:
        yield running


def at(instant: str) -> datetime:
    return datetime.fromisoformat(instant)


@pytest.mark.parametrize("how", ["spin", "c_call", "block"])
def test_what_cannot_be_cancelled_ends_at_its_timeout(node: NodeProcess, ground: Path, how: str):
    with Api(node) as api, Books.of(node.data_dir) as books:
        mates = [api.trigger("mate") for _ in range(MATES)]
        for mate in mates:
            api.wait(mate, "running")
        wait_until(
            lambda: {line.execution for line in read_lines(ground)} >= set(mates), "the mates run"
        )
        held = {kind: api.trigger(f"{how}-{kind}") for kind in ("shared", "process")}
        beats: list[datetime] = []

        def ended() -> bool:
            beat = books.value("SELECT max(last_beat_at) FROM nodes")
            if not beats or beat > beats[-1]:
                beats.append(beat)
            return not books.rows(
                "SELECT FROM executions WHERE job_id = ANY($1)",
                [f"{how}-shared", f"{how}-process"],
            )

        wait_until(ended, "they have been killed")
        for kind, execution in held.items():
            shown = api.show(execution)
            assert (shown["state"], shown["reason"]) == ("dead", "timed_out"), shown
            took_s = shown["duration_s"]
            print(f"{how} {kind}: ended after {took_s:.2f} s")  # noqa: T201 - figures for -s
            assert TIMEOUT_S <= took_s <= TIMEOUT_S + GRACE_S + SLACK_S
        killed = at(api.show(held["shared"])["finished_at"])
        again = []
        for mate in mates:
            shown = api.wait(mate, "succeeded")
            assert [a["state"] for a in shown["attempts"]] == ["lost", "succeeded"]
            again.append((at(shown["attempts"][1]["started_at"]) - killed).total_seconds())
        spent = books.rows("SELECT failures, losses FROM execution_history WHERE job_id = 'mate'")
        assert {tuple(row) for row in spent} == {(0, 0)}, "the kill was charged to a host-mate"
        print(f"host-mates began again {max(again):.2f} s after the kill")  # noqa: T201 - figures for -s
        pause_s = max((b - a).total_seconds() for a, b in pairwise(beats))
        print(f"{len(beats)} beats, at most {pause_s:.2f} s apart")  # noqa: T201 - figures for -s
        assert pause_s < 5.0, "the node would have been taken for dead"
        since, until = at(api.show(held["shared"])["started_at"]), killed + timedelta(seconds=1)
        for job in ("often-command", "often-process", "often-shared", "often-elsewhere"):
            late = lateness(books, job, since, until)
            print(f"{job}: {len(late)} runs, late {max(late):.3f} s at most")  # noqa: T201 - figures for -s
            assert len(late) >= TIMEOUT_S + GRACE_S
            assert statistics.median(late) < 1.0


def lateness(books: Books, job: str, since: datetime, until: datetime) -> list[float]:
    """How late each instant of a span began, in seconds, once all of them are over."""
    wait_until(
        lambda: (
            not books.rows(
                "SELECT FROM executions WHERE job_id = $1 AND scheduled_for < $2", job, until
            )
        ),
        f"{job} is done",
    )
    rows = books.rows(
        "SELECT extract(epoch FROM started_at - scheduled_for)::float8 AS late, state, attempt "
        "FROM execution_history WHERE job_id = $1 AND scheduled_for BETWEEN $2 AND $3",
        job,
        since,
        until,
    )
    assert {row["state"] for row in rows} == {"succeeded"}
    return [row["late"] for row in rows if row["attempt"] == 1]
