"""One run: build the world, load it, break it by a plan, let it heal, and read what it left."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import msgspec

from scripts.faults.breaking import Breaker, Outcome
from scripts.faults.checks import Breach, in_time, none_early, none_stale, of_us, once_each
from scripts.faults.jobs import LEDGER
from scripts.faults.leftovers import Holdings, leftovers, most
from scripts.faults.one_story import nothing_gone, one_story
from scripts.faults.plan import Fault
from scripts.faults.recovery import recoveries
from scripts.faults.report import Report
from scripts.faults.story import Story, read_ledger
from scripts.faults.world import Wanted, World, now_us, world

WARM_S: Final = 5.0
HEALED_S: Final = 60.0
"""After this long in health nothing that is due may be pending."""
_FILLED_FROM_S: Final = 120
_FILLED_FOR_S: Final = 10
_LOOK_S: Final = 0.2

Lanes = Sequence[Sequence[Fault]]
"""Plans that go on beside each other, each one fault after another."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to run, beside what to build."""

    title: str
    seed: int
    lasts_s: float
    """From the first fault's zero; the load goes on so long."""
    quiet: bool = False


async def run(wanted: Wanted, lanes: Lanes, options: Options) -> Report:
    """Do it all; the world is gone when this returns."""

    def say(text: str) -> None:
        if not options.quiet:
            print(f"chaos: {text}", file=sys.stderr, flush=True)

    say(f"{options.title}, seed {options.seed}: starting {', '.join(wanted.shape.servers)} "
        f"and {wanted.shape.nodes} node(s)")  # fmt: skip
    async with world(wanted) as built:
        say(f"up in {built.land}")
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(built.watch_the_machine())
            load = group.create_task(built.load.run())
            await asyncio.sleep(WARM_S)
            before = {name: await most(built, node) for name, node in built.nodes.items()}
            filled = await fill(built)
            outcomes = await suffer(built, lanes, options.lasts_s, say)
            breaker = Breaker(built)
            await breaker.heal()
            healed_us = now_us()
            built.load.stop()
            await load
            say("healed; waiting for what is pending")
            pending = await drained(built)
            watch.cancel()
        return await judge(built, options, outcomes, before, filled, pending, healed_us)


async def suffer(built: World, lanes: Lanes, lasts_s: float, say) -> list[Outcome]:  # noqa: ANN001
    """Let each lane's faults happen when they are due, or as soon as the one before is over."""
    began_s = time.monotonic()
    breaker = Breaker(built)
    outcomes: list[Outcome] = []

    async def follow(faults: Sequence[Fault]) -> None:
        for fault in faults:
            await asyncio.sleep(max(0.0, began_s + fault.at_s - time.monotonic()))
            say(f"{time.monotonic() - began_s:6.1f} s  {fault.name}")
            outcomes.append(outcome := await breaker.apply(fault))
            if outcome.error:
                say(f"{fault.name}: {outcome.error}")

    async with asyncio.TaskGroup() as group:
        for faults in lanes:
            group.create_task(follow(faults))
    await asyncio.sleep(max(0.0, began_s + lasts_s - time.monotonic()))
    return sorted(outcomes, key=lambda one: one.begin_us)


async def fill(built: World) -> list[int]:
    """Have the past of a job filled by two who ask at once; the instants that it then has."""
    urls = built.urls()
    anchors = await built.books.anchors()
    first = of_us(min(anchors.values())).replace(microsecond=0) - timedelta(seconds=_FILLED_FROM_S)
    first -= timedelta(seconds=first.second % 5)
    filled: list[int] = []
    for turn in range(6):
        at = first + timedelta(seconds=turn * _FILLED_FOR_S)
        until = at + timedelta(seconds=_FILLED_FOR_S - 1)
        await built.load.fill(urls[0], urls[-1], at.isoformat(), until.isoformat())
        filled += [round(at.timestamp() * 1e6), round(at.timestamp() * 1e6) + 5_000_000]
    return filled


async def drained(built: World) -> int:
    """Wait until nothing is due and pending, then pause the house; how much was left over."""
    until_s = time.monotonic() + HEALED_S
    while (left := await built.books.behind()) > built.wanted.every_second * 2:
        if time.monotonic() > until_s:
            return left
        await asyncio.sleep(_LOOK_S)
    built.until_us = now_us() - 2_000_000
    await built.command("pause", "--all", "--reason", "the run is over")
    while left := int(await built.books.value("SELECT count(*) FROM executions")):
        if time.monotonic() > until_s:
            return left
        await asyncio.sleep(_LOOK_S)
    return 0


async def judge(
    built: World,
    options: Options,
    outcomes: list[Outcome],
    before: dict[str, Holdings],
    filled: list[int],
    pending: int,
    healed_us: int,
) -> Report:
    """Hold what was left behind to the invariants."""
    held = await leftovers(built, before)
    story = await read(built, filled)
    shape, work = built.wanted.shape, built.work
    breaches: list[Breach] = [
        *once_each(story, work),
        *in_time(story, work),
        *none_early(story),
        *one_story(story, work.ours),
        *none_stale(story, leases=not shape.alone),
        *nothing_gone(story, work.ours),
        *held,
    ]
    if pending:
        breaches.append(Breach("I5", f"{pending} pending {HEALED_S:.0f} s after all was healed"))
    breaches += [Breach("I5", f"refused: {one}") for one in built.load.refused]
    breaches += [
        Breach("harness", f"{one.fault.name}: {one.error}") for one in outcomes if one.error
    ]
    took = (healed_us - story.applied_us) / 1e6
    counts = {
        "executions": len(story.rows),
        "fired": sum(row.fired for row in story.rows),
        "acknowledged": len(story.acknowledged),
        "succeeded": sum(row.state == "succeeded" for row in story.rows),
        "dead": sum(row.state == "dead" for row in story.rows),
        "skipped": sum(row.state == "skipped" for row in story.rows),
        "lost attempts": sum(one.state == "lost" for one in story.tried),
        "ledger lines": len(story.lines),
        "epochs": len(story.epochs),
        "commits of leaders": len(story.fires),
        "machine stalls": sum(one.kind == "machine" for one in story.disturbances),
        "seconds": round(took, 1),
    }
    return Report(
        title=options.title,
        seed=options.seed,
        outcomes=outcomes,
        recoveries=recoveries(outcomes, story, shape, built.load.at),
        breaches=breaches,
        counts=counts,
    )


async def read(built: World, filled: list[int]) -> Story:
    """Everything that the run has left."""
    books, load = built.books, built.load
    anchors = await books.anchors()
    return Story(
        rows=await books.rows(),
        tried=await books.tried(),
        lines=read_ledger(built.work.folder / LEDGER),
        fires=await books.fires(),
        epochs=await books.epochs(),
        disturbances=built.disturbances,
        applied_us=min(anchors.values()),
        until_us=built.until_us or now_us(),
        anchors_us=anchors,
        filled_us=filled,
        acknowledged=load.acknowledged,
        twice=load.twice,
        names=await books.names(),
    )
