"""Laws of the kernel, over whatever hypothesis thinks of: order, no silent loss, budgets, stops."""

import asyncio
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.actor import Actor, Backoff, Budget, Mailbox, Props
from runtime.kernel.budget import RestartBudget, affected
from runtime.kernel.testkit import TestKit

LAWS = settings(deadline=None, max_examples=60)

SENT = st.lists(
    st.tuples(
        st.integers(0, 2),  # sender
        st.sampled_from(["normal", "urgent"]),
        st.sampled_from(["plain", "plain", "plain", "crash", "stash", "yield"]),
    ),
    max_size=60,
)
POLICIES = st.sampled_from(
    [
        Mailbox(capacity=1000),
        Mailbox(capacity=3),
        Mailbox(capacity=3, urgent_capacity=2),
        Mailbox(capacity=3, overflow="drop_oldest"),
        Mailbox(capacity=3, overflow="coalesce", key=lambda message: message[0]),
    ]
)
AT_ONCE = Backoff(base_s=0)


class Handler(Actor):
    """Handles, crashes or stashes, as each message says; a stashed one is handled later."""

    def __init__(self, handled, seen):
        self.handled = handled
        self.seen = seen

    async def receive(self, message, ctx):
        kind = message[2]
        if kind == "crash":
            raise ValueError
        if kind == "stash" and message not in self.seen:
            self.seen.add(message)
            ctx.stash()
            return
        if kind == "yield":
            await asyncio.sleep(0)
        self.handled.append(message)
        ctx.unstash_all()


async def send_all(sent, mailbox, *, stop_early):
    """Tell them all, some turns of the loop between; what was handled, and what was buried."""
    handled, buried = [], []
    async with TestKit() as kit:
        kit.main.dead_letters.listen(lambda letter: buried.append(letter.message))
        parent = Props(
            name="p",
            backoff=AT_ONCE,
            budget=Budget(restarts=1000),
            children=(Props(name="a", factory=lambda: Handler(handled, seen), mailbox=mailbox),),
        )
        seen = set()
        await kit.wait_running(kit.spawn(parent))
        ref = kit.lookup("p/a")
        for number, (sender, lane, kind) in enumerate(sent):
            ref.tell((sender, lane, kind, number), lane)
            if number % 7 == 6:
                await asyncio.sleep(0)
        if not stop_early:
            await kit.settle()
        await kit.main.stop_actor(ref)
    return handled, buried


@LAWS
@given(SENT, POLICIES, st.booleans())
def test_every_message_is_handled_or_a_dead_letter_never_both(sent, mailbox, stop_early):
    handled, buried = asyncio.run(send_all(sent, mailbox, stop_early=stop_early))
    messages = [(*message, number) for number, message in enumerate(sent)]
    assert Counter(handled) + Counter(buried) == Counter(messages)


@LAWS
@given(SENT.map(lambda sent: [message for message in sent if message[2] != "stash"]))
def test_each_senders_messages_keep_their_order_within_a_lane(sent):
    handled, _ = asyncio.run(send_all(sent, Mailbox(capacity=1000), stop_early=False))
    for sender in range(3):
        for lane in ("normal", "urgent"):
            numbers = [m[3] for m in handled if m[0] == sender and m[1] == lane]
            assert numbers == sorted(numbers)


@LAWS
@given(st.lists(st.integers(1, 20), max_size=30), st.integers(1, 3))
def test_putters_are_let_in_in_their_order_and_all_of_them(counts, capacity):
    async def main():
        handled = []

        class Keep(Actor):
            async def receive(self, message, ctx):
                handled.append(message)
                await asyncio.sleep(0)

        async with TestKit() as kit:
            ref = kit.spawn(Props(factory=Keep, mailbox=Mailbox(capacity=capacity)))

            async def put(sender, count):
                for number in range(count):
                    assert await ref.put((sender, number), deadline=600)

            async with asyncio.TaskGroup() as group:
                for sender, count in enumerate(counts):
                    group.create_task(put(sender, count))
            await kit.settle()
        return handled

    handled = asyncio.run(main())
    for sender, count in enumerate(counts):
        assert [number for who, number in handled if who == sender] == list(range(count))


@given(
    st.lists(st.floats(0, 20, allow_nan=False), max_size=50),
    st.integers(0, 5),
    st.floats(0.5, 30),
)
def test_no_window_ever_holds_more_restarts_than_the_budget(gaps, restarts, within_s):
    budget, now, granted = RestartBudget(Budget(restarts=restarts, within_s=within_s)), 0.0, []
    for gap in gaps:
        now += gap
        recent = [at for at in granted if now - at < within_s]
        number = budget.spend(now)
        assert (number is None) == (len(recent) >= restarts)
        if number is not None:
            assert number == len(recent) + 1
            granted.append(now)


@given(
    st.integers(1, 8),
    st.integers(0, 7),
    st.sampled_from(["one_for_one", "one_for_all", "rest_for_one"]),
)
def test_who_is_affected_is_a_stretch_in_start_order_with_the_failed(count, failed, strategy):
    children = list(range(count))
    failed %= count
    group = affected(strategy, children, failed)
    assert failed in group
    assert group == sorted(group)
    expected = {"one_for_one": 1, "one_for_all": count, "rest_for_one": count - failed}
    assert len(group) == expected[strategy]


TREES = st.recursive(
    st.just(()), lambda children: st.lists(children, max_size=3).map(tuple), max_leaves=12
)


class Diary(Actor):
    def __init__(self, log):
        self.log = log

    async def on_start(self, ctx):
        self.log.append(("start", ctx.path))

    async def receive(self, message, ctx):
        raise ValueError

    async def on_stop(self, ctx):
        await ctx.sleep(ctx.random.random())
        self.log.append(("stop", ctx.path))


def props(shape, log, name="t"):
    return Props(
        name=name,
        factory=lambda: Diary(log),
        backoff=AT_ONCE,
        budget=Budget(restarts=1000),
        strategy=("one_for_one", "one_for_all", "rest_for_one")[len(shape) % 3],
        children=tuple(props(part, log, str(place)) for place, part in enumerate(shape)),
    )


@LAWS
@given(TREES, st.lists(st.integers(0, 30), max_size=4), st.integers(0, 1000))
def test_a_tree_stops_in_the_reverse_of_its_start_order_also_after_crashes(shape, crashes, seed):
    async def main():
        log = []
        async with TestKit(seed=seed) as kit:
            ref = kit.spawn(props(shape, log))
            await kit.wait_running(ref)
            started = [path for _, path in log]
            assert started == sorted(started)
            for crash in crashes:
                kit.lookup(started[crash % len(started)]).tell("crash")
                await kit.advance(60)
            assert {path for path in started if kit.lookup(path).cell.state != "running"} == set()
            log.clear()
            await kit.main.stop_actor(ref)
        return started, log

    started, log = asyncio.run(main())
    assert log == [("stop", path) for path in reversed(started)]
