"""The end: in reverse start order, each with its grace, then cancelled; nothing lost silently."""

import asyncio

import anyio
import pytest
from structlog.testing import capture_logs

from protocols.actor import Actor, ActorDead, ActorFailed, Backoff, Props
from runtime.kernel import ActorSystem
from runtime.kernel.testkit import TestKit


class Slow(Actor):
    """Works for as long as its message says, in the kit's time."""

    def __init__(self, log, stop_s=0.0, stubborn=0):
        self.log = log
        self.stop_s = stop_s
        self.stubborn = stubborn

    async def receive(self, message, ctx):
        self.log.append(("begin", message))
        while True:
            try:
                await ctx.sleep(message)
                break
            except asyncio.CancelledError:
                self.log.append("cancelled")
                if not self.stubborn:
                    raise
                self.stubborn -= 1
        self.log.append(("end", message))

    async def on_stop(self, ctx):
        self.log.append(("stop", ctx.name))
        await ctx.sleep(self.stop_s)
        self.log.append(("stopped", ctx.name))


@pytest.mark.asyncio
async def test_children_stop_in_reverse_start_order_before_their_parent(recorder):
    async with TestKit() as kit:
        log = []

        def node(name, *children):
            return Props(name=name, factory=lambda: recorder(log), children=children)

        system = await kit.system("n", Props(children=(node("a", node("b"), node("c")), node("d"))))
        starts = [name for _, name in log]
        assert starts == ["a", "b", "c", "d"]
        log.clear()
        await system.stop()
        assert log == [("stop", name) for name in ("d", "c", "b", "a")]


@pytest.mark.asyncio
async def test_each_ends_before_the_one_started_before_it_is_asked():
    async with TestKit() as kit:
        log = []
        for name in "ab":
            kit.spawn(Props(factory=lambda: Slow(log, stop_s=2), name=name))
        await kit.settle()
        await kit.main.stop()
        assert log == [("stop", "b"), ("stopped", "b"), ("stop", "a"), ("stopped", "a")]


@pytest.mark.asyncio
async def test_work_in_hand_is_finished_within_the_grace():
    async with TestKit() as kit:
        log = []
        ref = kit.spawn(Props(factory=lambda: Slow(log), name="a", stop_grace_s=5))
        ref.tell(4)
        ref.tell(1)
        await kit.settle()
        await kit.main.stop_actor(ref)
        assert log == [("begin", 4), ("end", 4), ("stop", "a"), ("stopped", "a")]
        assert [letter.message for letter in kit.main.dead_letters.latest("dead")] == [1]
        assert kit.clock.monotonic() == 4


@pytest.mark.asyncio
async def test_past_its_grace_it_is_cancelled_and_still_hands_back():
    async with TestKit() as kit:
        log = []
        ref = kit.spawn(Props(factory=lambda: Slow(log), name="a", stop_grace_s=5))
        asked = ref.ask(600, deadline=9000)
        await kit.settle()
        await kit.main.stop_actor(ref)
        assert log == [("begin", 600), "cancelled", ("stop", "a"), ("stopped", "a")]
        assert kit.clock.monotonic() == 5
        with pytest.raises(ActorDead):
            await asked
        assert kit.main.dead_letters.counts == {"cancelled": 1}


@pytest.mark.asyncio
async def test_on_stop_has_the_grace_once_more_then_it_is_cancelled():
    async with TestKit() as kit:
        log = []
        ref = kit.spawn(Props(factory=lambda: Slow(log, stop_s=600), name="a", stop_grace_s=5))
        ref.tell(600)
        await kit.settle()
        await kit.main.stop_actor(ref)
        assert log == [("begin", 600), "cancelled", ("stop", "a")]
        assert kit.clock.monotonic() == 10
        ((_, error),) = kit.failures
        assert type(error) is TimeoutError
        assert "within its grace of" in str(error)
        assert error.__traceback__ is None, "one line says it all"


@pytest.mark.asyncio
async def test_one_that_swallows_a_cancel_is_cancelled_again():
    async with TestKit() as kit:
        log = []
        ref = kit.spawn(Props(factory=lambda: Slow(log, stubborn=2), stop_grace_s=1))
        ref.tell(600)
        await kit.settle()
        await kit.main.stop_actor(ref)
        assert log.count("cancelled") == 3
        assert kit.clock.monotonic() == 3


