"""Cancel, retry, replay, discard and backfill: legal moves only, one row for each instant."""

import pytest

from protocols.errors import ConflictError, InvalidError, NotFoundError
from protocols.ids import execution_key
from protocols.instants import iso
from runtime.postgres.folds import fold
from runtime.postgres.operations.backfill import backfill
from runtime.postgres.operations.cancel import cancel_execution
from runtime.postgres.operations.dead_letters import list_dead_letters
from runtime.postgres.operations.reopen import (
    discard_dead_letters,
    replay_dead_letters,
    retry_execution,
)
from tests.integration.operations.conftest import at, cron, every, job
from tests.integration.operations.helpers import hot, over, state_of

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]
WHO = {"who": "tests"}


@pytest.mark.parametrize("state", ["scheduled", "blocked"])
async def test_what_has_not_started_is_cancelled_at_once(world, state):
    await world.apply(job("a"))
    public_id = await hot(world, "a", 0, state)
    done = await world.do(cancel_execution, execution=public_id, now=at(5), **WHO)
    assert done.asked is None
    assert (done.execution.state, done.execution.reason) == ("cancelled", "requested")
    assert done.execution.finished_at == iso(at(5))
    assert await world.rows("SELECT FROM executions") == []
    event = await world.one("SELECT kind, tenant, states FROM events")
    assert event == {"kind": "cancelled", "tenant": "default", "states": ["cancelled"]}
    with pytest.raises(ConflictError, match="is cancelled already"):
        await world.do(cancel_execution, execution=public_id, now=at(6), **WHO)


async def test_what_runs_is_asked_to_stop(world):
    await world.apply(job("a"))
    public_id = await hot(world, "a", 0, "running", incarnation=4, fencing_token=11)
    done = await world.do(cancel_execution, execution=public_id, now=at(5), **WHO)
    assert done.asked == (4, execution_key(public_id), 11)
    assert (done.execution.state, done.execution.cancel_requested) == ("running", True)


async def test_a_cancelled_dependency_wait_leaves_no_edge(world):
    await world.apply(job("p"), job("a", dependencies=("p",)))
    public_id = await hot(world, "a", 0, "blocked", reason="dependency")
    await world.node.fetch(
        "INSERT INTO wait_edges (child_id, parent_key, tenant) VALUES ($1, 1, 'default')",
        execution_key(public_id),
    )
    await world.do(cancel_execution, execution=public_id, now=at(5), **WHO)
    assert await world.rows("SELECT FROM wait_edges") == []


@pytest.mark.parametrize("state", ["dead", "cancelled", "skipped"])
async def test_a_retry_opens_the_same_row_and_counts_its_attempts_on(world, state):
    await world.apply(job("a", expires_s=60.0))
    public_id = await over(world, "a", 0, state, attempt=3, run=2, failures=3, losses=1, input=b"1")
    again = await world.do(retry_execution, execution=public_id, now=at(50), **WHO)
    assert (again.execution_ids, again.pools) == ((public_id,), ("default",))
    row = await world.one("SELECT * FROM executions")
    assert (row["state"], row["run"], row["attempt"]) == ("scheduled", 3, 3)
    assert (row["failures"], row["losses"], row["holds_turn"]) == (0, 0, True)
    assert (row["run_at"], row["expires_at"], row["input"]) == (at(50), at(110), b"1")
    assert await world.rows("SELECT FROM execution_history") == []
    with pytest.raises(ConflictError, match="only one that is over"):
        await world.do(retry_execution, execution=public_id, now=at(51), **WHO)


async def test_a_retry_waits_its_turn(world):
    await world.apply(job("a"))
    await hot(world, "a", 60, "running")
    public_id = await over(world, "a", 0, "dead")
    again = await world.do(retry_execution, execution=public_id, now=at(50), **WHO)
    assert again.pools == ()
    assert (await state_of(world, public_id))["reason"] == "overlap"


