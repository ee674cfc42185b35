"""The conformance suite's house on the model store."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from protocols.jobs import JobSpec
from protocols.ports.store import Claimed
from tests.contract.store.harness import NOW, Attempt, Execution, StoreHarness
from tests.sim.model_books import Books, Job, Node, Row
from tests.sim.model_store import ModelStore


class ModelHarness(StoreHarness):
    def __init__(self) -> None:
        self.books = Books()
        self.store = ModelStore(self.books)
        self.node = self.books.next_node()
        self.books.nodes[self.node] = Node(incarnation=self.node, name="n", last_beat_at=NOW)

    async def make_job(
        self,
        spec: JobSpec,
        *,
        next_fire_at: datetime | None = None,
        cursor: datetime = NOW,
        after_s: float | None = None,
        paused: bool = False,
        parents: Sequence[int] = (),
        version: int = 1,
    ) -> int:
        for job in self.books.jobs.values():
            if (job.spec.tenant, job.spec.job_id) == (spec.tenant, spec.job_id):
                job.versions[version], job.version = spec, version
                return job.key
        key = len(self.books.jobs) + 1
        self.books.jobs[key] = Job(
            key=key,
            versions={version: spec},
            version=version,
            parents=tuple(parents),
            paused=paused,
            anchor=cursor,
            cursor=cursor,
            next_fire_at=next_fire_at,
            after_s=after_s,
        )
        return key

    def _row(self, id_: int) -> Row:
        return self.books.hot.get(id_) or self.books.history[id_]

    async def executions_of(self, job_key: int) -> list[Execution]:
        rows = [*self.books.of_job(job_key), *self.books.ended_of(job_key)]
        return [_execution(row) for row in sorted(rows, key=lambda row: row.id)]

    async def attempts_of(self, execution: int) -> list[Attempt]:
        return [
            Attempt(attempt=a.attempt, state=a.state, exit_code=a.exit_code, error=a.error)
            for a in self.books.attempts.get(execution, [])
        ]

    async def outputs_of(self, execution: int) -> list[tuple[int, bytes, bytes, int]]:
        return self.books.outputs.get(execution, [])

    async def schedule_of(self, job_key: int) -> tuple[datetime, datetime | None]:
        job = self.books.jobs[job_key]
        return job.cursor, job.next_fire_at

    async def parents_of(self, execution: int) -> list[int]:
        return sorted(self.books.edges.get(execution, ()))

    async def holders_of(self, job_key: int) -> list[int]:
        return sorted(self.books.holders.get(f"job:{job_key}", ()))

    async def keep(self, claimed: Claimed, *, checkpoint: bytes, once: str) -> None:
        self.books.checkpoints[claimed.job_key, claimed.id] = checkpoint
        self.books.once["default", once] = [claimed.id, claimed.fencing_token, 60, None]

    async def kept_of(self, claimed: Claimed) -> tuple[bool, bool]:
        once = [k for k in self.books.once.values() if k[0] == claimed.id and k[3] is None]
        return (claimed.job_key, claimed.id) in self.books.checkpoints, bool(once)

    async def request_cancel(self, execution: int) -> None:
        self.books.hot[execution].cancel_requested = True

    async def pause(self, *, house: bool = False, leadership: bool = False) -> None:
        self.books.house_paused = house
        for term in self.books.terms:
            term.paused = leadership

    async def reshard(self, leaderships: int) -> None:
        self.books.reshard(leaderships)

    async def end_node(self, state: str) -> None:
        self.books.nodes[self.node].state = state

    async def silence(self, incarnation: int, seconds: float = 60) -> None:
        beat_at = self.store.clock() - timedelta(seconds=seconds)
        self.books.nodes[incarnation].last_beat_at = beat_at

    async def events(self) -> list[tuple[str, list[int], list[str]]]:
        return [(e.kind, list(e.ids), list(e.states)) for e in self.books.events]


def _execution(row: Row) -> Execution:
    final = row.finished_at is not None
    return Execution(
        id=row.id,
        state=row.state,
        reason=row.reason,
        scheduled_for=row.scheduled_for,
        run_at=None if final else row.run_at,
        origin=row.origin,
        attempt=row.attempt,
        failures=row.failures,
        losses=row.losses,
        priority=row.priority,
        pool=row.pool,
        holds_turn=row.holds_turn,
        cancel_requested=not final and row.cancel_requested,
        expires_at=None if final else row.expires_at,
        finished_at=row.finished_at,
        exit_code=row.exit_code,
        error=row.error,
        result=row.result,
        input=row.input,
        instants=row.instants,
        last_scheduled_for=row.last,
    )
