"""Inline tasks: functions of the embedding program, on its loop and in its threads."""

import asyncio
import threading
from pathlib import Path

import anyio.to_thread
import pytest

from protocols.jobs import PythonTask
from protocols.ports.executor import Request
from tests.integration.hosts.house import House, eventually, open_house, text

pytestmark = pytest.mark.asyncio


def inline(name, *args, **kwargs):
    return PythonTask(target=name, args=args, kwargs=kwargs, isolation="inline")


async def test_functions_of_the_program(tmp_path: Path):
    calls = []

    async def coroutine(ctx, n):
        calls.append(n)
        ctx.log.info("working on %s", ctx.input)
        await ctx.save({"n": n})
        return [ctx.job_id, await ctx.once("k", "1m")]

    def plain(ctx):
        ctx.save(2)
        return threading.current_thread() is threading.main_thread()

    async def failing():
        raise ValueError("not today")

    functions = {"a": coroutine, "b": plain, "c": failing, "d": object, "e": 3}
    async with open_house(tmp_path, functions=functions) as house:
        house.answers["once"] = lambda _: "first"
        outcome = await house.run(inline("a", 7), input=b"[1]", job_id="mine")
        assert (outcome.state, outcome.result) == ("succeeded", b'["mine","first"]')
        assert text(outcome) == "INFO working on [1]\n"
        assert calls == [7]
        assert [r.kind for r in house.reports if isinstance(r, Request)] == ["checkpoint", "once"]
        assert (await house.run(inline("b"))).result == b"false"
        outcome = await house.run(inline("c"))
        assert (outcome.state, outcome.error) == ("failed", "ValueError: not today")
        assert "test_inline.py" in text(outcome)
        assert "not JSON" in (await house.run(inline("d"))).error
        for name in ("e", "nobody"):
            outcome = await house.run(inline(name))
            assert (outcome.state, outcome.unimportable) == ("unstarted", True)


async def test_plain_functions_run_side_by_side_in_threads_of_their_own(tmp_path: Path):
    """Not in those that the node waits for: they may block for as long as they like."""
    together = threading.Barrier(51)
    async with open_house(tmp_path, functions={"mine:meet": lambda: together.wait(30)}) as house:
        task = inline("mine:meet")
        jobs = [house.begin(task) for _ in range(50)]
        await anyio.to_thread.run_sync(together.wait, 30)
        for job in jobs:
            assert (await house.outcome_of(job)).state == "succeeded"


async def test_a_timeout_and_a_cancel(tmp_path: Path):
    seen = []

    async def sleeps(ctx):
        try:
            await asyncio.Event().wait()
        finally:
            seen.append(ctx.cancelled)

    async with open_house(tmp_path, functions={"sleeps": sleeps}) as house:
        assert (await house.run(inline("sleeps"), timeout_s=0.1)).state == "timed_out"
        job = house.begin(inline("sleeps"))
        await eventually(lambda: house.started(job))
        house.executor.cancel(job.id, job.fencing_token)
        assert (await house.outcome_of(job)).state == "cancelled"
        assert seen == [True, True]


async def test_what_does_not_end_is_reported_and_left_to_itself(tmp_path: Path):
    release = threading.Event()

    def deaf():
        release.wait()

    async with open_house(tmp_path, functions={"deaf": deaf}, kill_grace_s=0.1) as house:
        outcome = await house.run(inline("deaf"), timeout_s=0.1)
        assert outcome.state == "timed_out"
        release.set()


async def test_nothing_is_inline_that_was_not_given(house: House):
    outcome = await house.run(inline("os:getcwd"))
    assert (outcome.state, outcome.unimportable) == ("unstarted", True)
