"""A crash: the message ends, the mailbox stays, the next instance goes on."""

import asyncio
from enum import Enum

import msgspec
import pytest

from protocols.actor import Actor, ActorDead, ActorFailed, Backoff, Mailbox, Props, Rejected
from runtime.kernel.mailbox import QUARANTINE_S, identity
from runtime.kernel.testkit import TestKit


class Poison(msgspec.Struct, frozen=True):
    message_id: str = ""
    crash: bool = True


class Signal(msgspec.Struct, frozen=True):
    pass


class Colour(Enum):
    RED = 1


def child(recorder, log=None, **more):
    return Props(factory=lambda: recorder(log), **more)


@pytest.mark.asyncio
async def test_the_mailbox_and_the_ref_survive_a_restart(recorder):
    async with TestKit() as kit:
        log = []
        ref = kit.spawn(child(recorder, log), name="a")
        ref.tell(1)
        ref.tell("crash")
        ref.tell(2)
        await kit.wait_restarts(ref, 1)
        ref.tell(3)
        await kit.settle()
        assert log == [("start", "a"), 1, ("stop", "a"), ("start", "a"), 2, 3]
        assert kit.lookup("a") is ref
        (letter,) = kit.main.dead_letters.latest()
        assert (letter.reason, letter.message, letter.target) == ("crashed", "crash", "/a")
        assert letter.error == "ValueError: crash"
        assert [(path, str(error)) for path, error in kit.failures] == [("/a", "crash")]


@pytest.mark.asyncio
async def test_the_same_message_crashing_twice_is_quarantined(recorder):
    async with TestKit() as kit:
        ref = kit.spawn(child(recorder))
        poison = Poison("m1")
        for times in (1, 2):
            assert ref.tell(poison)
            await kit.wait_restarts(ref, times)
        assert ref.tell(poison) == Rejected("quarantined")
        assert ref.tell(poison, "urgent") == Rejected("quarantined")
        assert ref.tell(Poison("m1", crash=False)) == Rejected("quarantined")
        assert ref.tell(Poison("m2", crash=False))
        assert ref.tell("other")
        await kit.settle()
        assert kit.main.dead_letters.counts == {"crashed": 2, "quarantined": 3}
        await kit.advance(QUARANTINE_S)
        assert ref.tell(Poison("m1", crash=False))


@pytest.mark.asyncio
async def test_copies_already_queued_are_quarantined_with_it(recorder):
    async with TestKit() as kit:
        log = []
        ref = kit.spawn(child(recorder, log), name="a")
        poison = Poison("m1")
        for message in (poison, poison, poison, "fine"):
            ref.tell(message)
        await kit.wait_restarts(ref, 2)
        assert log[-1] == "fine"
        assert kit.main.dead_letters.counts == {"crashed": 2, "quarantined": 1}


def test_only_what_carries_something_of_its_own_is_the_same_message():
    poison = Poison()
    assert identity(Poison("x")) == identity(Poison("x", crash=False))
    assert identity(["a"]) != identity(["b"])
    for bare in (None, "tick", 7, b"x", Colour.RED, Signal(), Poison):
        assert identity(bare) is None
    assert identity(poison) == identity(poison)


@pytest.mark.asyncio
async def test_equal_signals_are_never_quarantined(recorder):
    async with TestKit() as kit:
        ref = kit.spawn(child(recorder))
        for times in (1, 2, 3):
            assert ref.tell("crash")
            await kit.wait_restarts(ref, times)
        assert ref.tell("crash")


@pytest.mark.asyncio
async def test_what_was_stashed_comes_back_after_a_restart(recorder):
    async with TestKit() as kit:
        log = []

        def put_aside(ctx):
            if ctx.restarts == 0:
                ctx.stash()
            return "handled"

        ref = kit.spawn(child(recorder, log), name="a")
        asked = ref.ask(put_aside, deadline=60)
        ref.tell("crash")
        ref.tell("after")
        assert await asked == "handled"
        await kit.settle()
        assert log[-1] == "after"


