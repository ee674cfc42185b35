"""The test kit itself: time that jumps, probes that wait, a network that loses."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from protocols.actor import Actor, AskTimeout, Budget, Props, Terminated
from runtime.kernel.testkit import TestKit, VirtualClock


class Reminder(Actor):
    def __init__(self, to):
        self.to = to

    async def receive(self, message, ctx):
        if isinstance(message, float):
            ctx.after(message, "it is time")
        else:
            self.to.tell(message)


@pytest.mark.asyncio
async def test_a_year_passes_at_once():
    async with TestKit(start=datetime(2026, 1, 1, tzinfo=UTC)) as kit:
        probe = kit.probe()
        year_s = 365 * 86400.0
        kit.spawn(lambda: Reminder(probe.ref)).tell(year_s)
        await probe.expect("it is time", within_s=year_s + 1)
        assert kit.clock.now() == datetime(2027, 1, 1, tzinfo=UTC)
        assert kit.clock.monotonic() == year_s


@pytest.mark.asyncio
async def test_without_autojump_only_advance_moves_time():
    async with TestKit(autojump=False) as kit:
        probe = kit.probe()
        kit.spawn(lambda: Reminder(probe.ref)).tell(5.0)
        await kit.settle()
        assert kit.clock.monotonic() == 0
        with pytest.raises(AssertionError, match="idle"):
            await kit.wait_until(lambda: bool(probe.received), what="message")
        await kit.advance(4)
        assert probe.received == []
        await kit.advance(1)
        assert probe.received == ["it is time"]
        assert kit.clock.monotonic() == 5


@pytest.mark.asyncio
async def test_a_probe_says_what_came_instead():
    async with TestKit() as kit:
        probe = kit.probe()
        probe.ref.tell("other")
        with pytest.raises(AssertionError, match="'other' came"):
            await probe.expect("wanted")
        with pytest.raises(AssertionError, match="not within 3 s"):
            await probe.expect(int, within_s=3)
        probe.ref.tell(7)
        assert await probe.expect(int) == 7
        probe.ref.tell("noise")
        with pytest.raises(AssertionError, match="silence"):
            await probe.expect_none()


@pytest.mark.asyncio
async def test_a_probe_answers():
    async with TestKit() as kit:
        probe = kit.probe(answer=lambda message: message * 2)
        assert await probe.ref.ask(21, deadline=1) == 42
        assert probe.received == [21]


@pytest.mark.asyncio
async def test_a_hold_keeps_time_still_for_real_io():
    async with TestKit() as kit:
        probe = kit.probe()
        kit.spawn(lambda: Reminder(probe.ref)).tell(5.0)
        await kit.settle()
        with kit.clock.hold():
            # A thread stands for a database: the loop is idle while it works.
            await asyncio.get_running_loop().run_in_executor(None, sum, range(1000))
            assert kit.clock.monotonic() == 0
        await probe.expect("it is time")
        assert kit.clock.monotonic() == 5


@pytest.mark.asyncio
async def test_a_loop_has_one_virtual_clock_at_a_time():
    async with TestKit():
        with pytest.raises(RuntimeError, match="already"):
            VirtualClock()
    VirtualClock().close()


class Forward(Actor):
    """Tells or asks a peer found by the test."""

    def __init__(self, peers):
        self.peers = peers

    async def receive(self, message, ctx):
        if message == "tell":
            self.peers["to"].tell("told")
            return None
        if message == "pipe":
            ctx.pipe(lambda: self.tell_later(ctx))
            return None
        return await self.peers["to"].ask("question", deadline=1)

    async def tell_later(self, ctx):
        await ctx.sleep(1)
        self.peers["to"].tell("piped")


async def two_nodes(kit):
    peers = {}
    tree = Props(children=(Props(name="f", factory=lambda: Forward(peers)),))
    node = await kit.system("a", tree)
    probe = kit.probe(answer=lambda _: "answer")
    peers["to"] = probe.ref
    return node, node.lookup("f"), probe


@pytest.mark.asyncio
async def test_a_plan_loses_doubles_and_delays_between_nodes_only():
    async with TestKit() as kit:
        _, forward, probe = await two_nodes(kit)
        seen = []

        def plan(parcel):
            if not parcel.between_nodes:
                return (0.0,)
            seen.append((parcel.source, parcel.target, parcel.kind))
            return plans.pop(0)

        kit.network.plan = plan
        plans = [(), (0.0, 2.0), (3.0,)]
        for _ in range(2):
            forward.tell("tell")
        forward.tell("pipe")
        await kit.settle()
        assert probe.received == ["told"]
        await kit.advance(2)
        assert probe.received == ["told", "told"]
        await kit.advance(10)
        assert probe.received == ["told", "told", "piped"]
        assert seen == [("a:/f", "main:/probe-1", "tell")] * 3
        assert (kit.network.lost, kit.network.doubled, kit.network.delayed) == (1, 1, 2)


@pytest.mark.parametrize("lose", ["ask", "answer"])
@pytest.mark.asyncio
async def test_a_lost_question_or_answer_is_a_timeout(lose):
    async with TestKit() as kit:
        _, forward, probe = await two_nodes(kit)
        kit.network.plan = lambda p: () if p.kind == lose and p.between_nodes else (0.0,)
        with pytest.raises(Exception, match="AskTimeout"):
            await forward.ask("ask", deadline=5)
        assert len(probe.received) == (lose == "answer")
        kit.network.plan = lambda _: (0.25,)
        await kit.wait_restarts(forward, 1)
        began = kit.clock.monotonic()
        assert await forward.ask("ask", deadline=5) == "answer"
        assert kit.clock.monotonic() - began == pytest.approx(1.0)


@pytest.mark.asyncio
async def test_a_paused_node_is_late_with_everything():
    async with TestKit() as kit:
        log = []

        class Ticker(Actor):
            async def on_start(self, ctx):
                ctx.after(5, "timer")

            async def receive(self, message, ctx):
                log.append((message, ctx.clock.now()))

        start = kit.clock.now()
        node = await kit.system("a", Props(children=(Props(name="t", factory=Ticker),)))
        node.pause()
        node.lookup("t").tell("message")
        with pytest.raises(AskTimeout):
            await node.lookup("t").ask("question", deadline=2)
        await kit.advance(8)
        assert log == []
        node.resume()
        await kit.settle()
        late = start + timedelta(seconds=10)
        assert log == [("message", late), ("question", late), ("timer", late)]


@pytest.mark.asyncio
async def test_a_node_may_have_a_wrong_clock(recorder):
    async with TestKit() as kit:
        node = await kit.system(
            "a", Props(children=(Props(name="r", factory=recorder),)), offset_s=-3
        )
        seen = await node.lookup("r").ask(lambda ctx: ctx.clock.now(), deadline=1)
        assert kit.clock.now() - seen == timedelta(seconds=3)
        node.time.shift(1)
        seen = await node.lookup("r").ask(lambda ctx: ctx.clock.now(), deadline=1)
        assert seen - kit.clock.now() == timedelta(seconds=1)


@pytest.mark.asyncio
async def test_a_crashed_node_does_nothing_more_and_its_name_may_come_back(recorder):
    async with TestKit() as kit:
        log = []
        tree = Props(children=(Props(name="r", factory=lambda: recorder(log)),))
        node = await kit.system("a", tree)
        ref, probe = node.lookup("r"), kit.probe()
        await probe.watch(ref)
        ref.tell(lambda ctx: ctx.after(5, "never") and None)
        await kit.settle()
        await node.crash()
        await probe.expect(Terminated)
        await kit.advance(60)
        assert log == [("start", "r")]
        again = await kit.system("a", tree)
        assert await again.lookup("r").ask("hello", deadline=1) == "hello"


@pytest.mark.asyncio
async def test_the_same_seed_runs_the_same_way(recorder):
    async def run(seed):
        trace = []
        async with TestKit(seed=seed) as kit:

            class Chatter(Actor):
                def __init__(self, name):
                    self.name = name

                async def on_start(self, ctx):
                    ctx.after(ctx.random.random(), "go")

                async def receive(self, message, ctx):
                    trace.append((self.name, message, ctx.clock.now_ns()))
                    other = ctx.lookup("s/" + ctx.random.choice("abc"))
                    if other is not None and message == "go":
                        other.tell(f"from {self.name}")
                    if message == "go" and ctx.random.random() < 0.9:
                        ctx.after(ctx.random.random(), "go")
                    if ctx.random.random() < 0.1:
                        raise ValueError

            budget = Budget(restarts=1000)
            chatters = tuple(Props(name=n, factory=lambda n=n: Chatter(n)) for n in "abc")
            kit.spawn(Props(name="s", budget=budget, children=chatters))
            await kit.advance(20)
        return trace

    first, again, other = await run(1), await run(1), await run(2)
    assert len(first) > 20
    assert first == again
    assert first != other
