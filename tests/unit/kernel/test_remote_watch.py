"""Death watch across nodes: told once, soon, and in spite of what the way loses."""

import pytest

from protocols.actor import Actor, Props, Terminated
from runtime.kernel.remote.watches import WATCH_AGAIN_S
from tests.support.remote import Listener, pair


class Watcher(Actor):
    """Watches what it is told of by a list of one, and no more by a tuple; notes every end."""

    def __init__(self, ends):
        self.ends = ends

    async def receive(self, message, ctx):
        if isinstance(message, Terminated):
            self.ends.append((message.ref, message.reason))
        elif isinstance(message, tuple):
            ctx.unwatch(message[0])
        elif isinstance(message, list):
            ctx.watch(message[0])
        elif message == "crash":
            raise ValueError("crash")


async def watching(nodes):
    """An actor of `b` that is watched from `a`: (its ref there, the far ref, the ends told)."""
    ends = []
    target = nodes.b.system.spawn(Listener, name="target")
    watcher = nodes.kit.spawn(lambda: Watcher(ends), name="watcher")
    far = nodes.a.remoting.ref(2, "/target")
    watcher.tell([far])
    await nodes.kit.settle()
    return target, far, ends, watcher


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("word", "reason"), [("out", "finished"), ("crash", "failed"), (None, "stopped")]
)
async def test_the_end_of_an_actor_there_is_told_here(word, reason):
    async with pair() as nodes:
        ends = []
        target = nodes.b.system.spawn(Props(factory=Listener, restart="temporary"), name="target")
        far = nodes.a.remoting.ref(2, "/target")
        nodes.kit.spawn(lambda: Watcher(ends)).tell([far])
        await nodes.kit.settle()
        assert ends == []
        if word is None:
            await nodes.b.system.stop_actor(target)
        else:
            target.tell(word)
        await nodes.kit.settle()
        assert ends == [(far, reason)]
        assert ends[0][0] is far
        assert len(nodes.a.remoting.watches) == 0
        assert nodes.kit.clock.monotonic() == 0


@pytest.mark.asyncio
async def test_a_restart_there_is_no_end():
    async with pair() as nodes:
        target, _, ends, _ = await watching(nodes)
        target.tell("crash")
        await nodes.kit.wait_restarts(target, 1)
        assert ends == []
        await nodes.b.system.stop_actor(target)
        await nodes.kit.settle()
        assert len(ends) == 1


@pytest.mark.asyncio
async def test_who_is_dead_already_is_told_at_once():
    async with pair() as nodes:
        ends = []
        far = nodes.a.remoting.ref(2, "nobody")
        nodes.kit.spawn(lambda: Watcher(ends)).tell([far])
        await nodes.kit.settle()
        assert ends == [(far, "stopped")]


@pytest.mark.asyncio
async def test_a_dead_node_ends_all_refs_into_it():
    async with pair() as nodes:
        _, far, ends, watcher = await watching(nodes)
        nodes.lose_b()
        await nodes.kit.settle()
        assert ends == [(far, "killed")]
        watcher.tell([far])
        await nodes.kit.settle()
        assert ends == [(far, "killed")] * 2
        assert nodes.kit.clock.monotonic() == 0


@pytest.mark.asyncio
async def test_a_node_that_is_heard_of_only_and_never_listed_ends_too():
    async with pair() as nodes:
        ends = []
        nodes.a.remoting.roster.hear(5, "c")
        far = nodes.a.remoting.ref(5, "x")
        nodes.kit.spawn(lambda: Watcher(ends)).tell([far])
        await nodes.kit.settle()
        assert ends == []
        await nodes.kit.advance(30)
        nodes.beat()
        await nodes.kit.settle()
        assert ends == [(far, "killed")]


@pytest.mark.asyncio
@pytest.mark.parametrize("lost", ["watch", "terminated"])
async def test_a_lost_word_is_said_again(lost):
    async with pair() as nodes:
        seen = []

        def lose_first(envelope):
            seen.append(envelope.kind)
            return () if seen.count(lost) == 1 and envelope.kind == lost else (0.0,)

        nodes.wire.plan = lose_first
        target, _, ends, _ = await watching(nodes)
        await nodes.b.system.stop_actor(target)
        await nodes.kit.settle()
        assert ends == []
        await nodes.kit.advance(WATCH_AGAIN_S)
        nodes.beat()
        await nodes.kit.settle()
        assert [reason for _, reason in ends] == ["stopped"]


@pytest.mark.asyncio
async def test_watches_said_again_are_one_watch_and_leave_nothing_behind():
    async with pair() as nodes:
        target, _, ends, _ = await watching(nodes)
        held = nodes.b.remoting._inbound._held
        for _ in range(3):
            await nodes.kit.advance(WATCH_AGAIN_S)
            nodes.beat()
            await nodes.kit.settle()
        assert nodes.wire.carried["watch"] == 4
        assert len(held) == 1
        await nodes.b.system.stop_actor(target)
        await nodes.kit.settle()
        assert len(ends) == 1
        assert len(held) == 0
        assert len(nodes.a.remoting.watches) == 0


@pytest.mark.asyncio
async def test_an_unwatch_is_heard_there():
    async with pair() as nodes:
        target, far, ends, watcher = await watching(nodes)
        watcher.tell((far,))
        await nodes.kit.settle()
        assert len(nodes.b.remoting._inbound._held) == 0
        assert not target.cell.watchers
        await nodes.b.system.stop_actor(target)
        await nodes.kit.settle()
        assert ends == []


@pytest.mark.asyncio
async def test_watchers_share_a_watch_and_the_last_one_takes_it_back():
    async with pair() as nodes:
        _, far, _, watcher = await watching(nodes)
        other_ends = []
        other = nodes.kit.spawn(lambda: Watcher(other_ends))
        other.tell([nodes.a.remoting.ref(2, "/target")])
        await nodes.kit.settle()
        assert nodes.wire.carried["watch"] == 1
        watcher.tell((far,))
        await nodes.kit.settle()
        assert nodes.wire.carried["unwatch"] == 0
        await nodes.a.system.stop_actor(other)
        await nodes.kit.settle()
        assert nodes.wire.carried["unwatch"] == 1


@pytest.mark.asyncio
async def test_a_restart_of_the_watcher_takes_its_watches_back():
    async with pair() as nodes:
        _, _, _, watcher = await watching(nodes)
        watcher.tell("crash")
        await nodes.kit.wait_restarts(watcher, 1)
        await nodes.kit.settle()
        assert nodes.wire.carried["unwatch"] == 1
        assert len(nodes.b.remoting._inbound._held) == 0


@pytest.mark.asyncio
async def test_the_watches_of_a_dead_node_are_let_go():
    async with pair() as nodes:
        target, _, _, _ = await watching(nodes)
        nodes.b.peers.update([])
        assert not target.cell.watchers
        assert len(nodes.b.remoting._inbound._held) == 0


@pytest.mark.asyncio
async def test_a_ref_that_has_ended_is_known_to_be_dead():
    async with pair() as nodes:
        ends = []
        target = nodes.b.system.spawn(Listener)
        far = await nodes.a.remoting.ref(2, "listener").ask("who?", deadline=5)
        nodes.kit.spawn(lambda: Watcher(ends)).tell([far])
        await nodes.kit.settle()
        assert far.alive
        await nodes.b.system.stop_actor(target)
        await nodes.kit.settle()
        assert not far.alive
        assert not far.tell("x")
