"""Strategies, restart types, budgets and escalation: trees are data, and obey it."""

import random

import pytest

from protocols.actor import (
    Actor,
    Backoff,
    Budget,
    NameTaken,
    Props,
    RestartBudgetExceeded,
    SystemFailed,
)
from runtime.kernel import ActorSystem
from runtime.kernel.budget import RestartBudget, delay_s
from runtime.kernel.testkit import TestKit

AT_ONCE = Backoff(base_s=0)


async def family(kit, recorder, strategy, log, **more):
    """A supervisor `s` with children a, b and c, and what it did cut from the log."""
    props = Props(
        name="s",
        strategy=strategy,
        backoff=AT_ONCE,
        children=tuple(Props(name=name, factory=lambda: recorder(log)) for name in "abc"),
        **more,
    )
    ref = kit.spawn(props)
    await kit.wait_running(ref)
    assert log == [("start", "a"), ("start", "b"), ("start", "c")]
    log.clear()
    return [kit.lookup(f"s/{name}") for name in "abc"]


@pytest.mark.parametrize(
    ("strategy", "lived"),
    [
        ("one_for_one", [("stop", "b"), ("start", "b")]),
        (
            "rest_for_one",
            [("stop", "b"), ("stop", "c"), ("start", "b"), ("start", "c")],
        ),
        (
            "one_for_all",
            [
                ("stop", "b"),
                ("stop", "c"),
                ("stop", "a"),
                ("start", "a"),
                ("start", "b"),
                ("start", "c"),
            ],
        ),
    ],
)
@pytest.mark.asyncio
async def test_who_restarts_with_a_child_that_fails(recorder, strategy, lived):
    async with TestKit() as kit:
        log = []
        refs = await family(kit, recorder, strategy, log)
        refs[1].tell("crash")
        await kit.wait_restarts(refs[1], 1)
        await kit.settle()
        assert log == lived
        log.clear()
        for ref in refs:
            assert await ref.ask("alive", deadline=1) == "alive"


@pytest.mark.asyncio
async def test_siblings_keep_their_mailboxes_when_they_restart_together(recorder):
    async with TestKit() as kit:
        log = []
        refs = await family(kit, recorder, "one_for_all", log)
        refs[0].tell("crash")
        refs[2].tell("kept")
        await kit.wait_restarts(refs[2], 1)
        await kit.settle()
        assert log.count("kept") == 1


@pytest.mark.asyncio
async def test_two_siblings_failing_together_restart_the_group_once_more_at_most(recorder):
    async with TestKit() as kit:
        log = []
        refs = await family(kit, recorder, "rest_for_one", log)
        refs[1].tell("crash")
        refs[0].tell("crash")
        await kit.wait_until(lambda: all(ref.cell.state == "running" for ref in refs))
        await kit.settle()
        for ref in refs:
            assert await ref.ask("alive", deadline=1) == "alive"
        assert refs[0].cell.restarts == 1
        assert 1 <= refs[2].cell.restarts <= 2


class StartsBadly(Actor):
    """Fails its first starts."""

    def __init__(self, failures):
        self.failures = failures

    async def on_start(self, ctx):
        if self.failures:
            self.failures.pop()
            raise ValueError("bad start")

    async def receive(self, message, ctx):
        return message


@pytest.mark.asyncio
async def test_a_failure_in_the_middle_of_a_group_restart_begins_it_anew(recorder):
    async with TestKit() as kit:
        log, failures = [], []
        kit.spawn(
            Props(
                name="s",
                strategy="one_for_all",
                backoff=AT_ONCE,
                children=(
                    Props(name="a", factory=lambda: recorder(log)),
                    Props(name="b", factory=lambda: StartsBadly(failures)),
                    Props(name="c", factory=lambda: recorder(log)),
                ),
            )
        )
        await kit.settle()
        failures.extend([1, 2])
        log.clear()
        kit.lookup("s/c").tell("crash")
        c = kit.lookup("s/c")
        await kit.wait_until(lambda: not failures and c.cell.state == "running")
        await kit.settle()
        assert log.count(("start", "a")) == 3
        assert log.count(("start", "c")) == 1
        assert [await kit.lookup(f"s/{n}").ask("x", deadline=1) for n in "abc"] == ["x"] * 3


