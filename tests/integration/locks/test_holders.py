"""Who holds a lock in real processes: kept while they live, lost when they stop, told when lost."""

import os
import signal

import anyio
import pytest

from protocols.jobs import PythonTask
from runtime.postgres.operations.locks import release_lock
from tests.integration.hosts.house import eventually, lives, process, shared, text
from tests.integration.locks.helpers import NOW, TASKS, locked_house

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]

CONTENDERS = 50


def inline(name):
    return PythonTask(target=name, isolation="inline")


def in_turn(ledger):
    """That no two were inside at once, and that tokens grew; how many there were."""
    assert len(ledger) % 2 == 0
    tokens = []
    for entered, left in zip(ledger[::2], ledger[1::2], strict=True):
        assert (entered[0], left[0]) == ("in", "out")
        assert entered[1] == left[1]
        tokens.append(int(entered[1]))
    assert tokens == sorted(set(tokens))
    return len(tokens)


async def test_fifty_contenders_of_every_kind_on_two_nodes(world, tmp_path):
    async with locked_house(world, tmp_path) as one, locked_house(world, tmp_path) as two:
        tasks = [shared("contend"), shared("contend_plain"), shared("contend")] * 15
        tasks += [process("contend"), process("contend_plain")] * 2 + [shared("contend")]
        assert len(tasks) == CONTENDERS
        begun = []
        for number, task in enumerate(tasks):
            place = two if number % 5 == 0 else one
            begun.append((place, await place.begin(task)))
        for place, attempt in begun:
            outcome = await place.house.outcome_of(attempt)
            assert outcome.state == "succeeded", outcome.error
        assert in_turn(one.ledger()) == CONTENDERS
        figures = one.keeper.figures(), two.keeper.figures()
        assert sum(int(one.buckets()[-1][1]) for one in figures) == CONTENDERS
        assert [(one.held, one.waiting, one.lost) for one in figures] == [(0, 0, 0)] * 2
    assert await world.rows("SELECT * FROM lock_waits") == []
    assert await world.rows("SELECT * FROM locks WHERE fencing_token IS NOT NULL") == []


async def test_only_the_first_of_a_node_asks_the_database(world, tmp_path):
    async with locked_house(world, tmp_path) as it:
        holder = await it.begin(shared("hold", ttl="1h"))
        await eventually(it.ledger)
        waiting = [await it.begin(shared("contend")) for _ in range(CONTENDERS)]
        await eventually(lambda: it.keeper.figures().waiting == CONTENDERS)
        it.line.taken.clear()
        await eventually(lambda: len(it.line.taken) >= 3)
        asked = {claim.fencing_token for claim in it.line.taken}
        assert asked == {waiting[0].fencing_token}
        it.go()
        assert (await it.house.outcome_of(holder)).state == "succeeded"
        for attempt in waiting:
            await it.house.outcome_of(attempt)
        assert in_turn(it.ledger()) == CONTENDERS + 1


@pytest.mark.parametrize(
    "task", [shared("hold", ttl="3s"), process("hold_plain", ttl="3s"), shared("hold_the_loop")]
)
async def test_a_holder_that_lives_keeps_it_past_its_ttl(world, tmp_path, task):
    async with locked_house(world, tmp_path) as it:
        attempt = await it.begin(task)
        await eventually(it.ledger)
        row = await it.row()
        query = "SELECT expires_at > taken_at + interval '5 s' AS kept FROM locks"
        with anyio.fail_after(30):
            while not (await world.one(query))["kept"]:  # noqa: ASYNC110 - a row tells nobody
                await anyio.sleep(0.05)
        it.go()
        outcome = await it.house.outcome_of(attempt)
        assert outcome.state == "succeeded", outcome.error
        assert outcome.result == str(row["token"]).encode()


async def test_a_call_that_lets_no_thread_run_keeps_it_too(world, tmp_path):
    async with locked_house(world, tmp_path) as it:
        outcome = await it.run(process("hold_the_interpreter"))
        assert outcome.state == "succeeded", outcome.error
        assert it.keeper.figures().lost == 0