@pytest.mark.asyncio
async def test_a_message_that_stashes_itself_and_crashes_is_only_a_dead_letter(recorder):
    async with TestKit() as kit:

        def stash_and_crash(ctx):
            ctx.stash()
            raise ValueError

        ref = kit.spawn(child(recorder))
        ref.tell(stash_and_crash)
        await kit.wait_restarts(ref, 1)
        await kit.advance(60)
        assert kit.main.dead_letters.counts == {"crashed": 1}
        assert kit.statistics().tree.children[0].restarts == 1


@pytest.mark.asyncio
async def test_the_stash_is_bounded(recorder):
    async with TestKit() as kit:
        ref = kit.spawn(child(recorder, mailbox=Mailbox(capacity=1)))
        ref.tell(lambda ctx: ctx.stash())
        await kit.settle()
        ref.tell(lambda ctx: ctx.stash())
        await kit.settle()
        assert "StashFull" in kit.statistics().tree.children[0].last_error


class Fragile(Actor):
    """Fails where it is told to."""

    def __init__(self, where, log):
        self.where = where
        self.log = log

    async def on_start(self, ctx):
        self.log.append("start")
        if self.where == "start" and ctx.restarts < 2:
            raise ValueError("start")

    async def receive(self, message, ctx):
        self.log.append(message)
        if self.where == "receive":
            raise KeyError(message)

    async def on_stop(self, ctx):
        self.log.append("stop")
        if self.where == "stop":
            raise ValueError("stop")


@pytest.mark.asyncio
async def test_a_failing_on_start_is_tried_again_and_loses_no_message():
    async with TestKit() as kit:
        log = []
        ref = kit.spawn(lambda: Fragile("start", log))
        ref.tell("message")
        await kit.wait_restarts(ref, 2)
        await kit.settle()
        assert log == ["start", "start", "start", "message"]


@pytest.mark.asyncio
async def test_a_factory_that_raises_is_a_failure_like_any():
    async with TestKit() as kit:
        calls = []

        def factory():
            calls.append(1)
            if len(calls) == 1:
                raise OSError("no")
            return Fragile("", [])

        ref = kit.spawn(factory)
        await kit.wait_running(ref)
        assert [str(error) for _, error in kit.failures] == ["no"]


@pytest.mark.asyncio
async def test_an_exception_in_on_stop_is_reported_and_the_end_goes_on():
    async with TestKit() as kit:
        ref = kit.spawn(lambda: Fragile("stop", []))
        await kit.settle()
        await kit.main.stop_actor(ref)
        assert not ref.alive
        assert [str(error) for _, error in kit.failures] == ["stop"]


@pytest.mark.asyncio
async def test_on_stop_runs_after_a_crash_of_a_started_instance():
    async with TestKit() as kit:
        log = []
        ref = kit.spawn(lambda: Fragile("receive", log))
        ref.tell("m")
        await kit.wait_restarts(ref, 1)
        assert log == ["start", "m", "stop", "start"]


@pytest.mark.asyncio
async def test_a_cancel_from_within_is_a_crash_not_an_end(recorder):
    async with TestKit() as kit:

        async def await_cancelled(ctx):
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future

        async def cancel_itself(ctx):
            asyncio.current_task().cancel()
            await asyncio.Event().wait()

        ref = kit.spawn(child(recorder))
        for times, message in enumerate((await_cancelled, cancel_itself), 1):
            ref.tell(message)
            await kit.wait_restarts(ref, times)
        assert await ref.ask("alive", deadline=1) == "alive"
        assert kit.main.dead_letters.counts == {"crashed": 2}


@pytest.mark.asyncio
async def test_an_old_context_is_of_no_use(recorder):
    async with TestKit() as kit:
        contexts = []
        ref = kit.spawn(child(recorder))
        ref.tell(contexts.append)
        ref.tell("crash")
        await kit.wait_restarts(ref, 1)
        old = contexts[0]
        for use in (
            lambda: old.spawn(recorder),
            lambda: old.after(1, "x"),
            lambda: old.pipe(asyncio.sleep),
            old.stop,
            old.stash,
        ):
            with pytest.raises(ActorDead):
                use()
        assert ref.alive