@pytest.mark.parametrize(
    ("restart", "ending", "lives"),
    [
        ("permanent", "crash", True),
        ("permanent", "finish", True),
        ("transient", "crash", True),
        ("transient", "finish", False),
        ("temporary", "crash", False),
        ("temporary", "finish", False),
    ],
)
@pytest.mark.asyncio
async def test_restart_types(recorder, restart, ending, lives):
    async with TestKit() as kit:
        ref = kit.spawn(Props(factory=recorder, restart=restart))
        probe = kit.probe()
        await probe.watch(ref)
        ref.tell(ending)
        if lives:
            await kit.wait_restarts(ref, 1)
            await probe.expect_none()
            assert ref.alive
        else:
            ended = await probe.expect_terminated(ref)
            assert ended.reason == ("failed" if ending == "crash" else "finished")
            assert kit.lookup(ref.path) is None


@pytest.mark.asyncio
async def test_a_stopped_child_does_not_come_back(recorder):
    async with TestKit() as kit:
        parent, child = kit.spawn(recorder), []
        parent.tell(lambda ctx: child.append(ctx.spawn(recorder, name="c")))
        parent.tell(lambda ctx: ctx.stop(child[0]))
        await kit.settle()
        assert not child[0].alive
        parent.tell(lambda ctx: child.append(ctx.spawn(recorder, name="c")))
        await kit.settle()
        assert child[1].path == child[0].path
        assert child[1].incarnation > child[0].incarnation
        assert not child[0].tell("ghost")


@pytest.mark.asyncio
async def test_a_spent_budget_fails_the_supervisor_and_its_own_restarts_it(recorder):
    async with TestKit() as kit:
        log = []
        refs = await family(
            kit, recorder, "one_for_one", log, budget=Budget(restarts=2, within_s=60)
        )
        supervisor = kit.lookup("s")
        for _ in range(3):
            refs[1].tell("crash")
            await kit.settle()
        refs[1].tell("kept")
        await kit.wait_restarts(supervisor, 1)
        await kit.settle()
        kinds = [type(error) for path, error in kit.failures if path == "/s"]
        assert kinds == [RestartBudgetExceeded]
        assert log.count("kept") == 1
        assert [ref.cell.state for ref in refs] == ["running"] * 3
        refs[1].tell("crash")
        await kit.advance(5)
        assert refs[1].cell.state == "running"
        assert supervisor.cell.restarts == 1  # a new instance has a new budget


@pytest.mark.asyncio
async def test_old_restarts_leave_the_budget(recorder):
    async with TestKit() as kit:
        log = []
        refs = await family(
            kit, recorder, "one_for_one", log, budget=Budget(restarts=2, within_s=10)
        )
        for _ in range(6):
            refs[0].tell("crash")
            await kit.advance(5)
        assert refs[0].cell.restarts == 6
        assert kit.lookup("s").cell.restarts == 0


@pytest.mark.asyncio
async def test_failure_climbs_through_nested_supervisors_to_the_system(recorder):
    kit = TestKit()
    small = Budget(restarts=1, within_s=600)
    leaf = Props(name="leaf", factory=recorder)
    inner = Props(name="inner", children=(leaf,), budget=small, backoff=AT_ONCE)
    tree = Props(children=(inner,), budget=small, backoff=AT_ONCE)
    cancelled = []
    with pytest.raises(SystemFailed) as caught:  # noqa: PT012 - the block is the subject
        async with kit:
            system = await kit.system("node", tree)
            leaf_ref = system.lookup("inner/leaf")
            try:
                for _ in range(4):
                    await kit.wait_running(leaf_ref)
                    leaf_ref.tell("crash")
                    await kit.settle()
                await kit.clock.sleep(1)
            finally:
                cancelled.append(system.lookup("inner"))
    assert isinstance(caught.value.__cause__, RestartBudgetExceeded)
    assert cancelled == [None]
    assert [path for path, _ in kit.failures].count("/inner/leaf") == 4


@pytest.mark.asyncio
async def test_a_tree_that_cannot_start_fails_the_system():
    with pytest.raises(SystemFailed):
        async with ActorSystem(
            tree=Props(
                children=(Props(name="a", factory=lambda: StartsBadly([1])),),
                budget=Budget(restarts=2),
                backoff=AT_ONCE,
            ),
            on_failure=lambda _path, _error: None,
        ) as system:
            await system.sleep(60)


