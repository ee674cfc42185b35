"""A day of 600 real periodic jobs, on a virtual clock against the real store: each instant once.

What is expected comes from the fault harness's enumerator: no croniter, and none of our rules.
"""

import subprocess
import sys
from collections import Counter
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
import yaml

from actors import waiting as waiting_module
from actors.dispatcher import actor as dispatcher_module
from actors.dispatcher.actor import DispatcherActor
from actors.timer import actor as timer_module
from actors.timer.actor import TimerActor
from actors.waiting import WaitingActor
from actors.worker import actor as worker_module
from actors.worker.actor import Reported, WorkerActor
from actors.worker.held import Held
from protocols.ports.executor import Outcome
from protocols.ports.store import NodeInfo
from runtime.files.load import load_files
from runtime.kernel.testkit import TestKit
from runtime.memory.coordinator import SoleLeadership
from runtime.memory.hints import LocalHints
from runtime.postgres.definitions.apply import apply
from runtime.postgres.migrate import migrate
from runtime.postgres.operations.session import transact
from runtime.postgres.pool import API_ROLE, NODE_ROLE, Pool
from runtime.postgres.store import PostgresStore
from scripts.faults.instants import cron_instants, seconds
from tests.support.postgres import fresh_database

ROOT = Path(__file__).parents[2]
PERIODICS = ROOT.parent / "shared" / "data" / "k8s_periodics.json"
START = datetime(2026, 3, 10, 0, 0, 30, tzinfo=UTC)
DAY = timedelta(days=1)


# --- what is expected -------------------------------------------------------------------------


def expected(schedule: str) -> list[datetime]:
    end = START + DAY
    if schedule.startswith("@every"):
        step = timedelta(seconds=seconds(schedule.split()[1]))
        return [START + step * n for n in range(1, DAY // step + 1)]
    if schedule.startswith("@after"):  # runs when applied, and each run here takes no time
        step = timedelta(seconds=seconds(schedule.split()[1]))
        return [START + step * n for n in range(DAY // step + 1)]
    return cron_instants(schedule, START, end)


def convert() -> bytes:
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "import-periodics", PERIODICS],
        capture_output=True,
        check=True,
    ).stdout


# --- the world --------------------------------------------------------------------------------


class HeldStore:
    """The real store; virtual time stands still while a statement is under way."""

    def __init__(self, store: PostgresStore, clock) -> None:
        self._store = store
        self._clock = clock

    def __getattr__(self, name: str):
        method = getattr(self._store, name)

        async def call(*args, **kwargs):
            with self._clock.hold():
                return await method(*args, **kwargs)

        return call


class AtOnce:
    """An executor under which every attempt succeeds the moment it starts."""

    def __init__(self, held: Held, kit: TestKit) -> None:
        self.held = held
        self.kit = kit
        self.started: Counter[str] = Counter()

    def start(self, assignments) -> None:
        now_ns = self.kit.clock.now_ns()
        for one in assignments:
            assert one.scheduled_for_ns <= now_ns, f"{one.job_id} starts before its instant"
            self.started[one.job_id] += 1
            self.held.inbox.append(
                Outcome(
                    id=one.id,
                    fencing_token=one.fencing_token,
                    state="succeeded",
                    started_ns=now_ns,
                    finished_ns=now_ns,
                )
            )
        worker = self.kit.lookup("worker:default")
        assert worker is not None
        worker.tell(Reported())

    def holds(self):
        return ()

    async def stop(self, grace_s: float) -> None:
        pass


@pytest.mark.slow
@pytest.mark.asyncio
async def test_a_day_of_real_periodic_jobs_fires_each_instant_once(
    postgres_server, tmp_path, monkeypatch
):
    if not PERIODICS.exists():
        pytest.skip("../shared/data is not here")
    # The polls are the net under the hints and the wheel; a rare poll makes the day a short one.
    for module in (timer_module, dispatcher_module, worker_module, waiting_module):
        monkeypatch.setattr(module, "POLL_S", 600.0)
    converted = convert()
    path = tmp_path / "periodics.yaml"
    path.write_bytes(converted)
    jobs = yaml.safe_load(converted)["jobs"]
    assert len(jobs) == 600

    async with AsyncExitStack() as stack:
        settings = await stack.enter_async_context(
            fresh_database(postgres_server, migrate=_migrated)
        )
        node = await stack.enter_async_context(_pool(settings, NODE_ROLE, pinned=True))
        api = await stack.enter_async_context(_pool(settings, API_ROLE, pinned=False))
        store = PostgresStore(hot=node, keeping=node)
        files = load_files([path])

        async def work(conn):
            return await apply(
                conn,
                tenant="default",
                source="periodics",
                jobs=[job.spec for job in files.jobs],
                calendars={},
                content_hash=files.content_hash,
                now=START,
                who="test",
            )

        applied = await transact(api, "default", work)
        assert len(applied.created) == 600
        async with TestKit(start=START) as kit:
            await _run_a_day(kit, store)
        rows = await node.fetch(
            "SELECT job_id, scheduled_for, state, reason, started_at FROM all_executions"
        )

    states = Counter((row["state"], row["reason"]) for row in rows)
    assert set(states) == {("succeeded", None)}, states
    fired: dict[str, list[datetime]] = {job["job_id"]: [] for job in jobs}
    for row in rows:
        fired[row["job_id"]].append(row["scheduled_for"])
    for job in jobs:
        assert sorted(fired[job["job_id"]]) == expected(job["schedule"]), job


async def _run_a_day(kit: TestKit, store: PostgresStore) -> None:
    held_store = HeldStore(store, kit.clock)
    info = NodeInfo(
        name="n", url="", pid=1, host="h", version="0", level=1, pools={"default": 1000}
    )
    incarnation = await store.join(info, now=START, alone=True)
    term = await store.take_epoch(0, incarnation, now=START)
    held = Held(slots=1000)
    executor = AtOnce(held, kit)
    hints = LocalHints(kit.lookup, pools=("default",))
    kit.spawn(
        lambda: WorkerActor(
            store=held_store,
            executor=executor,
            hints=hints,
            held=held,
            pool="default",
            incarnation=incarnation,
            grace_s=1.0,
        )
    )
    kit.spawn(
        lambda: DispatcherActor(
            store=held_store,
            pool="default",
            incarnation=incarnation,
            worker="worker:default",
            hints=hints,
            on_look=lambda: None,
        )
    )
    kit.spawn(lambda: WaitingActor(store=held_store, hints=hints))
    kit.spawn(
        lambda: TimerActor(
            store=held_store,
            hints=hints,
            term=term,
            leadership=SoleLeadership(0),
            on_broken=lambda key, error: pytest.fail(str(error)),
            on_tick=lambda: None,
        )
    )
    await kit.advance(DAY.total_seconds() + 1)
    assert not kit.failures


def _pool(settings, role: str, *, pinned: bool) -> Pool:
    return Pool(settings.arguments(), name="day", size=6, role=role, pinned=pinned)


async def _migrated(settings) -> None:
    owner = await asyncpg.connect(**settings.arguments())
    try:
        await migrate(owner)
    finally:
        await owner.close()
