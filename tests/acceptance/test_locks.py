"""Locks on a whole node: seen and released by command, and free by their TTL when it is killed."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.embedded import wait_until
from tests.support.node import NodeProcess

NAME = "till / one's"
TASKS = f"""
import asyncio, os

NAME = {NAME!r}

async def hold(ctx):
    async with ctx.lock(NAME, ctx.input["ttl"]) as lock:
        ledger = os.open("ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(ledger, f"{{lock.token}}\\n".encode())
        os.fsync(ledger)
        os.close(ledger)
        while not os.path.exists("go"):
            await asyncio.sleep(0.02)
        return lock.token
"""
JOBS = """
jobs:
  - job_id: hold
    python: "lock_tasks:hold"
    overlap: allow
"""


def tokens(folder: Path) -> list[int]:
    ledger = folder / "ledger"
    return [int(line) for line in ledger.read_text().split()] if ledger.exists() else []


def test_a_lock_is_seen_released_and_outlives_no_killed_node(ground: Path):
    (ground / "lock_tasks.py").write_text(TASKS)
    (ground / "locks.yaml").write_text(JOBS)
    with NodeProcess(ground / "data", jobs=[ground / "locks.yaml"]) as node:

        def hold(ttl: str) -> str:
            given = json.dumps({"ttl": ttl})
            return node.run("trigger", "hold", "--input", given, "--json").json()["execution_id"]

        def shown(execution_id: str):
            return node.run("executions", "show", execution_id, "--json").json()

        assert node.run("locks", "--json").json() == []
        first = hold("1h")
        wait_until(lambda: tokens(ground), "the first holds it")
        (lock,) = node.run("locks", "list", "--json").json()
        assert (lock["name"], lock["execution_id"], lock["job_id"]) == (NAME, first, "hold")
        assert lock["token"] == tokens(ground)[0]
        assert NAME in node.run("locks").ok().out
        second = hold("2s")
        released = node.run("locks", "release", NAME).ok()
        assert f"released {NAME}, held by hold {first}" in released.err
        wait_until(lambda: len(tokens(ground)) > 1, "the second holds it")
        wait_until(lambda: shown(first)["state"] == "dead", "the first was ended")
        assert "was lost: somebody released it" in shown(first)["error"]

        node.kill()
        node.start()
        wait_until(lambda: len(tokens(ground)) > 2, "its next attempt holds it")
        (ground / "go").touch()
        wait_until(lambda: shown(second)["state"] == "succeeded", "the second ends well")
        assert shown(second)["result"] == tokens(ground)[2]
        assert [one["state"] for one in shown(second)["attempts"]] == ["lost", "succeeded"]
        assert tokens(ground) == sorted(set(tokens(ground)))
        missing = node.run("locks", "release", "no such lock")
        assert missing.code == 1
        assert missing.err.count("\n") == 1
        assert "nobody holds a lock" in missing.err
