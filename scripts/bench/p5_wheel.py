"""P5: the timing wheel beside loop.call_later, interleaved: rates, memory, cost of a tick."""

import asyncio
import gc
import random
import statistics
import tracemalloc
from collections.abc import Callable
from time import perf_counter
from typing import Any

from actors.timer.wheel import MS, SECOND, TimingWheel

TIMERS = 100_000
START_NS = 1_790_000_000 * SECOND


def run(*, repeat: int) -> dict[str, Any]:
    """Measure `repeat` times, ours and the yardstick in turn.

    Returns:
        For insert, cancel and fire: timers/s of both as [median, min, max], and the ratio of the
        medians; `bytes_per_timer`; `tick_us` of an empty millisecond by how many timers wait.
    """
    delays = random.Random(5)
    delays_s = [delays.uniform(0.5, 4 * 3600) for _ in range(TIMERS)]
    found: dict[str, list[tuple[float, float]]] = {"insert": [], "cancel": [], "fire": []}
    loop = asyncio.new_event_loop()
    try:
        for _ in range(repeat):
            _insert_and_cancel(loop, delays_s, found)
            found["fire"].append((_fire_wheel(), _fire_loop(loop)))
    finally:
        loop.close()
    figures = {
        name: {
            "ours_per_s": _summary([ours for ours, _ in pairs]),
            "call_later_per_s": _summary([theirs for _, theirs in pairs]),
            "ratio": round(
                statistics.median(o for o, _ in pairs) / statistics.median(t for _, t in pairs), 2
            ),
        }
        for name, pairs in found.items()
    }
    return {
        "name": "P5",
        "what": f"timing wheel, {TIMERS} timers",
        "target": ">= call_later in each; <= 200 bytes a timer; tick cost independent of waiting",
        **figures,
        "bytes_per_timer": _bytes_per_timer(delays_s),
        "tick_us": {str(n): _tick_us(n) for n in (0, 10_000, 1_000_000)},
    }


def _insert_and_cancel(
    loop: asyncio.AbstractEventLoop,
    delays_s: list[float],
    found: dict[str, list[tuple[float, float]]],
) -> None:
    wheel = TimingWheel(START_NS)
    whens = [START_NS + int(delay * SECOND) for delay in delays_s]
    insert, call_later = wheel.insert, loop.call_later
    ours, timers = _timed(lambda: [insert(when, None) for when in whens])
    theirs, handles = _timed(lambda: [call_later(delay, _nothing) for delay in delays_s])
    found["insert"].append((TIMERS / ours, TIMERS / theirs))
    cancel = wheel.cancel
    ours, _ = _timed(lambda: [cancel(timer) for timer in timers])

    def cancel_in_loop() -> None:
        for handle in handles:
            handle.cancel()
        # Ours has swept what was cancelled by now; the loop does so in its next turn.
        loop.run_until_complete(asyncio.sleep(0))

    theirs, _ = _timed(cancel_in_loop)
    found["cancel"].append((TIMERS / ours, TIMERS / theirs))


def _fire_wheel() -> float:
    wheel = TimingWheel(START_NS)
    for number in range(TIMERS):
        wheel.insert(START_NS + number * 10_000, _nothing)

    def fire() -> None:
        for timer in wheel.advance(START_NS + TIMERS * 10_000):
            timer.item()

    return TIMERS / _timed(fire)[0]


def _fire_loop(loop: asyncio.AbstractEventLoop) -> float:
    now = loop.time()
    for number in range(TIMERS):
        loop.call_at(now - 1 + number * 1e-6, _nothing)
    done = loop.create_future()
    loop.call_at(now - 0.5, done.set_result, None)
    return TIMERS / _timed(lambda: loop.run_until_complete(done))[0]


def _bytes_per_timer(delays_s: list[float]) -> float:
    whens = [START_NS + int(delay * SECOND) for delay in delays_s]
    gc.collect()
    tracemalloc.start()
    wheel = TimingWheel(START_NS)
    before, _ = tracemalloc.get_traced_memory()
    for when in whens:
        wheel.insert(when + 1, None)  # a number of its own, as a real timer's is
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return round((after - before) / len(wheel), 1)


def _tick_us(waiting: int) -> float:
    wheel = TimingWheel(START_NS)
    for number in range(waiting):
        wheel.insert(START_NS + 3600 * SECOND + number * MS, None)
    steps = 20_000

    def tick() -> None:
        for step in range(1, steps + 1):
            wheel.advance(START_NS + step * MS)
            wheel.next_expiry()

    return round(_timed(tick)[0] / steps * 1e6, 2)


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    gc.collect()
    start = perf_counter()
    result = work()
    return perf_counter() - start, result


def _summary(values: list[float]) -> list[int]:
    return [round(statistics.median(values)), round(min(values)), round(max(values))]


def _nothing() -> None:
    pass
