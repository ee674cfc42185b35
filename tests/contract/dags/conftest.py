"""A house whose runs are driven by hand: tasks end as a test says, without hosts or clocks."""

from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta

import msgspec
import pytest_asyncio

from protocols.dags import POOL, TaskInput
from protocols.ports.store import Budget, Claimed, Finish, GiveBack, Lane, TriggerRequest
from protocols.ports.store.dags import Glance
from runtime.postgres.operations.cancel import cancel_execution
from runtime.postgres.operations.session import transact
from runtime.postgres.pool import API_ROLE, Pool
from runtime.postgres.store import PostgresStore
from tests.contract.store.harness import NOW
from tests.contract.store.postgres_harness import PostgresHarness, on_postgres
from tests.support import dags
from tests.support.postgres import Server

EPOCH_NS = 1_800_000_000_000_000_000
Outcome = Callable[[Claimed], Finish]


def ended(row: Claimed, state: str = "succeeded", **fields) -> Finish:
    """A finish of a claimed execution; `dead` is a failure with no retries left."""
    attempt = {"succeeded": "succeeded", "dead": "failed", "cancelled": "cancelled"}[state]
    return Finish(
        id=row.id,
        fencing_token=row.fencing_token,
        attempt_state=attempt,
        state=state,
        started_ns=EPOCH_NS,
        finished_ns=EPOCH_NS + row.id * 1000,
        reason="failed" if state == "dead" else None,
        **fields,
    )


