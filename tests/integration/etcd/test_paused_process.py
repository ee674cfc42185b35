"""A leader stopped by SIGSTOP past its lease never trusts itself beside its successor."""

import os
import signal
import sys
from pathlib import Path

import anyio
import pytest
from anyio.streams.text import TextReceiveStream

from runtime.clock import monotonic_ns
from runtime.etcd import EtcdCoordinator, EtcdSettings

pytestmark = pytest.mark.asyncio

ROOT = Path(__file__).parents[3]
TTL_S = 2.0


async def lines(process):
    left = ""
    async for piece in TextReceiveStream(process.stdout):
        *whole, left = (left + piece).split("\n")
        for line in whole:
            word, _, rest = line.partition(" ")
            if word in {"trusted", "lost"}:  # the rest is its log
                yield word, int(rest)


async def test_a_leader_that_was_stopped_never_leads_beside_its_successor(etcd):
    told, first_told = [], anyio.Event()

    async def listen():
        async for word, at_ns in lines(process):
            told.append((word, at_ns))
            first_told.set()

    command = [sys.executable, "-m", "tests.integration.etcd.leader"]
    arguments = [etcd.endpoint, "paused", str(TTL_S)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with anyio.fail_after(30):
        async with (
            await anyio.open_process(
                [*command, *arguments], env=env, cwd=ROOT, stderr=None
            ) as process,
            anyio.create_task_group() as group,
        ):
            group.start_soon(listen)
            await first_told.wait()
            process.send_signal(signal.SIGSTOP)
            second = EtcdCoordinator(
                EtcdSettings(endpoints=(etcd.endpoint,), cluster="paused", ttl_s=TTL_S),
                name="second",
                incarnation=2,
            )
            second.cover(1)
            group.start_soon(second.run)
            before_ns = monotonic_ns()
            leadership = await second.campaign(0)
            process.send_signal(signal.SIGCONT)
            await process.wait()
            assert leadership.trusted()
            group.cancel_scope.cancel()
    assert told[-1][0] == "lost"
    assert all(at_ns < before_ns for word, at_ns in told if word == "trusted")
