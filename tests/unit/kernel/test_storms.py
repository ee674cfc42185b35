"""Random trees in random weather: whatever happens, all ends, and everyone who waits is told."""

import asyncio
import random

import pytest

from protocols.actor import (
    Actor,
    Backoff,
    Budget,
    Props,
    SystemFailed,
)
from runtime.kernel.testkit import TestKit

WORDS = ("spawn", "pipe", "stash", "unstash", "finish", "slow", "crash", "crash", "plain")
SEEDS = 60


class Wild(Actor):
    """Sleeps, fails, stashes, pipes, spawns and swallows cancels, at random."""

    def __init__(self, source):
        self.source = source

    def chance(self, of):
        return self.source.random() < of

    async def on_start(self, ctx):
        if self.chance(0.15):
            await ctx.sleep(self.source.random() * 3)
        if self.chance(0.08):
            raise ValueError("start")
        if self.chance(0.3):
            ctx.every(1.0, "plain")

    async def receive(self, message, ctx):
        match message:
            case "spawn":
                restart = self.source.choice(["permanent", "transient", "temporary"])
                factory = lambda: Wild(self.source)
                ctx.spawn(Props(factory=factory, restart=restart, stop_grace_s=1))
            case "pipe":
                ctx.pipe(lambda: ctx.sleep(self.source.random() * 4), on_done=lambda _: "plain")
            case "stash":
                ctx.stash()
            case "unstash":
                ctx.unstash_all()
            case "finish":
                ctx.stop()
            case "slow":
                try:
                    await ctx.sleep(self.source.random() * 5)
                except asyncio.CancelledError:
                    if self.chance(0.5):
                        raise
            case "crash":
                raise ValueError("crash")
        return message

    async def on_stop(self, ctx):
        if self.chance(0.2):
            await ctx.sleep(self.source.random() * 3)
        if self.chance(0.2):
            await ctx.drain()
        if self.chance(0.1):
            raise ValueError("stop")


def wild_tree(source, depth=0, name="t"):
    return Props(
        name=name,
        factory=(lambda: Wild(source)) if source.random() < 0.7 else None,
        strategy=source.choice(["one_for_one", "one_for_all", "rest_for_one"]),
        restart=source.choice(["permanent", "permanent", "transient", "temporary"]),
        stop_grace_s=source.choice([0.5, 2]),
        budget=Budget(restarts=source.choice([1, 3, 50]), within_s=10),
        backoff=Backoff(base_s=source.choice([0, 0.1, 2])),
        children=tuple(
            wild_tree(source, depth + 1, f"c{place}")
            for place in range(source.randrange(4) if depth < 3 else 0)
        ),
    )


def walk(cell):
    yield cell
    for child in cell.family.children.values() if cell.family else ():
        yield from walk(child)


async def weather(kit, system, source, asked):
    """Eighty things that happen to whoever lives."""
    for _ in range(80):
        cells = list(walk(system.root))[1:]
        if not cells:
            return
        cell, kind = source.choice(cells), source.random()
        if kind < 0.75:
            cell.ref.tell(source.choice(WORDS), source.choice(["normal", "urgent"]))
        elif kind < 0.9:
            asked.append(cell.ref.ask(source.choice(WORDS), deadline=30))
        elif kind < 0.94:
            cell.request("stop")
        else:
            await kit.advance(source.random() * 3)
        if source.random() < 0.3:
            await asyncio.sleep(0)


async def storm(seed):
    source, asked, trace = random.Random(seed), [], []
    tree = Props(children=(wild_tree(source),), budget=Budget(restarts=source.choice([2, 100])))
    kit, systems = TestKit(seed=seed), []
    try:
        async with kit:
            systems.append(await kit.system("n", tree))
            await weather(kit, systems[0], source, asked)
            if source.random() < 0.15:
                await systems[0].crash()
            else:
                await kit.clock.sleep(source.random() * 10)
    except SystemFailed:
        trace.append("failed")
    for question in asked:
        assert question.done()
        trace.append("cancelled" if question.cancelled() else repr(question.exception()))
    for system in systems:
        assert len(system.nursery) == 0
        assert {cell.state for cell in walk(system.root)} == {"dead"}
        trace.append(system.dead_letters.counts)
    return trace


@pytest.mark.parametrize("seed", range(SEEDS))
def test_all_ends_and_everyone_who_waits_is_told(seed):
    asyncio.run(storm(seed))


def test_a_storm_repeats_itself():
    for seed in range(5):
        assert asyncio.run(storm(seed)) == asyncio.run(storm(seed))
