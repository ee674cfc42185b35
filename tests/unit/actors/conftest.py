"""A house in memory for one actor at a time: virtual time, the model store, a hand-led executor."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from actors.worker.actor import Reported, WorkerActor
from actors.worker.held import Held
from protocols.errors import UnavailableError
from protocols.jobs import CommandTask, JobSpec
from protocols.ports.executor import Outcome
from protocols.ports.store import NodeInfo, TriggerRequest
from protocols.props import Mailbox, Props
from runtime.kernel.testkit import TestKit
from tests.sim.model_books import Books, Job
from tests.sim.model_store import ModelStore

INFO = NodeInfo(name="n", url="", pid=1, host="h", version="0", level=1, pools={"default": 4})


class Line:
    """The model store, which can be away, and remembers what it was asked."""

    def __init__(self, store: ModelStore) -> None:
        self.store = store
        self.away = False
        self.fault: Exception | None = None
        """What a statement raises that the database cannot carry out."""
        self.lose: set[str] = set()
        """Statements whose next answer is lost: committed, and the caller does not know."""
        self.asked: list[str] = []

    def __getattr__(self, name):
        async def call(*args, **kwargs):
            self.asked.append(name)
            if self.away:
                raise UnavailableError("away")
            if self.fault is not None:
                raise self.fault
            answer = await getattr(self.store, name)(*args, **kwargs)
            if name in self.lose:
                self.lose.discard(name)
                raise UnavailableError("its answer was lost")
            return answer

        return call


class HandExecutor:
    """Starts what it is given, and ends it when the test says so."""

    def __init__(self, kit: TestKit, held: Held) -> None:
        self.kit = kit
        self.held = held
        self.started: list = []
        self.cancelled: list = []
        self.answers: dict = {}
        self.stopped = False
        self._holds: dict = {}

    def start(self, assignments) -> None:
        for one in assignments:
            self.started.append(one)
            self._holds[one.id, one.fencing_token] = one

    def holds(self):
        return tuple(self._holds)

    def cancel(self, id, fencing_token) -> None:  # noqa: A002
        self.cancelled.append((id, fencing_token))

    def answer(self, number, *, value=None, error=None) -> None:
        self.answers[number] = (value, error)

    def tell(self, *reports) -> None:
        self.held.inbox.extend(reports)
        if (worker := self.kit.lookup("worker:default")) is not None:
            worker.tell(Reported())

    def end(self, one, state: str = "succeeded", **more) -> None:
        del self._holds[one.id, one.fencing_token]
        now = self.kit.clock.now_ns()
        self.tell(
            Outcome(
                id=one.id,
                fencing_token=one.fencing_token,
                state=state,
                started_ns=now,
                finished_ns=now,
                **more,
            )
        )

    async def stop(self, grace_s: float) -> None:
        self.stopped = True
        await self.kit.clock.sleep(grace_s)
        for one in list(self._holds.values()):
            self.end(one, "lost", bystander=True)


class House:
    """What an actor under test needs."""

    def __init__(self, kit: TestKit) -> None:
        self.kit = kit
        self.books = Books()
        self.line = Line(ModelStore(self.books, kit.clock.now))
        self.hints: list = []
        self.held = Held(slots=4)
        self.executor = HandExecutor(kit, self.held)
        self.node = 0

    def send(self, hint, /) -> None:
        self.hints.append(hint)

    def job(self, job_id: str = "j", **fields) -> Job:
        fields.setdefault("overlap", "allow")
        spec = JobSpec(job_id=job_id, task=CommandTask(shell="true"), **fields)
        key, now = len(self.books.jobs) + 1, self.kit.clock.now()
        job = Job(key=key, versions={1: spec}, version=1, anchor=now, cursor=now)
        job.scheduled = spec.schedule is not None
        if spec.schedule is not None:
            job.next_fire_at = now + timedelta(seconds=spec.schedule.interval_s or 0)
        self.books.jobs[key] = job
        return job

    async def trigger(self, job: Job, count: int = 1) -> None:
        request = TriggerRequest(tenant="default", job_key=job.key)
        await self.line.store.trigger([request] * count, now=self.kit.clock.now())

    def worker(self) -> WorkerActor:
        return WorkerActor(
            store=self.line,
            executor=self.executor,
            hints=self,
            held=self.held,
            pool="default",
            incarnation=self.node,
            grace_s=5.0,
        )

    def spawn_worker(self):
        """Start a worker with the grace that a tree gives it."""
        mailbox = Mailbox(capacity=4096)
        return self.kit.spawn(
            Props(name="worker", factory=self.worker, stop_grace_s=60.0, mailbox=mailbox)
        )

    def states(self) -> list[str]:
        rows = {**self.books.hot, **self.books.history}
        return [rows[key].state for key in sorted(rows)]


@asynccontextmanager
async def opened() -> AsyncIterator[House]:
    async with TestKit() as kit:
        house = House(kit)
        house.node = await house.line.store.join(INFO, now=kit.clock.now(), alone=True)
        yield house


@pytest.fixture
def open_house():
    """Give what opens a house; a test opens and closes it in one task, as virtual time needs."""
    return opened
