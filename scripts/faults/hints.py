"""Whether a trigger at one node starts on another at once by Kafka, and by the poll without it.

Only node n1 has slots of the pool `hinted`, so what is asked of n0 can run nowhere else.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Final

from scripts.faults.asking import Caller
from scripts.faults.jobs import HINTED, LEDGER
from scripts.faults.world import TOKEN, World, now_us

POLL_S: Final = 1.0
"""How long a dispatcher that no hint reaches waits before it looks (`actors.dispatcher`)."""
ASKED: Final = 20
_WAIT_S: Final = 30.0
_HINT_OF_POLL: Final = 0.5
"""Asked one after another, each as the former has begun, by a poll alone they take all of its
period: half of it in the median goes to a busy machine, and no poll comes to so little."""
_SPARE_S: Final = 1.0
_TAIL_BYTES: Final = 1 << 16


class HintError(Exception):
    """It took too long, or did not go the way it should."""


async def hinted(world: World, *, with_kafka: bool) -> str:
    """Ask n0 a few times for what only n1 can run; the times in words.

    Raises:
        HintError: with Kafka they were no faster than polling, without it slower.
    """
    caller = Caller(TOKEN)
    took_s: list[float] = []
    before = await sent(world, caller)
    try:
        for number in range(ASKED):
            key = f"hint-{with_kafka}-{number}"
            asked_us = now_us()
            status, answer = await caller.post(
                world.nodes["n0"].url, f"/api/v1/jobs/{HINTED}/trigger", {"input": {}}, key=key
            )
            if status not in {200, 201}:
                raise HintError(f"n0 answers {status}: {answer}")
            took_s.append((await began_us(world, answer["execution_id"]) - asked_us) / 1e6)
        after = await sent(world, caller)
    finally:
        caller.close()
    took_s.sort()
    median_s, worst_s = took_s[len(took_s) // 2], took_s[-1]
    words = f"median {median_s * 1000:.0f} ms, worst {worst_s * 1000:.0f} ms, {after - before:.0f} "
    words += "by Kafka"
    if with_kafka and (median_s > POLL_S * _HINT_OF_POLL or after <= before):
        raise HintError(f"not by a hint: {words}")
    if not with_kafka and worst_s > POLL_S + _SPARE_S:
        raise HintError(f"slower than the poll: {words}")
    return words


async def began_us(world: World, execution: str) -> int:
    """When an execution wrote its first line."""
    until_s = time.monotonic() + _WAIT_S
    while time.monotonic() < until_s:
        with (world.work.folder / LEDGER).open("rb") as ledger:
            ledger.seek(0, os.SEEK_END)
            ledger.seek(max(0, ledger.tell() - _TAIL_BYTES))
            lines = ledger.read().decode().splitlines()
        for line in lines:
            if line.startswith(f"start {execution} "):
                return int(line.rpartition(" ")[2])
        await asyncio.sleep(0.02)
    raise HintError(f"{execution} did not start within {_WAIT_S:.0f} s")


async def sent(world: World, caller: Caller) -> float:
    """How often n0 has told other nodes that work is ready."""
    _, text = await caller.get(world.nodes["n0"].url, "/metrics")
    return told_ready(str(text))


def told_ready(metrics: str) -> float:
    """Of a node's metrics the hints that it sent of ready work: no other message starts any."""
    wanted = {'direction="sent"', 'hint="Ready"'}
    for line in metrics.splitlines():
        name, _, value = line.rpartition(" ")
        metric, _, labels = name.rstrip("}").partition("{")
        if metric == "tickwright_hints_total" and wanted <= set(labels.split(",")):
            return float(value)
    return 0.0