@pytest.mark.parametrize(
    "task", [shared("hold", ttl="1s"), process("hold", ttl="1s"), process("hold_plain", ttl="1s")]
)
async def test_a_holder_that_stands_still_loses_it_and_is_cancelled(world, tmp_path, task):
    async with locked_house(world, tmp_path, kill_grace_s=30.0) as it:
        attempt = await it.begin(task)
        ((_, token, pid),) = await eventually(it.ledger)
        os.kill(int(pid), signal.SIGSTOP)
        other = await it.begin(inline_or_other(task))
        await eventually(lambda: len(it.ledger()) > 1)
        _, later, _ = it.ledger()[1]
        assert int(later) > int(token)
        os.kill(int(pid), signal.SIGCONT)
        outcome = await it.house.outcome_of(attempt)
        assert outcome.state == "failed"
        assert outcome.error.startswith('the lock "till" was lost: not renewed within its TTL')
        assert "its process stands still" in outcome.error
        assert ["cancelled", token] in it.ledger()
        assert it.keeper.figures().lost == 1
        it.go()
        assert (await it.house.outcome_of(other)).result == later.encode()


def inline_or_other(task):
    """A holder in another process than the one that stands still."""
    return process("hold") if task.isolation == "shared" else shared("hold")


async def test_what_stays_stopped_is_killed_after_the_grace(world, tmp_path):
    async with locked_house(world, tmp_path, kill_grace_s=0.1) as it:
        attempt = await it.begin(process("hold", ttl="1s"))
        ((_, _, pid),) = await eventually(it.ledger)
        os.kill(int(pid), signal.SIGSTOP)
        outcome = await it.house.outcome_of(attempt)
        assert (outcome.state, "was lost" in outcome.error) == ("failed", True)
        assert not lives(int(pid))


@pytest.mark.parametrize("task", [shared("hold", ttl="1h"), process("hold_plain", ttl="1h")])
async def test_a_killed_holder_frees_it_once_its_node_knows(world, tmp_path, task):
    async with locked_house(world, tmp_path) as it:
        attempt = await it.begin(task)
        ((_, token, pid),) = await eventually(it.ledger)
        os.kill(int(pid), signal.SIGKILL)
        assert (await it.house.outcome_of(attempt)).state == "failed"
        it.go()
        assert int((await it.run(shared("hold"))).result) > int(token)


async def test_a_node_that_is_gone_frees_it_by_its_ttl(world, tmp_path):
    async with locked_house(world, tmp_path) as it:
        await it.begin(shared("hold", ttl="1s"))
        await eventually(it.ledger)
        it.line.away = True  # as a killed node: it frees nothing, and renews nothing
        async with locked_house(world, tmp_path) as other:
            it.go()
            assert (await other.run(shared("hold"))).state == "succeeded"


@pytest.mark.parametrize("how", ["away", "hangs"])
async def test_it_is_lost_in_mid_job_where_the_database_cannot_be_reached(world, tmp_path, how):
    async with locked_house(world, tmp_path) as it:
        attempt = await it.begin(shared("hold", ttl="1s"))
        ((_, token, _),) = await eventually(it.ledger)
        setattr(it.line, how, True)
        outcome = await it.house.outcome_of(attempt)
        assert outcome.state == "failed"
        assert "was lost: not renewed within its TTL of 1s" in outcome.error
        assert how == "hangs" or "the line is cut" in outcome.error
        assert ["cancelled", token] in it.ledger()
        # Nobody was told that it is free before its time: only the database's clock frees it.
        assert (await it.row())["fencing_token"] == attempt.fencing_token


async def test_a_short_outage_costs_no_lock(world, tmp_path):
    async with locked_house(world, tmp_path) as it:
        attempt = await it.begin(shared("hold", ttl="30s"))
        await eventually(it.ledger)
        it.line.away = True
        waiting = await it.begin(shared("contend"))
        await eventually(lambda: it.line.taken and it.line.taken[-1].fencing_token
                         == waiting.fencing_token)  # fmt: skip
        it.go()  # the block ends while nobody can be told so
        assert (await it.house.outcome_of(attempt)).state == "succeeded"
        it.line.away = False
        assert (await it.house.outcome_of(waiting)).state == "succeeded"


@pytest.mark.parametrize("task", [shared("hold", ttl="1h"), process("hold_plain", ttl="1h")])
async def test_a_release_by_hand_cancels_the_holder(world, tmp_path, task):
    async with locked_house(world, tmp_path, kill_grace_s=30.0) as it:
        attempt = await it.begin(task)
        ((_, token, _),) = await eventually(it.ledger)
        await world.do(release_lock, name="till", who="tests", now=NOW)
        outcome = await it.house.outcome_of(attempt)
        assert (outcome.state, "somebody released it" in outcome.error) == ("failed", True)
        assert ["cancelled", token] in it.ledger()


async def test_a_loss_is_not_swallowed(world, tmp_path):
    async with locked_house(world, tmp_path) as it:
        attempt = await it.begin(shared("swallow"))
        await eventually(it.ledger)
        await world.do(release_lock, name="till", who="tests", now=NOW)
        outcome = await it.house.outcome_of(attempt)
        assert (outcome.state, outcome.result) == ("failed", None)
        assert "was lost" in outcome.error


