"""Lanes, bounds and overflow: what a sender is told, and where a dropped message ends."""

import asyncio

import pytest

from protocols.actor import (
    ActorDead,
    Delivered,
    Mailbox,
    MailboxFull,
    Props,
    Rejected,
)
from runtime.kernel.testkit import TestKit


async def blocked(kit, recorder, mailbox):
    """An actor that handles nothing until its gate opens."""
    log, gate = [], asyncio.Event()
    ref = kit.spawn(Props(factory=lambda: recorder(log, gate), mailbox=mailbox), name="a")
    ref.tell("wait")
    await kit.settle()
    return ref, log, gate


def letters(kit, reason):
    return [letter.message for letter in kit.main.dead_letters.latest(reason)]


@pytest.mark.asyncio
async def test_urgent_overtakes_normal_and_each_lane_keeps_its_order(recorder):
    async with TestKit() as kit:
        ref, log, gate = await blocked(kit, recorder, Mailbox())
        for word in ("n1", "n2"):
            assert ref.tell(word) == Delivered()
        for word in ("u1", "u2"):
            assert ref.tell(word, "urgent") == Delivered()
        gate.set()
        await kit.settle()
        assert log == [("start", "a"), "wait", "u1", "u2", "n1", "n2"]


@pytest.mark.asyncio
async def test_the_end_of_a_watched_actor_overtakes_urgent(recorder):
    async with TestKit() as kit:
        ref, log, gate = await blocked(kit, recorder, Mailbox())
        other = kit.spawn(recorder)
        gate.set()
        await ref.ask(lambda ctx: ctx.watch(other), deadline=1)
        gate.clear()
        ref.tell("wait")
        await kit.settle()
        ref.tell("u", "urgent")
        await kit.main.stop_actor(other)
        gate.set()
        await kit.settle()
        assert log[-1] == "u"
        assert log[-2].ref is other


@pytest.mark.asyncio
async def test_reject_tells_the_sender_and_keeps_a_dead_letter(recorder):
    async with TestKit() as kit:
        ref, log, gate = await blocked(kit, recorder, Mailbox(capacity=2))
        assert ref.tell(1)
        assert ref.tell(2)
        assert ref.tell(3) == Rejected("full")
        assert not ref.tell(4)
        with pytest.raises(MailboxFull):
            await ref.ask(5, deadline=1)
        gate.set()
        await kit.settle()
        assert log[2:] == [1, 2]
        assert letters(kit, "full") == [3, 4]
        assert kit.main.dead_letters.counts == {"full": 2}


@pytest.mark.asyncio
async def test_the_urgent_lane_is_bounded_too(recorder):
    async with TestKit() as kit:
        ref, _, gate = await blocked(kit, recorder, Mailbox(urgent_capacity=1))
        assert ref.tell(1, "urgent")
        assert ref.tell(2, "urgent") == Rejected("full")
        gate.set()


@pytest.mark.asyncio
async def test_drop_oldest_buries_the_oldest_and_fails_its_asker(recorder):
    async with TestKit() as kit:
        mailbox = Mailbox(capacity=2, overflow="drop_oldest")
        ref, log, gate = await blocked(kit, recorder, mailbox)
        asked = ref.ask("asked", deadline=60)
        assert ref.tell(1) == Delivered()
        assert ref.tell(2) == Delivered("displaced")
        with pytest.raises(MailboxFull):
            await asked
        gate.set()
        await kit.settle()
        assert log[2:] == [1, 2]
        assert letters(kit, "dropped") == ["asked"]


@pytest.mark.asyncio
async def test_drop_oldest_spares_the_actors_own_timers(recorder):
    async with TestKit() as kit:
        mailbox = Mailbox(capacity=2, overflow="drop_oldest")
        ref, log, gate = await blocked(kit, recorder, mailbox)
        gate.set()
        await ref.ask(lambda ctx: ctx.after(5, "tick"), deadline=1)
        gate.clear()
        ref.tell("wait")
        await kit.advance(5)
        for number in range(4):
            ref.tell(number)
        gate.set()
        await kit.settle()
        assert log[-2:] == ["tick", 3]
        assert letters(kit, "dropped") == [0, 1, 2]


@pytest.mark.asyncio
async def test_coalesce_keeps_the_newest_in_the_place_of_the_oldest(recorder):
    async with TestKit() as kit:
        mailbox = Mailbox(capacity=3, overflow="coalesce", key=lambda m: m[0])
        ref, log, gate = await blocked(kit, recorder, mailbox)
        assert ref.tell(("a", 1)) == Delivered()
        assert ref.tell(("b", 1)) == Delivered()
        assert ref.tell(("a", 2)) == Delivered("coalesced")
        assert ref.tell(("c", 1)) == Delivered()
        assert ref.tell(("d", 1)) == Rejected("full")
        assert ref.tell(("c", 2)) == Delivered("coalesced")
        gate.set()
        await kit.settle()
        assert log[2:] == [("a", 2), ("b", 1), ("c", 2)]
        assert letters(kit, "coalesced") == [("a", 1), ("c", 1)]
        assert ref.tell(("a", 3)) == Delivered()
        await kit.settle()
        assert log[-1] == ("a", 3)


