"""Piped work: beside the mailbox, its outcome a message, gone with the instance that began it."""

import asyncio
import gc

import pytest

from protocols.actor import Actor, Props
from runtime.kernel.testkit import TestKit


class Piper(Actor):
    """Pipes what it is told to; writes down what comes back."""

    def __init__(self, log):
        self.log = log

    async def receive(self, message, ctx):
        if callable(message):
            return message(ctx)
        self.log.append(message)
        return message


def piper(kit, log, **more):
    return kit.spawn(Props(factory=lambda: Piper(log), **more), name="p")


async def later(ctx, value, delay_s=5):
    await ctx.sleep(delay_s)
    if isinstance(value, Exception):
        raise value
    return value


@pytest.mark.asyncio
async def test_the_outcome_comes_back_and_messages_go_on_meanwhile():
    async with TestKit() as kit:
        log = []
        ref = piper(kit, log)
        ref.tell(lambda ctx: ctx.pipe(lambda: later(ctx, "done")) and None)
        ref.tell(lambda ctx: ctx.pipe(later(ctx, 2), on_done=lambda n: ("twice", 2 * n)) and None)
        ref.tell("meanwhile")
        await kit.settle()
        assert log == ["meanwhile"]
        assert kit.statistics().tree.children[0].pipes == 2
        await kit.advance(5)
        assert log == ["meanwhile", "done", ("twice", 4)]
        assert kit.statistics().tree.children[0].pipes == 0


@pytest.mark.asyncio
async def test_none_is_no_message():
    async with TestKit() as kit:
        log = []
        ref = piper(kit, log)
        ref.tell(lambda ctx: ctx.pipe(lambda: later(ctx, None)) and None)
        ref.tell(
            lambda ctx: ctx.pipe(lambda: later(ctx, ValueError()), on_error=lambda _: None) and None
        )
        await kit.advance(5)
        assert log == []
        assert kit.failures == []


@pytest.mark.asyncio
async def test_an_error_is_mapped_to_a_message_or_ends_the_actor():
    async with TestKit() as kit:
        log = []
        ref = piper(kit, log)
        bad = ValueError("bad")
        ref.tell(
            lambda ctx: (
                ctx.pipe(lambda: later(ctx, bad), on_error=lambda error: ("failed", error)) and None
            )
        )
        await kit.advance(5)
        assert log == [("failed", bad)]
        ref.tell(lambda ctx: ctx.pipe(lambda: later(ctx, bad)) and None)
        await kit.wait_restarts(ref, 1)
        assert kit.failures == [("/p", bad)]
        assert kit.main.dead_letters.total == 0


@pytest.mark.parametrize("mapping", ["on_done", "on_error"])
@pytest.mark.asyncio
async def test_a_mapping_that_raises_ends_the_actor(mapping):
    async with TestKit() as kit:
        ref = piper(kit, [])

        def broken(_):
            raise TypeError("broken mapping")

        value = "v" if mapping == "on_done" else ValueError()
        ref.tell(lambda ctx: ctx.pipe(lambda: later(ctx, value), **{mapping: broken}) and None)
        await kit.wait_restarts(ref, 1)
        assert [str(error) for _, error in kit.failures] == ["broken mapping"]


@pytest.mark.asyncio
async def test_a_cancelled_pipe_ends_and_delivers_nothing():
    async with TestKit() as kit:
        log, pipes, cancelled = [], [], []

        async def work():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(True)
                return "swallowed"

        ref = piper(kit, log)
        ref.tell(lambda ctx: pipes.append(ctx.pipe(work)))
        await kit.settle()
        pipes[0].cancel()
        await kit.settle()
        assert cancelled == [True]
        assert pipes[0].done
        assert log == []


@pytest.mark.asyncio
async def test_cancelled_before_its_first_turn_it_never_runs():
    async with TestKit() as kit:
        log = []
        ref = piper(kit, log)

        def start_and_cancel(ctx):
            ctx.pipe(later(ctx, "never", 0)).cancel()

        ref.tell(start_and_cancel)
        await kit.advance(1)
        assert log == []
    gc.collect()  # a coroutine never awaited would warn here, and a warning is an error