@pytest.mark.asyncio
async def test_a_cancel_swallowed_by_the_message_does_not_hit_on_stop():
    async with TestKit() as kit:
        log = []

        class Tidy(Slow):
            async def receive(self, message, ctx):
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await anyio.sleep(1)
                try:
                    await ctx.sleep(600)
                except asyncio.CancelledError:
                    log.append("tidied")

            async def on_stop(self, ctx):
                log.append(asyncio.current_task().cancelling())
                await super().on_stop(ctx)

        ref = kit.spawn(Props(factory=lambda: Tidy(log, stop_s=0.5), name="a", stop_grace_s=1))
        ref.tell("work")
        await kit.settle()
        await kit.main.stop_actor(ref)
        assert log == ["tidied", 0, ("stop", "a"), ("stopped", "a")]


@pytest.mark.asyncio
async def test_on_start_that_hangs_is_cancelled_at_a_stop():
    async with TestKit() as kit:
        log = []

        class Hanging(Slow):
            async def on_start(self, ctx):
                await ctx.sleep(600)

        ref = kit.spawn(Props(factory=lambda: Hanging(log), stop_grace_s=2))
        await kit.settle()
        await kit.main.stop_actor(ref)
        assert kit.clock.monotonic() == 2
        assert log == []


@pytest.mark.asyncio
async def test_a_stop_before_the_first_turn_starts_nothing(recorder):
    async with TestKit() as kit:
        log = []
        ref = kit.spawn(lambda: recorder(log))
        ref.tell("never")
        await kit.main.stop_actor(ref)
        assert log == []
        assert kit.main.dead_letters.counts == {"dead": 1}


@pytest.mark.asyncio
async def test_a_stop_during_backoff_is_at_once(recorder):
    async with TestKit() as kit:
        parent = kit.spawn(
            Props(
                backoff=Backoff(base_s=100),
                children=(Props(name="c", factory=recorder),),
            )
        )
        await kit.wait_running(parent)
        child = next(iter(parent.cell.family.children.values())).ref
        child.tell("crash")
        await kit.settle()
        child.tell("waiting")
        await kit.main.stop_actor(parent)
        assert kit.clock.monotonic() == 0
        assert not child.alive
        assert kit.main.dead_letters.counts == {"crashed": 1, "dead": 1}


@pytest.mark.asyncio
async def test_a_crash_while_its_parent_stops_is_not_restarted(recorder):
    async with TestKit() as kit:
        log, slow = [], []
        parent = kit.spawn(
            Props(
                backoff=Backoff(base_s=0),
                children=(
                    Props(name="a", factory=lambda: recorder(log)),
                    Props(name="b", factory=lambda: Slow(slow, stop_s=3)),
                ),
            ),
            name="p",
        )
        await kit.wait_running(parent)
        child = kit.lookup("p/a")
        parent.cell.request("stop")
        await kit.advance(1)
        child.tell("crash")
        await kit.wait_terminated(parent)
        assert log == [("start", "a"), ("stop", "a")]
        assert not child.alive


@pytest.mark.asyncio
async def test_who_was_stopped_does_not_come_back_with_its_group(recorder):
    async with TestKit() as kit:
        log = []
        parent = kit.spawn(
            Props(
                strategy="one_for_all",
                backoff=Backoff(base_s=0),
                children=(
                    Props(name="a", factory=lambda: Slow(log)),
                    Props(name="b", factory=recorder),
                ),
            ),
            name="p",
        )
        await kit.wait_running(parent)
        first, second = kit.lookup("p/a"), kit.lookup("p/b")
        first.tell(3)
        await kit.settle()
        first.cell.request("stop")
        second.tell("crash")
        await kit.wait_restarts(second, 1)
        assert not first.alive
        assert log.count(("stop", "a")) == 1


@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
@pytest.mark.asyncio
async def test_a_stop_during_a_group_restart_ends_it(recorder, strategy):
    async with TestKit() as kit:
        log = []
        parent = kit.spawn(
            Props(
                strategy=strategy,
                backoff=Backoff(base_s=100, jitter=0),
                children=tuple(Props(name=n, factory=lambda: recorder(log)) for n in "abc"),
            )
        )
        await kit.wait_running(parent)
        children = [cell.ref for cell in parent.cell.family.children.values()]
        children[1].tell("crash")
        await kit.settle()
        await kit.main.stop_actor(parent)
        assert kit.clock.monotonic() == 0
        assert not any(child.alive for child in children)
        assert log.count(("start", "a")) == 1


