"""Runs one seed: a house of jobs, the script of what goes wrong, the healing, the reckoning."""

import asyncio
import contextlib
import random
from datetime import timedelta

from actors.timer.schedule import compile_schedule
from protocols.errors import UnavailableError
from protocols.jobs import CommandTask, JobSpec, Retry
from protocols.ports.store import TriggerRequest
from protocols.schedules import Misfire, Schedule
from runtime.kernel.testkit import NodeTime
from tests.sim.faults import Fault
from tests.sim.lease import Elections
from tests.sim.ledger import BrokenError
from tests.sim.line import Line
from tests.sim.model_books import Job
from tests.sim.model_store import ModelStore
from tests.sim.node import KILLABLE, SimNode
from tests.sim.world import START, World

DRAINED_WITHIN_S = 120.0
QUIET_S = 3.0
"""So long nothing may be pending before a run is over: what ends may let something else begin."""


def run_seed(seed: int, *, store_class: type[ModelStore] = ModelStore) -> World:
    """Run a seed; the laws it broke are in `world.ledger.broken`."""
    return asyncio.run(_run(seed, store_class))


def check_seed(seed: int, *, store_class: type[ModelStore] = ModelStore) -> None:
    """Run a seed.

    Raises:
        BrokenError: It broke a law.
    """
    world = run_seed(seed, store_class=store_class)
    if world.ledger.broken:
        raise BrokenError(f"seed {seed}: " + "\n".join(world.ledger.broken[:10]))


async def _run(seed: int, store_class: type[ModelStore]) -> World:
    world = World(seed, store_class=store_class)
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: world.ledger.law(False, f"unread: {context}")
    )
    make_jobs(world)
    elections = Elections(world)
    for number, offset_s in enumerate(world.faults.offsets):
        name = f"n{number}"
        world.nodes[name] = SimNode(world, elections, name, offset_s)
    try:
        async with asyncio.TaskGroup() as group:
            for node in world.nodes.values():
                group.create_task(node.run())
            people = group.create_task(Script(world).run(group))
            await people
            await _drain(world)
            for node in world.nodes.values():
                node.finish()
    finally:
        world.clock.close()
    world.ledger.close()
    return world


async def _drain(world: World) -> None:
    """Wait until nothing is pending, for a bounded time."""
    until = world.clock.monotonic() + DRAINED_WITHIN_S
    quiet_since = None
    while world.clock.monotonic() < until:
        now = world.clock.monotonic()
        if not world.ledger.settled():
            quiet_since = None
        elif quiet_since is None:
            quiet_since = now
        elif now - quiet_since >= QUIET_S:
            return
        await world.clock.sleep(0.5)