async def test_what_cannot_be_retried_says_why(world):
    await world.apply(job("a"))
    succeeded = await over(world, "a", 0)
    with pytest.raises(ConflictError, match="trigger its job"):
        await world.do(retry_execution, execution=succeeded, now=at(9), **WHO)
    many = await over(world, "a", 1, "skipped", instants=7, last_scheduled_for=at(7))
    with pytest.raises(ConflictError, match="stands for 7 skipped instants"):
        await world.do(retry_execution, execution=many, now=at(9), **WHO)
    dead = await over(world, "a", 9, "dead")
    await world.apply(prune=True)
    with pytest.raises(ConflictError, match="deleted"):
        await world.do(retry_execution, execution=dead, now=at(9), **WHO)


async def test_dead_letters_are_listed_replayed_and_put_away(world):
    await world.apply(job("a", overlap="allow"), job("b"))
    dead = [await over(world, name, n, "dead") for n, name in enumerate("aabb")]
    late = await over(world, "a", 1000, "dead")
    page = await world.do(list_dead_letters)
    assert [item.execution_id for item in page.items] == [late, *dead[::-1]]
    assert page.items[0].dead_at == iso(at(1001.5))

    done = await world.do(replay_dead_letters, asked_at=at(60), now=at(60), job_id="a", **WHO)
    assert (sorted(done.execution_ids), done.more) == (sorted(dead[:2]), False)
    away = await world.do(
        discard_dead_letters, asked_at=at(60), now=at(60), ids=[execution_key(dead[3])], **WHO
    )
    assert away.execution_ids == (dead[3],)
    page = await world.do(list_dead_letters)
    assert [item.execution_id for item in page.items] == [late, dead[2]]
    done = await world.do(replay_dead_letters, asked_at=at(60), now=at(60), **WHO)
    assert done.execution_ids == (dead[2],)
    actions = await world.rows("SELECT action, target FROM audit ORDER BY number OFFSET 1")
    assert [tuple(row.values()) for row in actions] == [
        ("replay", "a"),
        ("discard", "dead letters"),
        ("replay", "dead letters"),
    ]
    # One that was put away can still be run again by its name.
    await world.do(retry_execution, execution=dead[3], now=at(70), **WHO)


async def test_a_replay_of_many_comes_in_chunks_and_to_an_end(world, monkeypatch):
    from runtime.postgres.operations import reopen

    monkeypatch.setattr(reopen, "AT_ONCE", 3)
    await world.apply(job("a"))
    for n in range(7):
        await over(world, "a", n, "dead")
    chunks = []
    more = True
    while more:
        done = await world.do(replay_dead_letters, asked_at=at(60), now=at(60), **WHO)
        chunks.append(len(done.execution_ids))
        more = done.more
    assert chunks == [3, 3, 1]
    rows = await world.rows(
        "SELECT state, count(*)::int AS n FROM executions GROUP BY 1 ORDER BY 1"
    )
    assert [tuple(row.values()) for row in rows] == [("blocked", 6), ("scheduled", 1)]


async def test_dead_letters_of_deleted_jobs_keep_nobody_from_a_replay(world, monkeypatch):
    from runtime.postgres.operations import reopen

    monkeypatch.setattr(reopen, "AT_ONCE", 2)
    await world.apply(job("gone"), job("a"))
    of_gone = [await over(world, "gone", n, "dead") for n in range(3)]
    mine = [await over(world, "a", n, "dead") for n in range(3)]
    await world.apply(job("a"), prune=True)
    replayed = []
    more = True
    while more:
        done = await world.do(replay_dead_letters, asked_at=at(60), now=at(60), **WHO)
        replayed += done.execution_ids
        more = done.more
    assert sorted(replayed) == sorted(mine)
    away = await world.do(discard_dead_letters, asked_at=at(60), now=at(60), **WHO)
    assert set(away.execution_ids) <= set(of_gone)


async def _fired(world, job_id, cursor):
    """The timer has come so far."""
    await world.node.fetch("UPDATE schedules SET cursor = $1", cursor)


