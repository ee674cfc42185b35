"""Ten thousand coroutines sleep side by side on one node that has slots for them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from tests.support.asking import Api
from tests.support.embedded import wait_until
from tests.support.ledger import TASKS, Books
from tests.support.node import NodeProcess

SLEEPERS = 10_000
SLEEP_S = 10


@pytest.mark.slow
def test_all_sleep_at_once(land: Path):
    (land / "work.py").write_text(TASKS)
    file = land / "jobs.yaml"
    # Its schedule is over: every instant that runs is one that the backfill asks for.
    now = datetime.now(UTC)  # noqa: TID251 - no Clock out here
    until = now.replace(microsecond=0) - timedelta(hours=1)
    job = {
        "job_id": "sleeper",
        "schedule": {"cron": "* * * * * *", "end": until.isoformat()},
        "python": "work:shared",
        "args": [SLEEP_S],
        "overlap": "allow",
    }
    file.write_text(yaml.safe_dump({"jobs": [job]}))
    env = {"RUNTIME_POOLS__DEFAULT__SLOTS": str(SLEEPERS)}
    with (
        NodeProcess(land / "data", jobs=[file], env=env, cwd=land) as node,
        Api(node) as api,
        Books.of(node.data_dir) as books,
    ):
        span = {
            "from": (until - timedelta(seconds=SLEEPERS)).isoformat(),
            "to": (until - timedelta(seconds=1)).isoformat(),
            "limit": SLEEPERS,
        }
        api.do("POST", "/api/v1/jobs/sleeper/backfill", json=span)
        most = 0

        def drained() -> bool:
            nonlocal most
            running, left = books.rows(
                "SELECT count(*) FILTER (WHERE state = 'running'), count(*) FROM executions"
            )[0]
            most = max(most, running)
            return left == 0

        wait_until(drained, "all have slept")
        (row,) = books.rows(
            "SELECT count(*) AS done, max(started_at) AS last, min(finished_at) AS first, "
            "min(started_at) AS began FROM execution_history WHERE state = 'succeeded'"
        )
        spread_s = (row["last"] - row["began"]).total_seconds()
        print(f"{most} at once, all begun within {spread_s:.2f} s")  # noqa: T201 - figures for -s
        assert row["done"] == SLEEPERS
        assert row["last"] < row["first"], "not all of them slept at one moment"
        assert most == SLEEPERS