@pytest.mark.asyncio
async def test_coalesce_never_merges_asks_nor_what_has_no_key(recorder):
    async with TestKit() as kit:
        mailbox = Mailbox(overflow="coalesce", key=lambda m: None if m == "none" else "same")
        ref, log, gate = await blocked(kit, recorder, mailbox)
        first, second = ref.ask("x", deadline=9), ref.ask("x", deadline=9)
        ref.tell("none")
        ref.tell("none")
        gate.set()
        assert (await first, await second) == ("x", "x")
        await kit.settle()
        assert log[2:] == ["x", "x", "none", "none"]


@pytest.mark.parametrize(
    "wrong",
    [{"capacity": 0}, {"urgent_capacity": 0}, {"overflow": "coalesce"}, {"key": lambda m: m}],
)
def test_a_mailbox_that_could_not_work_is_refused(wrong):
    with pytest.raises(ValueError):
        Mailbox(**wrong)


@pytest.mark.asyncio
async def test_put_waits_for_room_first_come_first_in(recorder):
    async with TestKit() as kit:
        ref, log, gate = await blocked(kit, recorder, Mailbox(capacity=1))
        assert await ref.put(1, deadline=1) == Delivered()
        results = []
        async with asyncio.TaskGroup() as group:

            async def put(message):
                results.append((message, await ref.put(message, deadline=60)))

            group.create_task(put(2))
            group.create_task(put(3))
            await kit.settle()
            assert ref.tell("late") == Rejected("full")
            gate.set()
        await kit.settle()
        assert log[2:] == [1, 2, 3]
        assert results == [(2, Delivered()), (3, Delivered())]


@pytest.mark.asyncio
async def test_put_gives_up_at_its_deadline(recorder):
    async with TestKit() as kit:
        ref, log, gate = await blocked(kit, recorder, Mailbox(capacity=1))
        ref.tell(1)
        began = kit.clock.monotonic()
        assert await ref.put(2, deadline=3) == Rejected("full")
        assert kit.clock.monotonic() - began == 3
        gate.set()
        await kit.settle()
        assert log[2:] == [1]
        assert letters(kit, "full") == [2]


@pytest.mark.asyncio
async def test_a_cancelled_put_leaves_no_place_in_the_queue(recorder):
    async with TestKit() as kit:
        ref, log, gate = await blocked(kit, recorder, Mailbox(capacity=1))
        ref.tell(1)
        async with asyncio.TaskGroup() as group:
            putting = group.create_task(ref.put(2, deadline=60))
            await kit.settle()
            putting.cancel()
        gate.set()
        await kit.settle()
        assert log[2:] == [1]


@pytest.mark.asyncio
async def test_who_waits_to_put_hears_at_once_that_the_target_died(recorder):
    async with TestKit() as kit:
        ref, _, gate = await blocked(kit, recorder, Mailbox(capacity=1))
        ref.tell(1)
        async with asyncio.TaskGroup() as group:
            putting = group.create_task(ref.put(2, deadline=60))
            await kit.settle()
            gate.set()
            await kit.main.stop_actor(ref)
        assert putting.result() == Rejected("dead")
        assert letters(kit, "dead") == [1, 2]


@pytest.mark.asyncio
async def test_a_dead_target_takes_nothing(recorder):
    async with TestKit() as kit:
        ref = kit.spawn(recorder)
        await kit.main.stop_actor(ref)
        assert ref.tell(1) == Rejected("dead")
        assert ref.tell(2, "urgent") == Rejected("dead")
        assert await ref.put(3, deadline=5) == Rejected("dead")
        with pytest.raises(ActorDead):
            await ref.ask(4, deadline=5)
        assert letters(kit, "dead") == [1, 2, 3]
        assert not ref.alive


@pytest.mark.asyncio
async def test_messages_sent_before_it_started_wait_for_it(recorder):
    async with TestKit() as kit:
        log = []
        ref = kit.spawn(lambda: recorder(log), name="a")
        ref.tell(1)
        assert await ref.ask(2, deadline=1) == 2
        assert log == [("start", "a"), 1, 2]


@pytest.mark.asyncio
async def test_an_actor_that_never_awaits_lets_others_run(recorder):
    async with TestKit() as kit:
        turns = []
        ref = kit.spawn(Props(factory=recorder, mailbox=Mailbox(capacity=2000)))
        other = kit.spawn(recorder)
        for number in range(1000):
            ref.tell(lambda ctx, number=number: turns.append(number))
        other.tell(lambda ctx: turns.append("other"))
        await kit.settle()
        assert turns.index("other") < 200
        assert len(turns) == 1001