class DagHouse:
    """A database with one node, and what a DagActor and a worker would ask of its store."""

    def __init__(self, house: PostgresHarness) -> None:
        self.house = house
        self.store: PostgresStore = house.store
        self.owner = house.owner
        self.node = house.node
        self.now = NOW
        self.roots: dict[int, int] = {}
        self.running: dict[int, Claimed] = {}

    async def define(self, dag_id: str, *tasks, **fields) -> int:
        return await dags.define(self.owner, dag_id, *tasks, **fields)

    def later(self, seconds: float) -> datetime:
        self.now += timedelta(seconds=seconds)
        return self.now

    async def begin(self, dag_id: str, given: bytes | None = None) -> int:
        """Trigger a DAG, and have its run begun; the run."""
        run = await self.trigger(dag_id, given)
        await self.take_roots()
        return run

    async def trigger(self, dag_id: str, given: bytes | None = None) -> int:
        """Ask for a run, by a node that lives."""
        request = TriggerRequest(tenant="default", job_id=dag_id, input=given)
        (answer,) = await self.house.store.trigger([request], now=self.now)
        return answer.id

    async def take_roots(self) -> None:
        await self.begin_roots(await self.claim_roots())

    async def claim_roots(self) -> dict[int, int]:
        """Claim the roots that are due; the fencing token of each."""
        claimed = await self.store.claim(
            POOL, self.node, [Budget(Lane("default", 2), 100)], now=self.now, level=1
        )
        return {row.id: row.fencing_token for row in claimed}

    async def begin_roots(self, roots: dict[int, int]) -> None:
        self.roots.update(roots)
        await self.store.begin_runs(self.node, list(roots.items()), now=self.now)

    async def claim(self) -> list[str]:
        """Claim all tasks that are ready; their ids, as `task` or `task[item]`."""
        rows = await self.store.claim(
            "default", self.node, [Budget(Lane("default", 2), 20_000)], now=self.now, level=1
        )
        self.running |= {row.id: row for row in rows}
        return sorted(row.job_id.partition("/")[2] for row in rows)

    async def end(self, **states: str) -> None:
        """End running tasks by name, and take account of it; `t="dead"`."""
        rows = [
            (row, states[name])
            for row in self.running.values()
            if (name := row.job_id.partition("/")[2]) in states
        ]
        await self.finish([ended(row, state) for row, state in rows])

    async def finish_rows(self, rows: list[Claimed]) -> None:
        """End these as successes."""
        await self.finish([ended(row) for row in rows])

    async def finish(self, finishes: list[Finish]) -> None:
        for finish in finishes:
            self.running.pop(finish.id, None)
        await self.store.finish(self.node, finishes)
        await self.advance()

    async def advance(self) -> None:
        while (await self.store.advance(now=self.now, limit=100)).more:
            pass

    async def end_roots(self) -> None:
        await self.store.finish_runs(self.node, list(self.roots.items()), now=self.now)
        await self.advance()

    async def finish_with(self, **results: bytes) -> None:
        """End running tasks by name as successes with these results."""
        await self.finish(
            [
                ended(row, result=results[name])
                for row in self.running.values()
                if (name := row.job_id.partition("/")[2]) in results
            ]
        )

    async def finish_items(self, **results: dict[int, bytes]) -> None:
        """The same, of items of mapped tasks."""
        ends = []
        for row in self.running.values():
            one = msgspec.json.decode(row.input, type=TaskInput)
            if one.number is not None and one.number in results.get(one.task_id, {}):
                ends.append(ended(row, result=results[one.task_id][one.number]))
        await self.finish(ends)

    async def result(self, run: int, task: str):
        """A task's result."""
        return msgspec.json.decode(
            await self.owner.fetchval(
                "SELECT result FROM dag_tasks WHERE run = $1 AND task_id = $2 AND item = -1",
                run,
                task,
            )
        )

    async def end_by(self, outcome: Callable[[Claimed], str]) -> None:
        """End all that runs."""
        await self.finish([ended(row, outcome(row)) for row in self.running.values()])

    async def give_back(self, *names: str) -> None:
        """Hand running tasks back to their queue."""
        rows = [r for r in self.running.values() if r.job_id.partition("/")[2] in names]
        for row in rows:
            del self.running[row.id]
        given = [GiveBack(row.id, row.fencing_token) for row in rows]
        await self.store.give_back(self.node, given)

    async def asked(self) -> list[tuple[int, str]]:
        """The tasks that run and were asked to stop."""
        found = await self.store.cancel_requests(self.node)
        return [
            (id_, self.running[id_].job_id.partition("/")[2])
            for id_, _ in found
            if id_ in self.running
        ]

    async def wake(self) -> Glance:
        """Wake what is due; when the next is."""
        await self.store.wake(now=self.now, limit=100)
        seen = await self.store.glance()
        await self.advance()
        return seen

    async def lose_root(self, run: int) -> None:
        """Cancel a run's own execution while no node holds it."""
        token = self.roots.pop(run)
        await self.store.give_back(self.node, [GiveBack(run, token)])
        await self.do(cancel_execution, execution=await self.name(run), who="me", now=self.now)
        await self.advance()

    async def name(self, run: int) -> str:
        """The public id of a run."""
        return str(
            await self.owner.fetchval("SELECT execution_id FROM all_executions WHERE id = $1", run)
        )

    async def ask(self, work, **fields):
        """What a person asks for, by the API's role; nobody looks at it yet."""
        async with Pool(self.house.settings.arguments(), name="api", size=1, role=API_ROLE) as pool:
            return await transact(
                pool, "default", lambda conn: work(conn, tenant="default", **fields)
            )

    async def do(self, work, **fields):
        """The same, and what follows from it."""
        answer = await self.ask(work, **fields)
        await self.take_roots()
        await self.advance()
        return answer

    async def steer(self, work, run: int, **fields):
        """As `do`, of one run."""
        return await self.do(work, run=await self.name(run), now=self.now, **fields)

    async def run_all(
        self,
        outcome: Callable[[Claimed], str] = lambda _: "succeeded",
        *,
        result: bytes | None = None,
    ) -> None:
        """Claim and end tasks until nothing is left to claim."""
        while True:
            await self.take_roots()
            await self.claim()
            if not self.running:
                break
            rows = list(self.running.values())
            await self.finish([ended(row, outcome(row), result=result) for row in rows])
            await self.end_roots()
        await self.end_roots()

    async def states(self, run: int, *, items: bool = False) -> dict[str, str]:
        return await dags.states(self.owner, run, items=items)

    async def run_state(self, run: int) -> str:
        return await dags.run_state(self.owner, run)

    async def root(self, run: int) -> tuple[str, str | None]:
        """The state and the error of the run's own execution."""
        row = await self.owner.fetchrow(
            "SELECT state, error FROM all_executions WHERE id = $1", run
        )
        return row["state"], row["error"]


@pytest_asyncio.fixture
async def house(postgres_server: Server) -> AsyncIterator[DagHouse]:
    """Give an empty house."""
    async with on_postgres(postgres_server) as harness:
        yield DagHouse(harness)