@pytest.mark.asyncio
async def test_an_outcome_that_waits_in_the_mailbox_can_still_be_cancelled():
    async with TestKit() as kit:
        log, gate = [], asyncio.Event()

        class Busy(Piper):
            async def receive(self, message, ctx):
                if message == "cancel":
                    pipe = ctx.pipe(lambda: later(ctx, "too late", 1))
                    await ctx.sleep(2)
                    pipe.cancel()
                    gate.set()
                    return None
                return await super().receive(message, ctx)

        kit.spawn(lambda: Busy(log)).tell("cancel")
        await kit.wait_until(gate.is_set)
        await kit.advance(5)
        assert log == []


@pytest.mark.asyncio
async def test_a_restart_cancels_pipes_and_nothing_reaches_the_next_instance():
    async with TestKit() as kit:
        log, ended = [], []

        async def work(ctx):
            try:
                await ctx.sleep(5)
            finally:
                ended.append(True)
            return "outcome"

        ref = piper(kit, log)
        ref.tell(lambda ctx: ctx.pipe(lambda: work(ctx)) and None)
        await kit.settle()
        ref.tell(lambda _: 1 / 0)
        await kit.wait_restarts(ref, 1)
        await kit.advance(60)
        assert ended == [True]
        assert log == []


@pytest.mark.asyncio
async def test_an_outcome_queued_at_a_crash_is_not_the_next_instances():
    async with TestKit() as kit:
        log = []

        class Busy(Piper):
            async def receive(self, message, ctx):
                if message == "go":
                    ctx.pipe(lambda: later(ctx, "outcome", 1))
                    await ctx.sleep(2)
                    raise ValueError
                return await super().receive(message, ctx)

        ref = kit.spawn(lambda: Busy(log))
        ref.tell("go")
        await kit.wait_restarts(ref, 1)
        await kit.advance(5)
        assert log == []


@pytest.mark.asyncio
async def test_a_cancel_from_within_a_pipe_is_an_error_of_that_pipe_alone():
    async with TestKit() as kit:
        log = []

        async def stray():
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future

        ref = piper(kit, log)
        ref.tell(lambda ctx: ctx.pipe(lambda: later(ctx, "other")) and None)
        ref.tell(lambda ctx: ctx.pipe(stray, on_error=lambda error: type(error).__name__) and None)
        await kit.advance(5)
        assert log == ["RuntimeError", "other"]


class Drainer(Piper):
    async def on_stop(self, ctx):
        await ctx.drain()
        self.log.append("drained")


@pytest.mark.asyncio
async def test_drain_lets_work_finish_and_hands_its_outcomes_over():
    async with TestKit() as kit:
        log = []
        ref = kit.spawn(Props(factory=lambda: Drainer(log), stop_grace_s=10))
        ref.tell(lambda ctx: ctx.pipe(lambda: later(ctx, "first", 3)) and None)
        ref.tell(lambda ctx: ctx.pipe(lambda: later(ctx, "second", 6)) and None)
        await kit.settle()
        ref.tell("too late")
        await kit.main.stop_actor(ref)
        assert log == ["first", "second", "drained"]
        assert kit.clock.monotonic() == 6
        assert kit.main.dead_letters.counts == {"dead": 1}


@pytest.mark.asyncio
async def test_drain_ends_with_the_grace():
    async with TestKit() as kit:
        log = []
        ref = kit.spawn(Props(factory=lambda: Drainer(log), stop_grace_s=2))
        ref.tell(lambda ctx: ctx.pipe(lambda: later(ctx, "never", 600)) and None)
        await kit.settle()
        await kit.main.stop_actor(ref)
        assert log == []
        assert kit.clock.monotonic() == 2


@pytest.mark.asyncio
async def test_ten_thousand_pipes_at_once():
    async with TestKit() as kit:
        log = []
        ref = piper(kit, log)

        def start(ctx):
            for number in range(10_000):
                ctx.pipe(lambda number=number: later(ctx, number))

        ref.tell(start)
        await kit.advance(5)
        assert log == list(range(10_000))
