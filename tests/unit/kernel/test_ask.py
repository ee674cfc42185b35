"""Ask: an answer, or a typed error, at once where nothing can come any more."""

import asyncio

import pytest

from protocols.actor import (
    Actor,
    ActorDead,
    ActorFailed,
    AskTimeout,
    Mailbox,
    Props,
    SelfAsk,
)
from runtime.kernel import ActorSystem
from runtime.kernel.testkit import TestKit


@pytest.mark.asyncio
async def test_what_receive_returns_is_the_answer(recorder):
    async with TestKit() as kit:
        assert await kit.spawn(recorder).ask("hello", deadline=1) == "hello"
        assert await kit.spawn(recorder).ask("now", deadline=1, lane="urgent") == "now"


@pytest.mark.asyncio
async def test_an_ask_times_out_and_its_late_answer_is_a_dead_letter(recorder):
    async with TestKit() as kit:
        gate = asyncio.Event()
        ref = kit.spawn(lambda: recorder(gate=gate))
        with pytest.raises(AskTimeout):
            await ref.ask("wait", deadline=2)
        assert kit.clock.monotonic() == 2
        gate.set()
        await kit.settle()
        assert [letter.message for letter in kit.main.dead_letters.latest("late_answer")] == [
            "wait"
        ]
        assert kit.statistics().ask_timeouts == 1


@pytest.mark.asyncio
async def test_an_ask_nobody_waits_for_any_more_is_not_handled(recorder):
    async with TestKit() as kit:
        log, gate = [], asyncio.Event()
        ref = kit.spawn(lambda: recorder(log, gate), name="a")
        ref.tell("wait")
        with pytest.raises(AskTimeout):
            await ref.ask("question", deadline=2)
        gate.set()
        await kit.settle()
        assert log == [("start", "a"), "wait"]
        assert [letter.reason for letter in kit.main.dead_letters.latest()] == ["expired"]


@pytest.mark.asyncio
async def test_a_cancelled_asker_frees_the_target(recorder):
    async with TestKit() as kit:
        gate = asyncio.Event()
        ref = kit.spawn(lambda: recorder(gate=gate))
        async with asyncio.TaskGroup() as group:
            asker = group.create_task(_ask(ref, "wait"))
            await kit.settle()
            asker.cancel()
        gate.set()
        assert await ref.ask("next", deadline=1) == "next"


async def _ask(ref, message):
    return await ref.ask(message, deadline=60)


@pytest.mark.asyncio
async def test_asking_oneself_raises(recorder):
    async with TestKit() as kit:
        ref = kit.spawn(recorder)

        async def ask_self(ctx):
            with pytest.raises(SelfAsk):
                await ctx.self_ref.ask("me", deadline=60)
            return "raised"

        assert await ref.ask(ask_self, deadline=1) == "raised"
        assert kit.clock.monotonic() == 0


@pytest.mark.asyncio
async def test_a_question_that_crashes_its_target_fails_at_once(recorder, at_once):
    async with TestKit() as kit:
        ref = kit.spawn(recorder)
        with pytest.raises(ActorFailed) as caught:
            await ref.ask("crash", deadline=60)
        assert isinstance(caught.value.__cause__, ValueError)
        assert kit.clock.monotonic() == 0


@pytest.mark.asyncio
async def test_questions_fail_at_once_when_the_target_ends(recorder):
    async with TestKit() as kit:
        gate = asyncio.Event()
        ref = kit.spawn(lambda: recorder(gate=gate))
        ref.tell("wait")
        await kit.settle()
        waiting = ref.ask("question", deadline=60)
        gate.set()
        await kit.main.stop_actor(ref)
        with pytest.raises(ActorDead):
            await waiting
        assert kit.clock.monotonic() == 0


class Deferring(Actor):
    def __init__(self, replies):
        self.replies = replies

    async def receive(self, message, ctx):
        if message == "crash":
            raise ValueError
        self.replies.append(ctx.defer_reply())
        return "not this"


