"""Nodes killed with -9 before and after statements of a DAG's run: it completes all the same.

`TICKWRIGHT_TEST_CUTS` says at how many places each test cuts (2 where it does not). They are
spread over all that a run takes, which is counted first.
"""

import os
import random
import signal
import sys

import anyio.to_thread
import pytest

from tests.support.cluster import TOKEN, cluster
from tests.support.cut_node import COUNTED
from tests.support.embedded import wait_until
from tests.support.ledger import Books
from tests.support.node import RUNTIME, Done, NodeProcess

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

CUTS = int(os.environ.get("TICKWRIGHT_TEST_CUTS", "2"))
SEED = int(os.environ.get("TICKWRIGHT_TEST_SEED", "1"))
NEVER = 0
DAGS = """
dags:
  - dag_id: inner
    tasks: [{task_id: only, command: "true"}]
  - dag_id: whole
    defaults: {max_lost: 100}
    tasks:
      - {task_id: a, command: "echo '[1, 2, 3]'"}
      - {task_id: b, command: "true", dependencies: [a]}
      - {task_id: m, command: "true", map: "${{ tasks.a.result }}", dependencies: [a]}
      - {task_id: bad, command: "exit 3", dependencies: [a]}
      - {task_id: lost, command: "true", dependencies: [bad]}
      - {task_id: sub, dag: inner, dependencies: [b]}
      - {task_id: end, command: "true", dependencies: [b, m, sub]}
      - {task_id: alas, command: "true"}
      - {task_id: last, command: "true"}
    on_failure_task: alas
    finally_task: last
"""
BECAME = {
    "a": "succeeded",
    "b": "succeeded",
    "m": "succeeded",
    "bad": "failed",
    "lost": "skipped",
    "sub": "succeeded",
    "end": "succeeded",
    "alas": "succeeded",
    "last": "succeeded",
}
TWICE = """
SELECT job_id FROM execution_history h WHERE strpos(job_id, '/') > 0 AND job_id <> 'whole/m'
GROUP BY job_id HAVING count(*) > (SELECT count(*) FROM dag_runs WHERE dag_id = 'whole')
UNION ALL SELECT job_id FROM execution_history WHERE job_id = 'whole/m'
GROUP BY job_id HAVING count(*) <> 3 * (SELECT count(*) FROM dag_runs WHERE dag_id = 'whole')
"""


class House:
    """Nodes that are cut short, and the books that they leave."""

    def __init__(self, nodes: list[NodeProcess], books: Books) -> None:
        self.nodes = nodes
        self.books = books
        self.runs = 0

    def start(self, *cuts: int) -> None:
        """Start every node, each to be cut at a place of its own; without any as users do."""
        for number, node in enumerate(self.nodes):
            cutting = cuts and (sys.executable, "-m", "tests.support.cut_node", str(cuts[number]))
            node.program = cutting or RUNTIME
            node.launch()
        for node in self.nodes:
            node.wait_ready()

    def end(self) -> list[int]:
        """End every node in good order; how far each counted that did."""
        for node in self.nodes:
            assert node.stop() == 0
        lines = [line for node in self.nodes for line in node.log if line.startswith(COUNTED)]
        return [int(line.removeprefix(COUNTED)) for line in lines]

    def over(self) -> bool:
        """Whether as many runs have ended as were asked for."""
        return self.runs == self.books.value(
            "SELECT count(*) FROM dag_runs WHERE dag_id = 'whole' AND finished_at IS NOT NULL"
        )

    def dead(self) -> int:
        """How many nodes are."""
        return sum(node.code is not None for node in self.nodes)

    def command(self, *words: str) -> Done:
        """A command of a user's."""
        return self.nodes[0].run(*words, "--json", RUNTIME_TOKEN=TOKEN)

    def begin(self, *cuts: int) -> tuple[str, ...]:
        """Start nodes that are cut there, and wait for a cut or a run's end; what was asked."""
        self.start(*cuts)
        for node in self.nodes:
            node.signal(signal.SIGUSR2)
        self.runs += 1
        ask = ("trigger", "whole", "--key", f"run {self.runs}")
        self.command(*ask)  # of no avail where the node dies of it: hence the key
        wait_until(lambda: self.dead() or self.over(), "the run is over, or a node is")
        return ask

    def count(self) -> list[int]:
        """How far each node counts in a whole run."""
        self.begin(*[NEVER] * len(self.nodes))
        return self.end()

    def survive(self, *cuts: int) -> bool:
        """A run by nodes that are cut there and die of it together completes; whether any was."""
        ask = self.begin(*cuts)
        died = self.dead() > 0
        for node in self.nodes:
            if node.code is None:
                node.kill()
        self.start()
        self.holds(self.command(*ask).ok().json()["run_id"])
        self.end()
        return died

    def holds(self, run_id: str) -> None:
        """The run completes, as it does where nobody dies, and each task ended once."""
        wait_until(self.over, "the run is over")
        shown = self.command("dags", "runs", "show", run_id).ok().json()
        became = {task["task_id"]: task["state"] for task in shown["tasks"]}
        assert (shown["state"], became) == ("failed", BECAME)
        assert self.books.rows(TWICE) == []
        assert self.books.value("SELECT count(*) FROM executions") == 0


@pytest.mark.asyncio
@pytest.mark.parametrize("names", ["a", "abc"], ids=["one_node", "three_nodes"])
async def test_a_run_completes_wherever_its_nodes_are_cut(names, land, servers):
    async with cluster(land, servers) as cluster_house:
        nodes = [cluster_house.node(name) for name in names]
        file = land / "dags.yaml"
        file.write_text(DAGS)

        def all_of_it() -> None:
            with Books({"dsn": cluster_house.env["RUNTIME_DATABASE__URL"]}) as books:
                house = House(nodes, books)
                house.start()
                house.command("apply", str(file)).ok()
                house.end()
                counted = house.count()
                rng = random.Random(SEED)
                died = 0
                for number in range(CUTS):
                    cuts = [1 + (number * most + rng.randrange(most)) // CUTS for most in counted]
                    died += house.survive(*cuts)
                assert died, "no node was cut: nothing was tried"
                print(f"{died} of {CUTS} runs cut; a whole one counts {counted}")  # noqa: T201 - figures for -s

        await anyio.to_thread.run_sync(all_of_it)