@pytest.mark.asyncio
async def test_a_childs_crash_reaches_neither_parent_nor_sibling(recorder):
    async with TestKit() as kit:
        parent, children = kit.spawn(recorder), []
        for name in "ab":
            parent.tell(lambda ctx, name=name: children.append(ctx.spawn(recorder, name=name)))
        await kit.settle()
        children[0].tell("crash")
        await kit.wait_restarts(children[0], 1)
        assert parent.cell.restarts == children[1].cell.restarts == 0


@pytest.mark.asyncio
async def test_children_spawned_by_an_instance_end_with_it(recorder):
    async with TestKit() as kit:
        parent, children = kit.spawn(recorder), []
        parent.tell(lambda ctx: children.append(ctx.spawn(recorder, name="c")))
        await kit.settle()
        probe = kit.probe()
        await probe.watch(children[0])
        parent.tell("crash")
        await probe.expect_terminated(children[0])
        await kit.wait_restarts(parent, 1)
        parent.tell(lambda ctx: children.append(ctx.spawn(recorder, name="c")))
        await kit.settle()
        assert children[1].alive


@pytest.mark.asyncio
async def test_a_busy_parent_does_not_hold_up_its_childs_restart(recorder):
    async with TestKit() as kit:
        parent = kit.spawn(recorder)

        async def crash_and_ask(ctx):
            child = ctx.spawn(Props(name="c", factory=recorder))
            child.tell("crash")
            return await child.ask("alive", deadline=60)

        assert await parent.ask(crash_and_ask, deadline=60) == "alive"


@pytest.mark.asyncio
async def test_names(recorder):
    async with TestKit() as kit:
        kit.spawn(recorder, name="a")
        with pytest.raises(NameTaken):
            kit.spawn(recorder, name="a")
        with pytest.raises(ValueError, match="slash"):
            kit.spawn(recorder, name="a/b")
        first, second = kit.spawn(recorder), kit.spawn(recorder)
        assert first.path == "/recorder-1"
        assert second.path == "/recorder-2"


@pytest.mark.asyncio
async def test_declared_children_without_a_name_are_found_again_by_a_restart(recorder):
    async with TestKit() as kit:

        class Parent(recorder):
            pass

        twins = (Props(factory=recorder), Props(factory=recorder))
        parent = kit.spawn(Props(name="p", factory=Parent, children=twins))
        await kit.wait_running(parent)
        refs = [kit.lookup("p/recorder-1"), kit.lookup("p/recorder-2")]
        spawned = await parent.ask(lambda ctx: ctx.spawn(recorder), deadline=1)
        assert spawned.path == "/p/recorder-3"
        parent.tell("crash")
        await kit.wait_restarts(parent, 1)
        assert [ref.cell.state for ref in refs] == ["running"] * 2
        assert len(parent.cell.family.children) == 2


@pytest.mark.asyncio
async def test_a_kill_in_backoff_starts_nothing_afterwards(recorder):
    async with TestKit() as kit:
        log = []
        node = await kit.system(
            "n", Props(children=(Props(name="a", factory=lambda: recorder(log)),))
        )
        ref = node.lookup("a")
        ref.tell("crash")
        await kit.settle()
        node.kill()
        await node.wait_stopped()
        await kit.advance(60)
        assert not ref.alive
        assert log == [("start", "a"), ("stop", "a")]


def test_the_budget_counts_in_a_sliding_window():
    budget = RestartBudget(Budget(restarts=2, within_s=10))
    assert [budget.spend(at) for at in (0, 5, 9.9, 10, 14, 15)] == [1, 2, None, 2, None, 2]


def test_backoff_doubles_to_its_cap_and_jitter_only_adds():
    source = random.Random(1)
    plain = Backoff(base_s=0.5, max_s=3, jitter=0)
    assert [delay_s(plain, n, source) for n in (1, 2, 3, 4, 5000)] == [0.5, 1, 2, 3, 3]
    assert delay_s(Backoff(base_s=0), 3, source) == 0
    jittered = [delay_s(Backoff(base_s=1, jitter=0.5), 1, source) for _ in range(50)]
    assert all(1 <= delay <= 1.5 for delay in jittered)
    assert len(set(jittered)) > 1