@pytest.mark.asyncio
async def test_an_actor_that_ends_itself_finishes_its_message_first(recorder):
    async with TestKit() as kit:
        log = []
        ref = kit.spawn(Props(factory=lambda: recorder(log), restart="transient", name="a"))
        assert await ref.ask("finish", deadline=1) == "finish"
        await kit.wait_terminated(ref)
        assert log == [("start", "a"), "finish", ("stop", "a")]


@pytest.mark.asyncio
async def test_leaving_the_block_by_an_exception_stops_in_order_and_raises_it(recorder):
    log = []
    with pytest.raises(LookupError, match="body"):  # noqa: PT012 - the block is the subject
        async with ActorSystem() as system:
            system.spawn(lambda: recorder(log), name="a")
            await asyncio.sleep(0)
            raise LookupError("body")
    assert log == [("start", "a"), ("stop", "a")]
    assert len(system.nursery) == 0


@pytest.mark.asyncio
async def test_a_cancelled_block_stops_in_order_and_stays_cancelled(recorder):
    log = []
    with anyio.CancelScope() as scope:
        async with ActorSystem() as system:
            system.spawn(lambda: recorder(log), name="a")
            await asyncio.sleep(0)
            scope.cancel()
            await asyncio.sleep(0)
            log.append("not reached")
    assert scope.cancelled_caught
    assert log == [("start", "a"), ("stop", "a")]
    assert len(system.nursery) == 0


@pytest.mark.asyncio
async def test_a_natively_cancelled_block_stays_cancelled(recorder):
    log = []

    async def run():
        async with ActorSystem() as system:
            system.spawn(lambda: recorder(log), name="a")
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(run())
        for _ in range(5):
            await asyncio.sleep(0)
        task.cancel()
    assert task.cancelled()
    assert log == [("start", "a"), ("stop", "a")]


@pytest.mark.asyncio
async def test_kill_runs_no_on_stop_and_tells_who_waits(recorder):
    log, gate = [], asyncio.Event()
    async with ActorSystem() as system:
        ref = system.spawn(lambda: recorder(log, gate), name="a")
        ref.tell("wait")
        asked = ref.ask("never", deadline=60)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        system.kill()
        with pytest.raises(ActorDead):
            await asked
        assert not ref.alive
    assert log == [("start", "a")]
    assert len(system.nursery) == 0


@pytest.mark.asyncio
async def test_a_start_that_is_cancelled_leaves_nothing_running(recorder):
    log, system = [], []

    class Hanging(Actor):
        async def on_start(self, ctx):
            await asyncio.Event().wait()

        async def receive(self, message, ctx):
            pass

    tree = Props(
        children=(
            Props(name="a", factory=lambda: recorder(log)),
            Props(name="b", factory=Hanging, stop_grace_s=0.01),
        )
    )
    with anyio.move_on_after(0.05) as scope:
        system.append(ActorSystem(tree=tree))
        async with system[0]:
            log.append("not reached")
    assert scope.cancelled_caught
    assert log == [("start", "a"), ("stop", "a")]
    assert len(system[0].nursery) == 0


def test_a_keyboard_interrupt_is_not_swallowed(recorder):
    seen = []

    def interrupt(_ctx):
        raise KeyboardInterrupt

    async def main():
        async with ActorSystem() as system:
            ref = system.spawn(recorder)
            ref.tell(interrupt)
            try:
                await system.wait_stopped()
            finally:
                seen.append(True)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert seen == [True]


@pytest.mark.asyncio
async def test_what_is_no_exception_ends_the_system_and_is_raised(recorder):
    class Alarm(BaseException):
        pass

    def alarm(_ctx):
        raise Alarm

    reached = []
    with pytest.raises(Alarm):  # noqa: PT012 - the block is the subject
        async with ActorSystem() as system:
            system.spawn(recorder).tell(alarm)
            await asyncio.Event().wait()
            reached.append(True)
    assert reached == []
    assert len(system.nursery) == 0


@pytest.mark.asyncio
async def test_the_default_reader_of_failures_logs_them_without_local_variables(recorder):
    def leak(_ctx):
        secret = "hunter2"
        raise ValueError(len(secret))

    with capture_logs() as logs:
        async with ActorSystem() as system:
            ref = system.spawn(recorder, name="a")
            with pytest.raises(ActorFailed):
                await ref.ask(leak, deadline=1)
    (entry,) = logs
    assert (entry["actor"], entry["error"]) == ("/a", "ValueError: 7")
    assert "raise ValueError(len(secret))" in entry["trace"]
    assert "exc_info" not in entry