async def test_a_backfill_makes_reopens_and_leaves(world):
    await world.apply(job("a", cron("* * * * *"), overlap="allow"), now=at(-1))
    await _fired(world, "a", at(300))
    ran = await over(world, "a", 60)
    dead = await over(world, "a", 120, "dead")
    await hot(world, "a", 180, "running")
    asked = {"job_id": "a", "first": at(0), "until": at(360), "now": at(330), **WHO}
    said = await world.do(backfill, dry_run=True, **asked)
    done = await world.do(backfill, **asked)
    for answer in (said, done):
        assert [filled.scheduled_for for filled in answer.created] == [
            iso(at(seconds)) for seconds in (0, 240, 300)
        ]
        assert [filled.scheduled_for for filled in answer.reopened] == [iso(at(120))]
        assert [(left.scheduled_for, left.state) for left in answer.left] == [
            (iso(at(60)), "succeeded"),
            (iso(at(180)), "running"),
        ]
    assert said.created[0].execution_id is None
    assert done.reopened[0].execution_id == dead
    assert (await state_of(world, ran))["state"] == "succeeded"
    again = await world.do(backfill, **asked)
    assert (again.created, again.reopened) == ((), ())
    rows = await world.rows("SELECT origin, run_at FROM executions WHERE state = 'scheduled'")
    assert {tuple(row.values()) for row in rows} == {(0, at(330))}


async def test_a_backfill_leaves_the_timer_what_is_the_timers(world):
    await world.apply(job("a", cron("* * * * *")), now=at(-1))
    await _fired(world, "a", at(60))
    done = await world.do(backfill, job_id="a", first=at(0), until=at(150), now=at(150), **WHO)
    assert [filled.scheduled_for for filled in done.created] == [iso(at(0)), iso(at(60))]
    assert [(left.scheduled_for, left.state) for left in done.left] == [(iso(at(120)), "undecided")]


async def test_a_backfill_uses_the_version_in_force_at_each_instant(world):
    await world.apply(job("a", cron("0 * * * *"), overlap="queue"), now=at(1))
    await world.apply(job("a", cron("30 * * * *"), overlap="queue"), now=at(2 * 3600 + 1))
    now = at(4 * 3600)
    await _fired(world, "a", now)
    await world.node.fetch("DELETE FROM executions")
    await world.node.fetch("DELETE FROM execution_history")
    done = await world.do(backfill, job_id="a", first=at(-3600), until=now, now=now, **WHO)
    rows = await world.rows("SELECT version, scheduled_for, state FROM executions ORDER BY 2")
    assert [(row["version"], row["scheduled_for"]) for row in rows] == [
        (1, at(-3600)),
        (1, at(0)),
        (1, at(3600)),
        (1, at(7200)),
        (2, at(9000)),
        (2, at(12600)),
    ]
    assert [row["state"] for row in rows] == ["scheduled"] + ["blocked"] * 5
    assert done.pools == ("default",)


async def test_a_backfill_goes_on_where_it_met_its_limit(world):
    await world.apply(job("a", every(60), overlap="allow"))
    now = at(600)
    await _fired(world, "a", now)
    done = await world.do(backfill, job_id="a", first=at(0), until=now, now=now, limit=3, **WHO)
    assert len(done.created) == 3
    assert done.continue_from == iso(at(180))


async def test_instants_are_taken_out_of_a_run_of_skipped_ones(world):
    await world.apply(job("a", cron("* * * * *"), overlap="allow"), now=at(-1))
    await _fired(world, "a", at(600))
    await over(world, "a", 0, "skipped", reason="misfire", instants=10, last_scheduled_for=at(540))
    done = await world.do(backfill, job_id="a", first=at(120), until=at(240), now=at(660), **WHO)
    assert len(done.created) == 3
    rows = await world.rows(
        "SELECT scheduled_for, last_scheduled_for, instants, reason"
        " FROM execution_history ORDER BY 1"
    )
    assert [tuple(row.values()) for row in rows] == [
        (at(0), at(60), 2, "misfire"),
        (at(300), at(540), 5, "misfire"),
    ]
    done = await world.do(backfill, job_id="a", first=at(0), until=at(480), now=at(660), **WHO)
    assert len(done.created) == 2 + 4
    row = await world.one(
        "SELECT scheduled_for, last_scheduled_for, instants FROM execution_history"
    )
    assert tuple(row.values()) == (at(540), None, 1)


