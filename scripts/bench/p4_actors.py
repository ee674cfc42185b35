"""P4: actors beside asyncio.Queue, anyio's start_soon and a bare task, interleaved on one loop."""

import asyncio
import gc
import statistics
import sys
import tracemalloc
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

import anyio

from protocols.actor import Actor, Context, Ref
from runtime.kernel import ActorSystem

MESSAGES = 40_000
BURST = 100
"""Messages between two turns of the loop: what one turn of an actor handles."""
ASKS = 6_000
SENDERS = 20
SPAWNS = 1_000
IDLE = 3_000
ROUNDS = 5
"""Rounds for each of `repeat`: many short ones side by side, so that noise hits both alike."""

Work = Callable[[], Awaitable[float]]


class Sink(Actor):
    """Counts what comes, and says when all has."""

    def __init__(self, expected: int, done: asyncio.Event) -> None:
        self._left = expected
        self._done = done

    async def receive(self, message: Any, ctx: Context) -> Any:  # noqa: ARG002 - the contract
        """Count."""
        self._left -= 1
        if not self._left:
            self._done.set()
        return message


class Source(Actor):
    """Tells a sink `count` messages in bursts."""

    def __init__(self, sink: Ref, count: int, burst: int) -> None:
        self._sink = sink
        self._count = count
        self._burst = burst

    async def receive(self, message: Any, ctx: Context) -> None:  # noqa: ARG002 - the contract
        """Send all."""
        tell = self._sink.tell
        for _ in range(self._count // self._burst):
            for _ in range(self._burst):
                if not tell(message):
                    raise RuntimeError("the sink's mailbox is full: the burst is too long")
            await asyncio.sleep(0)


class Asker(Actor):
    """Asks an actor again and again."""

    def __init__(self, other: Ref) -> None:
        self._other = other

    async def receive(self, message: int, ctx: Context) -> None:  # noqa: ARG002 - the contract
        """Ask that often."""
        ask = self._other.ask
        for number in range(message):
            await ask(number, deadline=5.0)


class Idle(Actor):
    """Does nothing."""

    async def receive(self, message: Any, ctx: Context) -> None:
        """Nothing."""


async def tell_ours(senders: int) -> float:
    """Seconds for all messages from so many actors to one."""
    done = asyncio.Event()
    async with ActorSystem() as system:
        sink = system.spawn(lambda: Sink(MESSAGES, done))
        sources = [
            system.spawn(lambda: Source(sink, MESSAGES // senders, BURST // senders))
            for _ in range(senders)
        ]
        await asyncio.sleep(0)
        began = perf_counter()
        for source in sources:
            source.tell("message")
        await done.wait()
        return perf_counter() - began


async def tell_queue(senders: int) -> float:
    """The same from so many tasks through one asyncio.Queue."""
    queue: asyncio.Queue[str] = asyncio.Queue()

    async def send(count: int, burst: int) -> None:
        for _ in range(count // burst):
            for _ in range(burst):
                queue.put_nowait("message")
            await asyncio.sleep(0)

    async def receive() -> None:
        left = MESSAGES
        while left:
            await queue.get()
            left -= 1

    began = perf_counter()
    async with asyncio.TaskGroup() as group:
        group.create_task(receive())
        for _ in range(senders):
            group.create_task(send(MESSAGES // senders, BURST // senders))
    return perf_counter() - began


async def ask_ours() -> float:
    """Seconds for all round trips between two actors, each with a deadline."""
    async with ActorSystem() as system:
        asker = system.spawn(lambda: Asker(sink))
        sink = system.spawn(lambda: Sink(ASKS, asyncio.Event()))
        await asyncio.sleep(0)
        began = perf_counter()
        await asker.ask(ASKS, deadline=600)
        return perf_counter() - began


async def ask_queue() -> float:
    """The same between two tasks with a queue each way, and no deadline."""
    questions: asyncio.Queue[int] = asyncio.Queue()
    answers: asyncio.Queue[int] = asyncio.Queue()

    async def answer() -> None:
        for _ in range(ASKS):
            answers.put_nowait(await questions.get())

    began = perf_counter()
    async with asyncio.TaskGroup() as group:
        group.create_task(answer())
        for number in range(ASKS):
            questions.put_nowait(number)
            await answers.get()
    return perf_counter() - began


async def spawn_ours() -> float:
    """Seconds to spawn that many actors, let each start, and stop each."""
    async with ActorSystem() as system:
        began = perf_counter()
        refs = [system.spawn(Idle) for _ in range(SPAWNS)]
        await asyncio.sleep(0)
        for ref in refs:
            ref.cell.request("stop")
        while refs[-1].alive:  # noqa: ASYNC110 - turns of the loop are what is measured
            await asyncio.sleep(0)
        return perf_counter() - began


async def spawn_anyio() -> float:
    """The same with anyio tasks that wait for a future each."""
    loop = asyncio.get_running_loop()

    async def park(future: "asyncio.Future[None]") -> None:
        await future

    began = perf_counter()
    async with anyio.create_task_group() as group:
        futures = [loop.create_future() for _ in range(SPAWNS)]
        for future in futures:
            group.start_soon(park, future)
        await asyncio.sleep(0)
        for future in futures:
            future.set_result(None)
    return perf_counter() - began


async def idle_bytes() -> dict[str, int]:
    """Traced bytes of a parked bare task, of an actor never told anything, and of one that was."""
    loop = asyncio.get_running_loop()
    kept: list[Any] = []

    async def measure(make: Callable[[], Any]) -> int:
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        kept.extend(make() for _ in range(IDLE))
        for _ in range(3):
            await asyncio.sleep(0)
        gc.collect()
        used = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        return used // IDLE

    async def bare(future: "asyncio.Future[None]") -> None:
        await future

    def told() -> Ref:
        ref = system.spawn(Idle)
        ref.tell("message")
        return ref

    async with asyncio.TaskGroup() as group, ActorSystem() as system:
        futures: list[asyncio.Future[None]] = []

        def task() -> Any:
            futures.append(loop.create_future())
            return group.create_task(bare(futures[-1]))

        found = {
            "bare_task": await measure(task),
            "actor": await measure(lambda: system.spawn(Idle)),
            "actor_once_told": await measure(told),
        }
        for future in futures:
            future.set_result(None)
    return found


PAIRS: dict[str, tuple[str, int, float, Work, Work]] = {
    "tell": (
        "asyncio.Queue", MESSAGES, 0.8,
        lambda: tell_ours(1), lambda: tell_queue(1),
    ),
    "fan_in": (
        "asyncio.Queue", MESSAGES, 0.8,
        lambda: tell_ours(SENDERS), lambda: tell_queue(SENDERS),
    ),
    "ask": ("asyncio.Queue", ASKS, 0.7, ask_ours, ask_queue),
    "spawn_stop": ("anyio start_soon", SPAWNS, 0.8, spawn_ours, spawn_anyio),
}  # fmt: skip


def run(*, repeat: int) -> dict[str, Any]:
    """Measure `repeat` times, ours and the yardstick in turn on the same loop.

    Returns:
        For each of tell, fan_in, ask and spawn_stop: operations/s of both as [median, min, max]
        and the median ratio of neighbours; `idle_bytes` of a bare task and of an actor.
    """
    return asyncio.run(_run(repeat))


async def _run(repeat: int) -> dict[str, Any]:
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in PAIRS}
    for _ in range(repeat * ROUNDS):
        for name, (_, count, _, ours, theirs) in PAIRS.items():
            gc.collect()
            mine = count / await ours()
            gc.collect()
            found[name].append((mine, count / await theirs()))
    figures = {
        name: {
            "ours_per_s": _summary([ours for ours, _ in pairs]),
            "yardstick": PAIRS[name][0],
            "yardstick_per_s": _summary([theirs for _, theirs in pairs]),
            "ratio": round(statistics.median(ours / theirs for ours, theirs in pairs), 2),
            "target": PAIRS[name][2],
        }
        for name, pairs in found.items()
    }
    idle = await idle_bytes()
    return {
        "name": "P4",
        "what": f"actors, Python {sys.version.split()[0]}",
        "target": "tell 0.8, ask 0.7, fan-in 0.8 of asyncio.Queue; spawn+stop 0.8 of start_soon; "
        "an idle actor <= 2048 bytes above a bare task",
        **figures,
        "idle_bytes": idle,
        "idle_bytes_above_task": {
            "never_told": idle["actor"] - idle["bare_task"],
            "once_told": idle["actor_once_told"] - idle["bare_task"],
        },
    }


def _summary(rates: list[float]) -> list[int]:
    return [round(statistics.median(rates)), round(min(rates)), round(max(rates))]


if __name__ == "__main__":
    import json

    print(json.dumps(run(repeat=int(sys.argv[1]) if len(sys.argv) > 1 else 3), indent=2))