@pytest.mark.asyncio
async def test_a_deferred_answer_comes_later_and_once():
    async with TestKit() as kit:
        replies = []
        ref = kit.spawn(lambda: Deferring(replies))
        asked = ref.ask("q", deadline=60)
        await kit.settle()
        assert replies[0].wanted
        assert not asked.done()
        replies[0].answer("later")
        assert await asked == "later"
        assert not replies[0].wanted
        replies[0].answer("again")
        ref.tell("told")
        await kit.settle()
        assert not replies[1].wanted
        replies[1].answer("to nobody")
        assert [letter.message for letter in kit.main.dead_letters.latest("late_answer")] == [
            "again",
            "to nobody",
        ]


@pytest.mark.asyncio
async def test_a_deferred_answer_may_be_an_error():
    async with TestKit() as kit:
        replies = []
        ref = kit.spawn(lambda: Deferring(replies))
        asked = ref.ask("q", deadline=60)
        await kit.settle()
        replies[0].fail(LookupError("no"))
        replies[0].fail(LookupError("again"))
        with pytest.raises(LookupError, match="no"):
            await asked


@pytest.mark.asyncio
async def test_owed_answers_fail_at_once_when_their_instance_ends():
    async with TestKit() as kit:
        replies = []
        ref = kit.spawn(lambda: Deferring(replies))
        asked = ref.ask("q", deadline=60)
        await kit.settle()
        ref.tell("crash")
        with pytest.raises(ActorDead):
            await asked
        assert kit.clock.monotonic() == 0
        assert not replies[0].wanted


@pytest.mark.asyncio
async def test_stashed_questions_are_answered_when_they_come_back(recorder):
    async with TestKit() as kit:
        ready = False

        async def open_or_stash(ctx):
            if not ready:
                ctx.stash()
            return "answer"

        ref = kit.spawn(recorder)
        first = ref.ask(open_or_stash, deadline=60)
        second = ref.ask(open_or_stash, deadline=60)
        await kit.settle()
        assert kit.statistics().tree.children[0].stashed == 2
        ready = True
        ref.tell(lambda ctx: ctx.unstash_all())
        assert (await first, await second) == ("answer", "answer")


@pytest.mark.asyncio
async def test_a_supervisor_answers_nothing():
    async with TestKit() as kit:
        ref = kit.spawn(Props(name="s"))
        with pytest.raises(ActorDead, match="supervisor"):
            await ref.ask("hello", deadline=60)
        ref.tell("hi")
        await kit.settle()
        assert kit.main.dead_letters.counts == {"unhandled": 2}


@pytest.mark.asyncio
async def test_deadlines_hold_on_a_real_loop_too(recorder):
    gate = asyncio.Event()
    async with ActorSystem() as system:
        ref = system.spawn(Props(factory=lambda: recorder(gate=gate), mailbox=Mailbox()))
        ref.tell("wait")
        waiting = [ref.ask(number, deadline=deadline) for number, deadline in enumerate((60, 0.02))]
        with pytest.raises(AskTimeout):
            await waiting[1]
        assert not waiting[0].done()
        gate.set()
        assert await waiting[0] == 0
        assert await ref.ask("more", deadline=0.02) == "more"
        assert system.deadlines.timed_out == 1


@pytest.mark.asyncio
async def test_a_cancelled_ask_is_left_alone_by_its_deadline(recorder):
    wrong = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context))
    async with ActorSystem() as system:
        ref = system.spawn(lambda: recorder(gate=asyncio.Event()), name="a")
        ref.tell("wait")
        first, second = ref.ask(1, deadline=0.001), ref.ask(2, deadline=0.03)
        first.cancel()
        with pytest.raises(AskTimeout):
            await second
        assert system.deadlines.timed_out == 1
        system.kill()
    assert wrong == []