async def test_an_instant_of_a_folded_run_has_one_row_whatever_is_backfilled(world):
    await world.apply(job("a", cron("* * * * *"), overlap="allow"), now=at(-1))
    await _fired(world, "a", at(300 * 60))
    for n in range(250):
        await over(world, "a", n * 60, "skipped", reason="paused")
    await fold(world.hot)
    assert await world.one("SELECT max(instants) AS most FROM execution_history") == {"most": 150}
    for first, last in ((90, 110), (100, 130), (240, 260), (0, 300)):
        span = {"first": at(first * 60), "until": at(last * 60), "now": at(300 * 60)}
        await world.do(backfill, job_id="a", **span, **WHO)
        row = await world.one(
            "SELECT sum(instants)::int AS instants,"
            " count(DISTINCT scheduled_for) = count(*) AS once,"
            " count(*) FILTER (WHERE last_scheduled_for >= lead) = 0 AS apart"
            " FROM (SELECT *, lead(scheduled_for) OVER (ORDER BY scheduled_for)"
            " FROM all_executions) AS x"
        )
        assert row["once"]
        assert row["apart"]
    assert row["instants"] == 301
    assert await world.rows("SELECT FROM execution_history") == []


async def test_a_backfill_that_cannot_be_is_refused(world):
    await world.apply(job("a"), job("b", every(60)))
    spans = {"until": at(0), "now": at(10), **WHO}
    with pytest.raises(NotFoundError):
        await world.do(backfill, job_id="c", first=at(0), **spans)
    with pytest.raises(ConflictError, match="no schedule"):
        await world.do(backfill, job_id="a", first=at(0), **spans)
    with pytest.raises(InvalidError, match="before it begins"):
        await world.do(backfill, job_id="b", first=at(1), **spans)
    with pytest.raises(InvalidError, match="still to come"):
        await world.do(backfill, job_id="b", first=at(20), until=at(30), now=at(10), who="tests")


async def _hourly_with_limits(world, *limits):
    """Apply a version an hour with these concurrency limits, the timer done; an hour later."""
    for hour, limit in enumerate(limits):
        await world.apply(
            job("a", cron("0 * * * *"), concurrency_limit=limit), now=at(hour * 3600 + 1)
        )
    now = at((len(limits) + 1) * 3600)
    await _fired(world, "a", now)
    return now


async def test_a_backfill_takes_no_bound_that_would_not_hold(world):
    now = await _hourly_with_limits(world, 10, 3)
    span = {"job_id": "a", "first": at(-7200), "until": at(0), "now": now, **WHO}
    for dry_run in (True, False):  # the limit of the last version is that of each
        with pytest.raises(InvalidError, match="limit of its own, 3, and 2 cannot bind"):
            await world.do(backfill, parallel=2, dry_run=dry_run, **span)
    done = await world.do(backfill, parallel=3, **span)
    assert len(done.created) == 3
    rows = await world.rows("SELECT DISTINCT limit_key LIKE 'job:%' AS own FROM executions")
    assert [row["own"] for row in rows] == [True]


async def test_a_backfill_has_no_bound_over_versions_with_a_limit_and_without(world):
    now = await _hourly_with_limits(world, None, 3)
    span = {"job_id": "a", "first": at(0), "until": now, "now": now, **WHO}
    with pytest.raises(InvalidError, match="in some of the versions"):
        await world.do(backfill, parallel=3, **span)
    done = await world.do(backfill, **{**span, "until": at(3600)}, parallel=2)
    assert len(done.created) == 2


async def test_the_bound_of_a_backfill_counts_the_versions_that_are_to_run(world):
    now = await _hourly_with_limits(world, None, 3)
    await over(world, "a", 0, "dead", version=2)  # missed before, and fired by the second version
    await over(world, "a", 3600, "succeeded")
    span = {"job_id": "a", "first": at(0), "until": at(3600), "now": now, **WHO}
    with pytest.raises(InvalidError, match="and 2 cannot bind"):
        await world.do(backfill, parallel=2, **span)
    done = await world.do(backfill, parallel=3, **span)
    assert len(done.reopened) == 1
