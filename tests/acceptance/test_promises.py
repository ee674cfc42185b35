"""What a job is promised on a real node: how often it starts, what it keeps, when it ends."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
import yaml

from tests.support.asking import Api
from tests.support.embedded import wait_until
from tests.support.ledger import COMMAND, TASKS, Books, Line, marked, read_lines
from tests.support.node import NodeProcess

pytestmark = pytest.mark.slow

MORE_TASKS = '''

async def wait_first(ctx):
    """The first attempt waits for its end from without."""
    note("start", ctx)
    if ctx.attempt == 1:
        await asyncio.sleep(60)
    note("end", ctx)


async def steps(ctx):
    """Three steps, each done once, whatever happens in between; it hangs before the third."""
    done = list(ctx.checkpoint or [])
    note("start", ctx)
    for step in range(len(done), 3):
        if step == 2 and ctx.attempt == 1:
            await asyncio.sleep(60)
        turn = await ctx.once(f"step {step} of {ctx.input}", "1h")
        done.append([step, ctx.attempt, turn])
        await ctx.save(done)
    note("end", ctx)
    return done


async def unsaved(ctx):
    """Takes a piece of work, and ends before it can say that it is done."""
    turn = await ctx.once("mail " + str(ctx.input), "1h")
    note("start", ctx)
    if ctx.attempt == 1:
        await asyncio.sleep(60)
    note("end", ctx)
    return turn


async def silent(ctx):
    """Beats once, and then no more where it is the first attempt."""
    note("start", ctx)
    await ctx.heartbeat()
    if ctx.attempt == 1:
        await asyncio.sleep(60)
    note("end", ctx)
'''


def jobs() -> str:
    every = [
        {"job_id": "shared", "python": "work:shared", "args": [60]},
        {"job_id": "process", "python": "work:process", "args": [60]},
        {"job_id": "command", "command": COMMAND.format(work="sleep 60")},
        {"job_id": "first", "python": "work:wait_first"},
        {"job_id": "steps", "python": "work:steps"},
        {"job_id": "unsaved", "python": "work:unsaved"},
        {"job_id": "silent", "python": "work:silent", "heartbeat": 0.3, "isolation": "process"},
        {"job_id": "silent-command", "heartbeat": 0.3, "command": silent_command()},
        {"job_id": "limited", "python": "work:shared", "concurrency": {"limit": 1}},
    ]
    every += [
        {**job, "job_id": f"{job['job_id']}-once", "guarantee": "at_most_once"}
        for job in every
        if job["job_id"] in {"shared", "process", "command"}
    ]
    kept = [
        {"job_id": "latest", "python": "work:shared", "args": [60], "overlap": "cancel_running"},
        {"job_id": "parent", "python": "work:shared"},
        {"job_id": "child", "python": "work:shared", "dependencies": ["parent"]},
        {"job_id": "heir", "python": "work:shared", "on": {"job": "child", "state": "succeeded"}},
        {"job_id": "listener", "python": "work:shared", "on": {"event": "go"}},
    ]
    return yaml.safe_dump({"jobs": [{"overlap": "allow", **job} for job in every] + kept})


def silent_command() -> str:
    """The first attempt leaves a child that ignores SIGTERM; the second looks whether it lives."""
    return (
        'echo "start $RUNTIME_EXECUTION_ID $RUNTIME_FENCING_TOKEN" >> lines; '
        'if [ "$RUNTIME_ATTEMPT" = 1 ]; then trap "" TERM; echo $$ > silent.pid; '
        "while :; do sleep 0.1; done; fi; "
        "kill -0 $(cat silent.pid) 2>/dev/null && exit 9; "
        'echo "end $RUNTIME_EXECUTION_ID $RUNTIME_FENCING_TOKEN" >> lines'
    )


@pytest.fixture(scope="module")
def node(ground: Path) -> Iterator[NodeProcess]:
    (ground / "work.py").write_text(TASKS + MORE_TASKS)
    file = ground / "jobs.yaml"
    file.write_text(jobs())
    env = {"RUNTIME_TASKS__KILL_GRACE_S": "1", "RUNTIME_SHUTDOWN__GRACE_S": "1"}
    with NodeProcess(ground / "data", jobs=[file], env=env, cwd=ground) as running:
        yield running


@pytest.fixture
def api(node: NodeProcess) -> Iterator[Api]:
    with Api(node) as client:
        yield client


def begun(ground: Path, execution: str) -> list[Line]:
    return [line for line in read_lines(ground) if line[:2] == ("start", execution)]


def begin(api: Api, ground: Path, job: str, value: object = None) -> str:
    """Trigger a job, and return once its first line has run."""
    execution = api.trigger(job, value)
    wait_until(lambda: begun(ground, execution), f"{job} has begun")
    return execution


def attempts(shown: dict) -> list[str]:
    return [attempt["state"] for attempt in shown["attempts"]]


def test_a_kill_of_the_node(node: NodeProcess, api: Api, ground: Path):
    """At most once is never started twice; what may be is; keys and checkpoints outlive it."""
    once = [begin(api, ground, f"{kind}-once") for kind in ("shared", "process", "command")]
    first = begin(api, ground, "first")
    steps = begin(api, ground, "steps", "a")
    wait_until(lambda: api.show(steps)["attempt"] == 1, "it runs")
    with Books.of(node.data_dir) as books:
        saved = "SELECT count(*) FROM checkpoints WHERE length(value) > 20"
        wait_until(lambda: books.value(saved) == 1, "two steps are saved")
    mail = begin(api, ground, "unsaved", "b")
    node.kill()
    node.start()
    assert not list(marked(node.data_dir, but=node.pid))
    for execution in once:
        shown = api.wait(execution)
        assert (shown["state"], shown["reason"], attempts(shown)) == ("dead", "lost", ["lost"])
        assert len(begun(ground, execution)) == 1
    shown = api.wait(first)
    assert (shown["state"], attempts(shown)) == ("succeeded", ["lost", "succeeded"])
    tokens = [line.token for line in begun(ground, first)]
    assert tokens == sorted(set(tokens))
    assert tokens[-1] == shown["fencing_token"]
    assert api.wait(steps)["result"] == [[0, 1, "first"], [1, 1, "first"], [2, 2, "first"]]
    assert api.wait(mail)["result"] == "again"
    other = api.wait(api.trigger("unsaved", "b"), "running", "succeeded")
    assert other["attempt"] == 1
    api.do("POST", f"/api/v1/executions/{other['execution_id']}/cancel", json={})
    api.wait(other["execution_id"], "cancelled")


def test_who_stops_beating_is_ended_before_it_is_tried_again(api: Api, ground: Path):
    for job in ("silent", "silent-command"):
        shown = api.wait(api.trigger(job))
        assert (shown["state"], attempts(shown)) == ("succeeded", ["lost", "succeeded"]), shown
        ended, again = shown["attempts"]
        assert "no heartbeat" in ended["error"]
        assert datetime.fromisoformat(ended["finished_at"]) <= datetime.fromisoformat(
            again["started_at"]
        )


@pytest.mark.parametrize("kind", ["shared", "process", "command"])
def test_running_work_can_be_cancelled(node: NodeProcess, api: Api, ground: Path, kind: str):
    execution = begin(api, ground, kind)
    api.do("POST", f"/api/v1/executions/{execution}/cancel", json={})
    shown = api.wait(execution)
    assert (shown["state"], shown["reason"]) == ("cancelled", "cancelled")
    assert Line("end", execution, shown["fencing_token"]) not in read_lines(ground)
    assert not [p for p in marked(node.data_dir) if runs(p, execution)]


def runs(process: psutil.Process, execution: str) -> bool:
    try:
        return process.environ().get("RUNTIME_EXECUTION_ID") == execution
    except psutil.Error:
        return False


def test_a_newer_run_cancels_the_one_that_runs(api: Api, ground: Path):
    old = begin(api, ground, "latest")
    new = begin(api, ground, "latest")
    assert api.wait(old)["state"] == "cancelled"
    assert api.show(new)["state"] == "running"
    api.do("POST", f"/api/v1/executions/{new}/cancel", json={})
    assert api.wait(new)["state"] == "cancelled"


def test_what_follows_from_a_success_and_from_an_event(api: Api):
    parent = api.trigger("parent")
    wait_until(lambda: api.of_job("heir"), "the heir of the child of the parent has run")
    (child,), (heir,) = api.of_job("child"), api.of_job("heir")
    assert api.wait(child["execution_id"])["state"] == "succeeded"
    assert api.wait(heir["execution_id"])["state"] == "succeeded"
    assert api.show(parent)["finished_at"] <= child["started_at"]
    api.do("POST", "/api/v1/events/go", json={"payload": {"n": 1}})
    wait_until(lambda: api.of_job("listener"), "the listener has run")
    assert api.wait(api.of_job("listener")[0]["execution_id"])["state"] == "succeeded"
    assert len(api.of_job("listener")) == 1


def test_one_at_a_time_never_overlaps(api: Api):
    done = [api.wait(execution) for execution in [api.trigger("limited") for _ in range(20)]]
    spans = sorted((shown["started_at"], shown["finished_at"]) for shown in done)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert {shown["state"] for shown in done} == {"succeeded"}


def test_what_outlives_the_shutdown_is_lost_and_costs_nothing(
    node: NodeProcess, api: Api, ground: Path
):
    first = begin(api, ground, "first")
    once = begin(api, ground, "command-once")
    assert node.stop() == 0
    assert not list(marked(node.data_dir))
    node.start()
    shown = api.wait(first)
    assert (shown["state"], attempts(shown)) == ("succeeded", ["lost", "succeeded"])
    shown = api.wait(once)
    assert (shown["state"], attempts(shown)) == ("dead", ["lost"])
    with Books.of(node.data_dir) as books:
        spent = books.rows(
            "SELECT job_id, failures, losses FROM execution_history "
            "WHERE job_id IN ('first', 'command-once') ORDER BY id DESC LIMIT 2"
        )
    assert [tuple(row) for row in spent] == [("command-once", 0, 0), ("first", 0, 0)]