class Script:
    """Does what the faults' script says, and asks what people ask."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._dice = world.dice("people")
        self._line = Line(world, "people", NodeTime(world.clock))
        self._asked = 0

    async def run(self, group: asyncio.TaskGroup) -> None:
        world = self._world
        for fault in world.faults.script:
            await world.clock.sleep(max(0.0, fault.at_s - world.clock.monotonic()))
            world.note("script", fault.kind, fault)
            if fault.kind == "trigger":
                group.create_task(self._trigger())
            else:
                self._do(fault)
        await world.clock.sleep(max(0.0, world.faults.chaos_s - world.clock.monotonic()))
        world.note("script", "healed")
        world.heal()
        for node in world.nodes.values():
            node.time.resume()
        for job in world.books.jobs.values():
            if job.after_s is not None:
                job.scheduled = False

    def _do(self, fault: Fault) -> None:
        world = self._world
        node = world.nodes.get(fault.node or "")
        life = None if node is None else node.life
        match fault.kind:
            case "outage":
                world.outage(fault.node, fault.lasts_s)
            case "cancel":
                self._cancel()
            case "crash" if node is not None:
                node.crash(fault.lasts_s)
            case "pause" if node is not None:
                node.pause(fault.lasts_s)
            case "restart" if node is not None:
                node.restart()
            case "cut" if life is not None:
                life.coordinator.cut_until = world.clock.monotonic() + fault.lasts_s
            case "kill" if life is not None:
                life.kill(self._dice.choice(KILLABLE))

    async def _trigger(self) -> None:
        """Ask for an execution until it is acknowledged, always by the same key."""
        world = self._world
        self._asked += 1
        job = self._dice.choice(list(world.books.jobs.values()))
        key = f"k{self._asked}"
        later_s = self._dice.choice((None, None, 1.5))
        now = world.clock.now()
        request = TriggerRequest(
            tenant="default",
            job_key=job.key,
            key=key,
            run_at=None if later_s is None else now + timedelta(seconds=later_s),
        )
        while key not in world.ledger.acknowledged:
            with contextlib.suppress(UnavailableError):
                (answer,) = await self._line.trigger([request], now=world.clock.now())
                world.ledger.acknowledged[key] = answer.id
            await world.clock.sleep(0.3)

    def _cancel(self) -> None:
        """Cancel something, as the operation does: at once, or by asking its node."""
        books, now = self._world.books, self._world.clock.now()
        if not books.hot:
            return
        row = self._dice.choice(list(books.hot.values()))
        if row.state == "running":
            row.cancel_requested = True
        else:
            books.end(row, "cancelled", "requested", now)
            books.tell("cancelled", [(row, "cancelled")])


def make_jobs(world: World) -> None:
    """Make some of the jobs that there may be."""
    dice = world.dice("jobs")
    end = START + timedelta(seconds=world.faults.chaos_s + 1)
    makers = list(_jobs(dice, end))
    chosen = sorted(dice.sample(range(len(makers)), dice.randint(4, 7)))
    for spec in (makers[number] for number in chosen):
        _apply(world, spec)
    parents = [job for job in world.books.jobs.values() if job.scheduled]
    if parents and dice.random() < 0.5:
        parent = dice.choice(parents)
        assert parent.spec.schedule is not None
        scheduled = dice.random() < 0.5 and parent.after_s is None
        spec = _job(
            "child",
            schedule=parent.spec.schedule if scheduled else None,
            dependencies=(parent.spec.job_id,),
            on_dependency_failure=dice.choice(("skip", "run")),
        )
        _apply(world, spec, parents=(parent.key,))


def _job(job_id: str, **fields) -> JobSpec:
    fields.setdefault("retry", Retry(max_retries=2, base_s=0.3, max_s=1.0))
    return JobSpec(job_id=job_id, task=CommandTask(shell="true"), **fields)


def _jobs(dice: random.Random, end):
    def every(seconds: float, **misfire) -> Schedule:
        return Schedule(
            kind="every",
            text=f"@every {seconds}s",
            interval_s=seconds,
            end=end,
            jitter_s=dice.choice((0.0, 0.0, 0.4)),
            misfire=Misfire(grace_s=3.0, **misfire),
        )

    yield _job("skip", schedule=every(1.0))
    yield _job("queue", schedule=every(2.0), overlap="queue")
    yield _job("allow", schedule=every(1.0), overlap="allow")
    yield _job("once", schedule=every(2.0), overlap="allow", guarantee="at_most_once")
    yield _job("cancels", schedule=every(2.0), overlap="cancel_running")
    yield _job("limited", schedule=every(1.0), overlap="allow", concurrency_limit=2)
    yield _job("urgent", schedule=every(3.0), priority=0)
    yield _job("catch", schedule=every(1.0, policy="catch_up", limit=3))
    yield _job("drop", schedule=every(2.0, policy="skip"), overlap="allow")
    yield _job("expires", schedule=every(2.0), expires_s=1.0)
    yield _job("after", schedule=Schedule(kind="after", text="@after 1s", interval_s=1.0))
    yield _job("by hand")
    yield _job("hasty", retry=Retry(max_retries=1, max_lost=1, base_s=0.1), overlap="allow")


def _apply(world: World, spec: JobSpec, *, parents: tuple[int, ...] = ()) -> None:
    """Make a job, as an apply at the start does."""
    key = len(world.books.jobs) + 1
    next_fire_at = None
    if spec.schedule is not None:
        ready = compile_schedule(spec.schedule, anchor=START, salt=b"")
        next_fire_at = ready.first_after_apply(START)
    after = spec.schedule is not None and spec.schedule.kind == "after"
    world.books.jobs[key] = Job(
        key=key,
        versions={1: spec},
        version=1,
        parents=parents,
        scheduled=spec.schedule is not None,
        anchor=START,
        cursor=START,
        next_fire_at=next_fire_at,
        after_s=spec.schedule.interval_s if after and spec.schedule else None,
    )