async def test_a_loss_is_seen_at_the_end_of_the_block(world, tmp_path):
    async with locked_house(world, tmp_path) as it:
        attempt = await it.begin(shared("hold", ttl="1h"))
        await eventually(it.ledger)
        it.go()
        await world.do(release_lock, name="till", who="tests", now=NOW)
        outcome = await it.house.outcome_of(attempt)
        if outcome.state == "succeeded":  # it had left its block before the release
            assert "out" in [line[0] for line in it.ledger()]
        else:
            assert "was lost" in outcome.error


@pytest.mark.parametrize("where", [shared, process])
async def test_a_block_that_was_left_open_ends_with_its_attempt(world, tmp_path, where):
    async with locked_house(world, tmp_path) as it:
        assert (await it.run(where("abandon"))).state == "succeeded"
        it.go()
        assert (await it.run(shared("hold"))).state == "succeeded"
        # The process is as good as new: what beat for the lock has ended with it.
        assert (await it.run(where("hold_plain"))).state == "succeeded"


async def test_an_attempt_cannot_take_it_twice(world, tmp_path):
    async with locked_house(world, tmp_path) as it:
        outcome = await it.run(shared("twice"))
        assert outcome.state == "succeeded", text(outcome)
        assert b"cannot be taken twice" in outcome.result


async def test_a_wait_that_is_over_is_a_timeout_and_leaves_the_queue(world, tmp_path):
    async with locked_house(world, tmp_path) as it:
        assert (await it.run(shared("try_once"))).result == b'"in"'
        holder = await it.begin(shared("hold"))
        await eventually(it.ledger)
        for wait in (0, "300ms"):
            outcome = await it.run(shared("try_once", wait))
            assert b"was not free within" in outcome.result
        waiting = await it.begin(shared("contend"))
        await eventually(lambda: it.keeper.figures().waiting == 1)
        assert b"was not free within 0s" in (await it.run(shared("try_once"))).result
        it.go()
        for attempt in (holder, waiting):
            assert (await it.house.outcome_of(attempt)).state == "succeeded"


@pytest.mark.parametrize("where", ["hold", "hold_plain"])
async def test_a_cancel_while_it_waits_lets_the_next_one_in(world, tmp_path, where):
    async with locked_house(world, tmp_path, kill_grace_s=30.0) as it:
        holder = await it.begin(shared("hold"))
        await eventually(it.ledger)
        first = await it.begin(process(where))
        await eventually(lambda: it.keeper.figures().waiting == 1)
        second = await it.begin(shared("contend"))
        await eventually(lambda: it.keeper.figures().waiting == 2)
        it.house.executor.cancel(first.id, first.fencing_token)
        assert (await it.house.outcome_of(first)).state == "cancelled"
        it.go()
        for attempt in (holder, second):
            assert (await it.house.outcome_of(attempt)).state == "succeeded"
        assert await world.rows("SELECT * FROM lock_waits") == []


@pytest.mark.parametrize(
    ("name", "ttl", "said"),
    [
        ("", "1m", "1 to 255 characters"),
        ("x" * 256, "1m", "1 to 255 characters"),
        ("a\0b", "1m", "no NUL character"),
        ("a", "999ms", "1s is the shortest"),
        ("a", 0, "must be above 0"),
        ("a", "25h", "24h is the longest"),
        ("a", "soon", "is not a duration"),
    ],
)
async def test_bounds_are_told_in_a_sentence(world, tmp_path, name, ttl, said):
    async with locked_house(world, tmp_path) as it:
        outcome = await it.run(shared("refused", name, ttl))
        assert outcome.state == "failed"
        assert said in outcome.error


async def test_functions_of_an_embedding_program_lock_as_well(world, tmp_path):
    scope: dict = {}
    exec(compile(TASKS, "inline_tasks", "exec"), scope)
    functions = {name: scope[name] for name in ("contend", "contend_plain", "twice")}
    os.chdir(tmp_path)
    async with locked_house(world, tmp_path, functions=functions) as it:
        begun = [await it.begin(inline("contend")) for _ in range(10)]
        begun += [await it.begin(inline("contend_plain")) for _ in range(5)]
        begun += [await it.begin(shared("contend")) for _ in range(5)]
        for attempt in begun:
            outcome = await it.house.outcome_of(attempt)
            assert outcome.state == "succeeded", outcome.error
        assert in_turn(it.ledger()) == 20
        assert b"cannot be taken twice" in (await it.run(inline("twice"))).result
