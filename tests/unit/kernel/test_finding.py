"""The registry, and what a live tree says about itself."""

import asyncio

import msgspec
import pytest

from protocols.actor import ActorFailed, Props
from runtime.kernel import ActorSystem
from runtime.kernel.introspection import Statistics
from runtime.kernel.testkit import TestKit


@pytest.mark.asyncio
async def test_paths_and_names_find_the_living_only(recorder):
    async with TestKit() as kit:
        tree = Props(name="p", children=(Props(name="c", factory=recorder),))
        parent = kit.spawn(tree)
        await kit.wait_running(parent)
        child = kit.lookup("/p/c")
        assert kit.lookup("p/c") is child
        assert kit.lookup("/p") is parent
        assert kit.lookup("/p/x") is None
        assert kit.lookup("/").path == "/"
        child.tell(lambda ctx: ctx.register("service"))
        await kit.settle()
        assert kit.lookup("service") is child
        child.tell("crash")
        await kit.wait_restarts(child, 1)
        assert kit.lookup("service") is child
        assert await child.ask(lambda ctx: ctx.lookup("service"), deadline=1) is child
        await kit.main.stop_actor(parent)
        for name in ("service", "/p", "/p/c"):
            assert kit.lookup(name) is None


@pytest.mark.asyncio
async def test_a_name_has_one_holder_at_a_time(recorder):
    async with TestKit() as kit:
        first, second = kit.spawn(recorder), kit.spawn(recorder)
        await first.ask(lambda ctx: ctx.register("n"), deadline=1)
        await first.ask(lambda ctx: ctx.register("n"), deadline=1)
        with pytest.raises(ActorFailed, match="NameTaken"):
            await second.ask(lambda ctx: ctx.register("n"), deadline=1)
        await kit.main.stop_actor(first)
        await kit.wait_running(second)
        await second.ask(lambda ctx: ctx.register("n"), deadline=1)
        assert kit.lookup("n") is second
        with pytest.raises(ActorFailed, match="slash"):
            await second.ask(lambda ctx: ctx.register("/n"), deadline=1)


@pytest.mark.asyncio
async def test_the_snapshot_of_a_live_tree(recorder):
    async with TestKit() as kit:
        gate = asyncio.Event()
        ref = kit.spawn(Props(factory=lambda: recorder(gate=gate), restart="transient"), name="a")
        ref.tell("one")
        ref.tell("crash")
        await kit.wait_restarts(ref, 1)
        ref.tell("wait")
        await kit.settle()
        ref.tell("queued")
        ref.tell("queued", "urgent")
        found = kit.statistics()
        (info,) = found.tree.children
        assert (info.path, info.kind, info.state) == ("/a", "Recorder", "running")
        assert (info.restart, info.depth, info.capacity) == ("transient", 2, 256)
        assert (info.restarts, info.handled, info.last_error) == (1, 1, "ValueError: crash")
        assert found.tree.kind == "supervisor"
        assert (found.actors, found.tasks) == (2, 2)
        assert found.dead_letters == {"crashed": 1}
        assert msgspec.json.decode(msgspec.json.encode(found), type=Statistics) == found
        gate.set()


@pytest.mark.asyncio
async def test_the_slowest_messages_are_kept_slowest_first(recorder, monkeypatch):
    now_ns, steps = 0, iter([])

    def clock():
        nonlocal now_ns
        now_ns += next(steps, 0)
        return now_ns

    async with TestKit() as kit:
        ref = kit.spawn(recorder, name="a")
        await kit.settle()
        monkeypatch.setattr("runtime.kernel.cell.perf_counter_ns", clock)
        for milliseconds in (3, 1, 9, 2, 8, 4, 7):
            steps = iter([0, milliseconds * 1_000_000])
            await ref.ask(("message", milliseconds), deadline=1)
        slowest = kit.statistics().tree.children[0].slowest
    assert [slow.took_s for slow in slowest] == [0.009, 0.008, 0.007, 0.004, 0.003]
    assert {slow.message for slow in slowest} == {"tuple"}


@pytest.mark.asyncio
async def test_dead_letters_can_be_listened_to(recorder):
    async with TestKit() as kit:
        heard = []
        end = kit.main.dead_letters.listen(heard.append)
        ref = kit.spawn(recorder)
        await kit.main.stop_actor(ref)
        ref.tell("one")
        end()
        ref.tell("two")
        assert [(letter.message, letter.reason) for letter in heard] == [("one", "dead")]
        assert kit.main.dead_letters.total == 2


@pytest.mark.asyncio
async def test_a_seed_repeats_what_actors_draw(recorder):
    async def draw(seed):
        async with TestKit(seed=seed) as kit:
            ref = kit.spawn(recorder, name="a")
            first = await ref.ask(lambda ctx: ctx.random.random(), deadline=1)
            ref.tell("crash")
            await kit.wait_restarts(ref, 1)
            return first, await ref.ask(lambda ctx: ctx.random.random(), deadline=1)

    assert await draw(1) == await draw(1)
    assert await draw(1) != await draw(2)
    first, second = await draw(1)
    assert first != second


@pytest.mark.asyncio
async def test_a_system_by_itself_has_a_clock_that_counts_on(recorder):
    async with ActorSystem() as system:
        ref = system.spawn(recorder)
        before = system.clock.now_ns()
        inside = await ref.ask(lambda ctx: ctx.clock.now(), deadline=1)
        assert inside.tzinfo is not None
        assert before // 1000 <= inside.timestamp() * 1_000_000 + 1
        assert system.clock.monotonic_ns() >= 0
