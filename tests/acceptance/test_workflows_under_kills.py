"""Real workflows while nodes are killed: each child after its parents, each task once, all done.

`TICKWRIGHT_TEST_WORKFLOW_KILLS` says for how many seconds a node is killed every five (10 where
it does not), `TICKWRIGHT_TEST_WORKFLOW_TASKS` how many tasks a workflow that is run has at most.
"""

import os
import random
import threading
from collections.abc import Callable
from pathlib import Path

import anyio.to_thread
import pytest

from tests.support.cluster import TOKEN, cluster
from tests.support.embedded import wait_until
from tests.support.ledger import Books
from tests.support.node import NodeProcess
from tests.support.workflows import (
    MOST_TASKS,
    converted,
    needs_traces,
    one_end_each,
    telling,
    traces,
)

pytestmark = [pytest.mark.postgres, pytest.mark.slow, needs_traces]

EVERY_S = 5
KILLS = int(os.environ.get("TICKWRIGHT_TEST_WORKFLOW_KILLS", "10")) // EVERY_S
SEED = int(os.environ.get("TICKWRIGHT_TEST_SEED", "1"))
OVER_S = 600.0


def begin(land: Path, run: Callable) -> dict[str, dict[str, list[str]]]:
    """Apply every workflow, have all begin together; the parents of each task, by run."""
    graphs = {}
    for trace in traces():
        file = converted(trace, land)
        parents = telling(file)
        if len(parents) <= MOST_TASKS:
            run("apply", str(file)).ok()
            graphs[trace.stem] = parents
    runs = {}
    for left, (dag_id, parents) in zip(range(len(graphs), 0, -1), graphs.items(), strict=True):
        asked = run("trigger", dag_id, "--in", f"{left}s", "--json").ok().json()
        runs[asked["run_id"]] = parents
    return runs


def kill_in_turn(nodes: list[NodeProcess], lines: Path) -> None:
    """Once tasks begin, kill -9 a node every five seconds, and start it again at once."""
    rng = random.Random(SEED)
    wait_until(lines.exists, "the first task has begun")
    pause_s = rng.uniform(0.5, 2.0)
    for _ in range(KILLS):
        threading.Event().wait(pause_s)
        node = rng.choice(nodes)
        node.kill()
        node.launch()
        pause_s = EVERY_S
    for node in nodes:
        node.wait_ready()


def survive(land: Path, nodes: list[NodeProcess], books: Books, run: Callable) -> None:
    """Begin all, kill, and hold what became of it against the tasks' own lines."""
    graphs = begin(land, run)
    kill_in_turn(nodes, land / "lines")
    wait_until(
        lambda: books.value("SELECT count(*) FROM dag_runs WHERE finished_at IS NULL") == 0,
        "every run has ended",
        within_s=OVER_S,
    )
    lines = (land / "lines").read_text().splitlines()
    repeated = one_end_each(lines, graphs, books)
    tasks = sum(map(len, graphs.values()))
    print(f"{len(graphs)} workflows, {tasks} tasks, {KILLS} kills, {repeated} begun again")  # noqa: T201 - figures for -s


def test_they_complete_on_one_node_that_is_killed(land):
    with NodeProcess(land / "data", cwd=land) as node, Books.of(node.data_dir) as books:
        survive(land, [node], books, node.run)


@pytest.mark.asyncio
async def test_they_complete_on_three_nodes_of_which_one_is_killed(land, servers):
    async with cluster(land, servers) as house:
        nodes = house.up("a", "b", "c")

        def run(*words: str):
            return nodes[0].run(*words, RUNTIME_TOKEN=TOKEN)

        def all_of_it() -> None:
            with Books({"dsn": house.env["RUNTIME_DATABASE__URL"]}) as books:
                survive(land, nodes, books, run)

        await anyio.to_thread.run_sync(all_of_it)
