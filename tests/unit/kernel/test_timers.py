"""`after`, `every` and `sleep`: in the system's time, gone with the instance that set them."""

import asyncio

import pytest

from protocols.actor import Mailbox, Props
from runtime.kernel.testkit import TestKit


@pytest.mark.asyncio
async def test_after_delivers_once_at_its_time(recorder):
    async with TestKit() as kit:
        log = []
        ref = kit.spawn(lambda: recorder(log), name="a")
        ref.tell(lambda ctx: ctx.after(10, "ten") and None)
        ref.tell(lambda ctx: ctx.after(5, "five") and None)
        await kit.advance(9.999)
        assert log[-1] == "five"
        await kit.advance(100)
        assert [entry for entry in log if isinstance(entry, str)] == ["five", "ten"]
        assert kit.statistics().tree.children[0].timers == 0


@pytest.mark.asyncio
async def test_a_cancelled_timer_delivers_nothing_even_if_queued(recorder):
    async with TestKit() as kit:
        log, gate, timers = [], asyncio.Event(), []
        ref = kit.spawn(lambda: recorder(log, gate), name="a")
        ref.tell(lambda ctx: timers.append(ctx.after(1, "one")))
        ref.tell(lambda ctx: timers.append(ctx.after(2, "two")))
        ref.tell("wait")
        await kit.advance(1.5)
        for timer in timers:
            timer.cancel()
        await kit.advance(5)
        gate.set()
        await kit.settle()
        assert "one" not in log
        assert "two" not in log
        assert kit.main.dead_letters.total == 0


@pytest.mark.asyncio
async def test_every_comes_each_period_and_skips_while_one_waits(recorder):
    async with TestKit() as kit:
        log, gate, timers = [], asyncio.Event(), []
        ref = kit.spawn(lambda: recorder(log, gate), name="a")
        ref.tell(lambda ctx: timers.append(ctx.every(1, "tick")))
        await kit.advance(3)
        assert log.count("tick") == 3
        ref.tell("wait")
        await kit.advance(5)
        gate.set()
        await kit.settle()
        assert log.count("tick") == 4
        timers[0].cancel()
        await kit.advance(10)
        assert log.count("tick") == 4
        assert kit.clock.timers == 0


@pytest.mark.asyncio
async def test_a_period_is_positive(recorder):
    async with TestKit() as kit:
        ref = kit.spawn(recorder)
        with pytest.raises(Exception, match="period"):
            await ref.ask(lambda ctx: ctx.every(0, "tick"), deadline=1)


@pytest.mark.asyncio
async def test_a_full_mailbox_takes_a_timer_all_the_same(recorder):
    async with TestKit() as kit:
        log, gate = [], asyncio.Event()
        props = Props(factory=lambda: recorder(log, gate), mailbox=Mailbox(capacity=1))
        ref = kit.spawn(props, name="a")
        ref.tell(lambda ctx: ctx.after(1, "tick") and None)
        await kit.settle()
        ref.tell("wait")
        await kit.settle()
        ref.tell("fills it")
        await kit.advance(1)
        gate.set()
        await kit.settle()
        assert log[-2:] == ["fills it", "tick"]


@pytest.mark.asyncio
async def test_timers_end_with_the_instance(recorder):
    async with TestKit() as kit:
        log = []
        ref = kit.spawn(lambda: recorder(log), name="a")
        ref.tell(lambda ctx: ctx.after(5, "late") and None)
        ref.tell(lambda ctx: ctx.every(5, "tick") and None)
        ref.tell("crash")
        await kit.advance(60)
        assert "late" not in log
        assert "tick" not in log
        await kit.main.stop_actor(ref)
        assert kit.clock.timers == 0