@pytest.mark.asyncio
async def test_messages_wait_through_the_backoff(recorder):
    async with TestKit() as kit:
        log = []
        parent = kit.spawn(
            Props(
                backoff=Backoff(base_s=10, jitter=0),
                children=(child(recorder, log, name="a"),),
            ),
            name="p",
        )
        await kit.wait_running(parent)
        ref = kit.lookup("p/a")
        ref.tell("crash")
        await kit.settle()
        assert ref.tell("meanwhile")
        assert kit.statistics().tree.children[0].children[0].state == "backoff"
        await kit.advance(9.9)
        assert log[-1] == ("stop", "a")
        await kit.advance(0.2)
        assert log[-1] == "meanwhile"


@pytest.mark.asyncio
async def test_what_is_stashed_keeps_its_order_and_comes_first(recorder):
    async with TestKit() as kit:
        log, ready = [], []

        def keep(name):
            def message(ctx):
                if ready:
                    log.append(name)
                else:
                    ctx.stash()

            return message

        ref = kit.spawn(child(recorder, log), name="a")
        for name in "xyz":
            ref.tell(keep(name))
        await kit.settle()
        ready.append(True)
        ref.tell(lambda ctx: ctx.unstash_all())
        ref.tell("last")
        await kit.settle()
        assert log == [("start", "a"), "x", "y", "z", "last"]


@pytest.mark.asyncio
async def test_ends_ticks_and_merged_messages_can_be_stashed_too(recorder):
    async with TestKit() as kit:
        log, ready, timers = [], [], []

        class Stasher(Actor):
            async def on_start(self, ctx):
                timers.append(ctx.after(1, ("tick", 1)))
                ctx.watch(other)

            async def receive(self, message, ctx):
                if message == "unstash":
                    ready.append(True)
                    ctx.unstash_all()
                elif ready:
                    log.append(message)
                else:
                    ctx.stash()

        other = kit.spawn(recorder)
        mailbox = Mailbox(overflow="coalesce", key=lambda m: m[0] if isinstance(m, tuple) else None)
        ref = kit.spawn(Props(factory=Stasher, mailbox=mailbox))
        ref.tell(("k", 1))
        await kit.advance(2)
        await kit.main.stop_actor(other)
        await kit.settle()
        ref.tell(("k", 2))
        ref.tell("unstash")
        await kit.settle()
        assert log[:2] == [("k", 1), ("tick", 1)]
        assert log[2].ref is other
        assert log[3:] == [("k", 2)]


@pytest.mark.asyncio
async def test_a_quarantined_message_leaves_its_slot_to_others(recorder):
    async with TestKit() as kit:
        log = []
        mailbox = Mailbox(overflow="coalesce", key=lambda m: getattr(m, "message_id", None))
        ref = kit.spawn(child(recorder, log, mailbox=mailbox), name="a")
        poison = Poison("m1")
        ref.tell(poison)
        await kit.wait_restarts(ref, 1)
        ref.tell(poison, "urgent")
        ref.tell(poison)
        await kit.wait_restarts(ref, 2)
        await kit.advance(QUARANTINE_S)
        ref.tell(Poison("m1", crash=False))
        await kit.settle()
        assert log[-1] == Poison("m1", crash=False)
        assert kit.main.dead_letters.counts == {"crashed": 2, "quarantined": 1}


@pytest.mark.asyncio
async def test_an_exception_whose_text_cannot_be_had_is_survived(recorder):
    async with TestKit() as kit:

        class HostileError(Exception):
            def __str__(self):
                raise RuntimeError("no text")

        def hostile(_ctx):
            raise HostileError

        ref = kit.spawn(child(recorder))
        with pytest.raises(ActorFailed, match="HostileError"):
            await ref.ask(hostile, deadline=1)
        await kit.wait_restarts(ref, 1)
        assert kit.statistics().tree.children[0].last_error == "HostileError"
