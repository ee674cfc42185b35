"""Death watch: one Terminated for each watch, at the end for good, never for a restart."""

import pytest

from protocols.actor import Props, Terminated
from runtime.kernel.testkit import TestKit


@pytest.mark.asyncio
async def test_a_restart_is_not_an_end(recorder):
    async with TestKit() as kit:
        ref, probe = kit.spawn(recorder), kit.probe()
        await probe.watch(ref)
        ref.tell("crash")
        await kit.wait_restarts(ref, 1)
        await probe.expect_none()
        await kit.main.stop_actor(ref)
        assert (await probe.expect_terminated(ref)).reason == "stopped"
        await probe.expect_none()


@pytest.mark.asyncio
async def test_watching_the_dead_tells_at_once(recorder):
    async with TestKit() as kit:
        ref, probe = kit.spawn(recorder), kit.probe()
        await kit.main.stop_actor(ref)
        began = kit.clock.monotonic()
        await probe.watch(ref)
        await probe.expect_terminated(ref)
        assert kit.clock.monotonic() == began


@pytest.mark.asyncio
async def test_unwatch_takes_back_even_what_is_queued(recorder):
    async with TestKit() as kit:
        ref, log = kit.spawn(recorder), []
        watcher = kit.spawn(lambda: recorder(log), name="w")

        def watch_dead_then_not(ctx):
            ctx.watch(ref)
            ctx.unwatch(ref)

        watcher.tell(lambda ctx: (ctx.watch(ref), ctx.unwatch(ref)))
        await kit.settle()
        await kit.main.stop_actor(ref)
        watcher.tell(watch_dead_then_not)
        await kit.settle()
        assert not any(isinstance(entry, Terminated) for entry in log)


@pytest.mark.asyncio
async def test_watches_end_with_the_instance_that_made_them(recorder):
    async with TestKit() as kit:
        ref, log = kit.spawn(recorder), []
        watcher = kit.spawn(lambda: recorder(log), name="w")
        watcher.tell(lambda ctx: ctx.watch(ref))
        watcher.tell("crash")
        await kit.wait_restarts(watcher, 1)
        assert not ref.cell.watchers
        await kit.main.stop_actor(ref)
        await kit.settle()
        assert not any(isinstance(entry, Terminated) for entry in log)


@pytest.mark.asyncio
async def test_the_end_of_a_subtree_tells_of_each(recorder):
    async with TestKit() as kit:
        parent = kit.spawn(Props(children=(Props(name="c", factory=recorder),)), name="p")
        await kit.wait_running(parent)
        child, probe = kit.lookup("/p/c"), kit.probe()
        await probe.watch(child)
        await probe.watch(parent)
        await kit.main.stop_actor(parent)
        await probe.expect_terminated(child)
        await probe.expect_terminated(parent)


@pytest.mark.asyncio
async def test_a_killed_node_ends_all_refs_into_it(recorder):
    async with TestKit() as kit:
        node = await kit.system("n", Props(children=(Props(name="a", factory=recorder),)))
        ref, probe = node.lookup("a"), kit.probe()
        await probe.watch(ref)
        await node.crash()
        assert (await probe.expect_terminated(ref)).reason == "killed"
        assert not ref.tell("ghost")


@pytest.mark.asyncio
async def test_only_actors_of_this_process_can_be_watched(recorder):
    async with TestKit() as kit:
        ref = kit.spawn(recorder)

        def watch_stranger(ctx):
            with pytest.raises(TypeError):
                ctx.watch(object())
            return "refused"

        assert await ref.ask(watch_stranger, deadline=1) == "refused"
