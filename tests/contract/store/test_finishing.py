"""An end is written once, by the proof of the token in force, with all that it leaves behind."""

import anyio
import pytest

from protocols.ports.executor import Output
from tests.contract.store.harness import NOW, Attempt, StoreHarness, at, ended, spec_of

pytestmark = pytest.mark.asyncio


async def start(house: StoreHarness, **fields):
    """Make a job, trigger it once, and claim that."""
    key = await house.make_job(spec_of("j", **fields))
    await house.trigger("j")
    (claimed,) = await house.claim()
    return key, claimed


async def test_a_success_becomes_history(house: StoreHarness):
    key, claimed = await start(house)
    done = await house.store.finish(
        house.node, [ended(claimed, exit_code=0, result=b'{"n": 1}', reason=None)]
    )
    assert (list(done.accepted), list(done.followers)) == ([claimed.id], [])
    (row,) = await house.executions_of(key)
    assert (row.state, row.finished_at, row.exit_code, row.result) == (
        "succeeded",
        at(1),
        0,
        b'{"n": 1}',
    )
    assert await house.attempts_of(claimed.id) == []
    assert (await house.events())[-1] == ("finished", [claimed.id], ["succeeded"])


async def test_an_execution_finished_twice_is_finished_once(house: StoreHarness):
    key, claimed = await start(house)
    answers = []

    async def finish() -> None:
        answers.append(await house.succeed(claimed))

    async with anyio.create_task_group() as racers:
        for _ in range(4):
            racers.start_soon(finish)
    assert sorted(len(a.accepted) for a in answers) == [0, 0, 0, 1]
    assert len(await house.executions_of(key)) == 1
    assert [kind for kind, _, _ in await house.events()].count("finished") == 1


async def test_a_stale_token_changes_nothing_and_spares_the_others(house: StoreHarness):
    await house.make_job(spec_of("j", overlap="allow"))
    for _ in range(3):
        await house.trigger("j")
    one, two, three = await house.claim()
    stale = ended(one).__class__(
        **{
            **{n: getattr(ended(one), n) for n in ended(one).__struct_fields__},
            "fencing_token": 999,
        }
    )
    done = await house.store.finish(house.node, [ended(three), stale, ended(two)])
    assert sorted(done.accepted) == sorted((two.id, three.id))
    other = await house.store.finish(house.node + 1, [ended(one)])
    assert other.accepted == []
    states = {row.id: row.state for row in await house.executions_of(one.job_key)}
    assert states[one.id] == "running"


async def test_a_retry_keeps_the_turn_and_counts_its_budget(house: StoreHarness):
    key, claimed = await start(house)
    done = await house.store.finish(
        house.node,
        [ended(claimed, "scheduled", spends="retry", run_at=at(9), error="boom", exit_code=3)],
    )
    assert list(done.accepted) == [claimed.id]
    (row,) = await house.executions_of(key)
    assert (row.state, row.run_at, row.failures, row.losses, row.holds_turn) == (
        "scheduled",
        at(9),
        1,
        0,
        True,
    )
    assert await house.attempts_of(claimed.id) == [
        Attempt(attempt=1, state="failed", exit_code=3, error="boom")
    ]
    assert await house.claim(now=at(8)) == []
    (second,) = await house.claim(now=at(9))
    assert (second.attempt, second.failures) == (2, 1)
    lost = ended(second, "scheduled", spends="lost", attempt_state="lost", run_at=at(9))
    await house.store.finish(house.node, [lost])
    (third,) = await house.claim(now=at(9))
    assert (third.attempt, third.failures, third.losses) == (3, 1, 1)

    await house.succeed(third)
    (row,) = await house.executions_of(key)
    assert (row.state, row.attempt, row.failures, row.losses) == ("succeeded", 3, 1, 1)
    assert [a.state for a in await house.attempts_of(third.id)] == ["failed", "lost", "succeeded"]


async def test_a_first_failure_that_is_final_has_its_attempt(house: StoreHarness):
    key, claimed = await start(house)
    dead = ended(claimed, "dead", attempt_state="timed_out", spends="retry", reason="retries")
    await house.store.finish(house.node, [dead])
    (row,) = await house.executions_of(key)
    assert (row.state, row.reason, row.failures) == ("dead", "retries", 1)
    assert [a.state for a in await house.attempts_of(claimed.id)] == ["timed_out"]


async def test_a_retry_of_what_was_asked_to_cancel_ends_it(house: StoreHarness):
    key, claimed = await start(house)
    await house.request_cancel(claimed.id)
    await house.store.finish(
        house.node, [ended(claimed, "scheduled", spends="retry", run_at=at(9))]
    )
    assert [row.state for row in await house.executions_of(key)] == ["cancelled"]


async def test_output_lies_apart_and_only_where_there_is_some(house: StoreHarness):
    _, claimed = await start(house)
    output = Output(head=b"a", tail=b"z", omitted_bytes=7)
    await house.store.finish(house.node, [ended(claimed, output=output)])
    assert await house.outputs_of(claimed.id) == [(1, b"a", b"z", 7)]


async def test_success_forgets_what_its_attempts_kept(house: StoreHarness):
    _, claimed = await start(house)
    await house.keep(claimed, checkpoint=b"7", once="k")
    assert await house.store.checkpoints([claimed.id]) == {claimed.id: b"7"}
    await house.store.finish(house.node, [ended(claimed, "scheduled", spends="retry", run_at=NOW)])
    assert await house.kept_of(claimed) == (True, True)
    (again,) = await house.claim()
    await house.succeed(again)
    assert await house.kept_of(again) == (False, False)
    assert await house.store.checkpoints([claimed.id]) == {}


async def test_followers_are_told_of(house: StoreHarness):
    """A job behind whose end something waits is named; one that nobody waits for is not."""
    spec = spec_of("queued", overlap="queue")
    queued = await house.make_job(spec)
    parent = await house.make_job(spec_of("parent"))
    await house.make_job(spec_of("child", dependencies=("parent",)), parents=[parent])
    after = await house.make_job(spec_of("after"), after_s=60)
    plain = await house.make_job(spec_of("plain"))
    for name in ("queued", "queued", "parent", "after", "plain"):
        await house.trigger(name)
    claimed = await house.claim()
    assert {c.job_key for c in claimed} == {queued, parent, after, plain}
    done = await house.succeed(*claimed)
    assert set(done.followers) == {queued, parent, after}


async def test_a_job_with_a_limit_frees_it_by_every_end(house: StoreHarness):
    key = await house.make_job(spec_of("j", overlap="allow", concurrency_limit=3))
    for _ in range(3):
        await house.trigger("j")
    one, two, three = await house.claim(3, key=f"job:{key}")
    await house.store.finish(
        house.node,
        [
            ended(one),
            ended(two, "dead"),
            ended(three, "scheduled", spends="retry", run_at=at(9)),
        ],
    )
    assert await house.holders_of(key) == []
