"""An apply is whole or nothing, makes versions only of what changed, and loses no instant."""

from itertools import pairwise

import pytest

from protocols.errors import ConflictError, InvalidError
from protocols.jobs import KafkaTrigger, Trigger
from protocols.schedules import Calendar, Misfire
from tests.integration.operations.conftest import NOW, at, cron, every, job

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]


async def test_jobs_are_created_once_and_only_what_changed_gets_a_version(world):
    first = await world.apply(job("a", cron("*/5 * * * *")), job("b"), job("c", every(60)))
    assert (first.created, first.updated, first.unchanged) == (("a", "b", "c"), (), ())

    second = await world.apply(
        job("a", cron("*/5 * * * *"), timeout_s=9.0), job("b"), job("c", every(60)), now=at(1)
    )

    assert (second.created, second.updated, second.unchanged) == ((), ("a",), ("b", "c"))
    (change,) = second.changes
    assert change.job_id == "a"
    assert [(f.path, f.old, f.new) for f in change.fields] == [("timeout_s", None, 9.0)]
    versions = await world.rows(
        "SELECT job_id, version, in_force_at FROM job_versions ORDER BY job_id, version"
    )
    assert [(v["job_id"], v["version"]) for v in versions] == [
        ("a", 1),
        ("a", 2),
        ("b", 1),
        ("c", 1),
    ]
    assert versions[1]["in_force_at"] == at(1)
    row = await world.schedule("a")
    assert (row["version"], row["cursor"], row["next_fire_at"]) == (2, NOW, at(300))


async def test_a_dry_run_says_the_same_and_does_nothing(world):
    said = await world.apply(job("a"), dry_run=True)
    assert said.created == ("a",)
    assert await world.rows("SELECT FROM jobs") == []
    assert await world.rows("SELECT FROM audit") == []


async def test_another_sources_job_is_refused_by_its_name_and_nothing_is_half_applied(world):
    await world.apply(job("a"), source="mine")

    with pytest.raises(ConflictError, match='"a" belongs to the source "mine"'):
        await world.apply(job("a"), job("new"), source="yours")
    assert await world.rows("SELECT job_id FROM jobs") == [{"job_id": "a"}]

    taken = await world.apply(job("a"), source="yours", adopt=True)
    assert taken.updated == ("a",)
    row = await world.one("SELECT source, version FROM jobs")
    assert row == {"source": "yours", "version": 1}


async def test_prune_deletes_only_what_is_this_sources_and_absent(world):
    await world.apply(job("a"), job("b"), source="mine")
    await world.apply(job("c"), source="yours")
    kept = await world.apply(job("a"), source="mine")
    assert kept.deleted == ()
    pruned = await world.apply(job("a"), source="mine", prune=True)
    assert pruned.deleted == ("b",)
    rows = await world.rows("SELECT job_id FROM jobs WHERE deleted_at IS NULL ORDER BY 1")
    assert [row["job_id"] for row in rows] == ["a", "c"]


async def test_a_job_that_another_needs_is_not_pruned(world):
    await world.apply(job("parent"), source="mine")
    await world.apply(job("child", dependencies=("parent",)), source="yours")
    with pytest.raises(ConflictError, match='"parent" cannot be deleted, since "child"'):
        await world.apply(source="mine", prune=True)


async def test_dependencies_may_be_given_or_applied_already(world):
    await world.apply(job("old"))
    await world.apply(
        job("a", dependencies=("old", "b")), job("b"), job("t", on=(Trigger(job="a"),))
    )
    rows = await world.rows(
        "SELECT p.job_id AS parent, c.job_id AS child FROM job_dependencies d"
        " JOIN jobs p ON p.job_key = d.parent_key JOIN jobs c ON c.job_key = d.child_key"
        " ORDER BY 1"
    )
    assert [(r["parent"], r["child"]) for r in rows] == [("b", "a"), ("old", "a")]
    trigger = await world.one("SELECT event, parent_key, state FROM job_triggers")
    assert trigger["event"] is None
    assert trigger["state"] == "succeeded"


async def test_kafka_triggers_stand_beside_the_others_and_follow_their_job(world):
    kafka = KafkaTrigger(topic="orders", group="g", key="k")
    plain = Trigger(kafka=KafkaTrigger(topic="orders"))
    await world.apply(job("t", on=(Trigger(event="e"), Trigger(kafka=kafka), plain)))
    said = "SELECT event, kafka_topic, kafka_group, kafka_key FROM job_triggers ORDER BY number"
    assert [tuple(row.values()) for row in await world.rows(said)] == [
        ("e", None, None, None),
        (None, "orders", "g", "k"),
        (None, "orders", None, None),
    ]
    done = await world.apply(job("t", on=(plain,)))
    assert done.updated == ("t",)
    assert [row["kafka_topic"] for row in await world.rows(said)] == ["orders"]
    await world.apply(job("t", on=(plain,), enabled=False))
    assert await world.rows(said) == []


async def test_an_unknown_name_is_told_with_its_place_and_the_nearest(world):
    await world.apply(job("data_ingestion"))
    with pytest.raises(InvalidError) as caught:
        await world.apply(
            job("x"), job("report", dependencies=("x", "data_ingestoin"), on=(Trigger(job="?"),))
        )
    assert [problem.path for problem in caught.value.problems] == [
        ("jobs", 1, "dependencies", 1),
        ("jobs", 1, "on", 0, "job"),
    ]
    assert 'did you mean "data_ingestion"?' in caught.value.problems[0].message


async def test_a_circle_is_spelled_out_also_where_it_runs_through_stored_jobs(world):
    await world.apply(job("a"), job("b", dependencies=("a",)), job("c", dependencies=("b",)))
    with pytest.raises(InvalidError, match="circle: ") as caught:
        await world.apply(job("a", dependencies=("c",)))
    (problem,) = caught.value.problems
    assert problem.path == ("jobs", 0, "dependencies")
    ring = problem.message.split(": ")[1].split(" -> ")
    assert ring[0] == ring[-1]
    needs = {"a": "c", "b": "a", "c": "b"}
    assert all(needs[one] == other for one, other in pairwise(ring))
    with pytest.raises(InvalidError, match="me -> me"):
        await world.apply(job("me", dependencies=("me",)))


async def test_an_id_given_twice_and_a_nul_are_refused(world):
    with pytest.raises(InvalidError, match="given twice"):
        await world.apply(job("a"), job("a"))
    with pytest.raises(InvalidError, match="NUL"):
        await world.apply(job("a", description="x\0y"))
    with pytest.raises(InvalidError, match="stored"):
        await world.apply(job("a", description="x\ud800y"))
    assert (await world.apply(job("a", description="\\u0000"))).created == ("a",)


async def test_a_disabled_job_has_no_next_fire_and_is_triggered_by_nothing(world):
    await world.apply(job("a", every(60), enabled=False, on=(Trigger(event="e"),)))
    assert (await world.schedule("a"))["next_fire_at"] is None
    assert await world.rows("SELECT FROM job_triggers") == []
    await world.apply(job("a", every(60), on=(Trigger(event="e"),)), now=at(90))
    row = await world.schedule("a")
    assert (row["anchor"], row["cursor"], row["next_fire_at"]) == (NOW, at(90), at(120))
    assert len(await world.rows("SELECT FROM job_triggers")) == 1


async def test_the_anchor_outlives_changes_that_leave_the_interval_alone(world):
    await world.apply(job("a", every(600)))
    await world.apply(job("a", every(600, jitter_s=5.0)), now=at(100))
    row = await world.schedule("a")
    assert (row["anchor"], row["next_fire_at"]) == (NOW, at(600))
    await world.apply(job("a", every(700)), now=at(200))
    row = await world.schedule("a")
    assert (row["anchor"], row["next_fire_at"]) == (at(200), at(900))


async def test_an_instant_that_was_due_under_the_old_schedule_still_runs_by_the_old_version(world):
    await world.apply(job("a", cron("* * * * *")))
    # Nobody fired 08:01; ten seconds later the schedule changes.
    await world.apply(job("a", cron("30 * * * *")), now=at(70))
    owed = await world.one("SELECT version, scheduled_for, state, origin FROM executions")
    assert owed == {"version": 1, "scheduled_for": at(60), "state": "scheduled", "origin": 0}
    row = await world.schedule("a")
    assert (row["version"], row["cursor"], row["next_fire_at"]) == (2, at(70), at(1800))


async def test_an_owed_instant_of_a_dependent_job_waits_for_its_dependencies(world):
    await world.apply(job("p"), job("a", cron("* * * * *"), dependencies=("p",)))
    await world.apply(job("p"), job("a", cron("30 * * * *"), dependencies=("p",)), now=at(70))
    owed = await world.one("SELECT id, state, reason, holds_turn FROM executions")
    assert tuple(owed.values())[1:] == ("blocked", "dependency", False)
    edge = await world.one("SELECT child_id FROM wait_edges")
    assert edge["child_id"] == owed["id"]


async def test_what_was_owed_while_the_house_was_paused_is_recorded_as_paused(world):
    await world.apply(job("a", cron("* * * * *")))
    await world.node.fetch("UPDATE house SET paused = true")
    await world.apply(job("a", cron("30 * * * *")), now=at(70))
    row = await world.one("SELECT state, reason FROM execution_history")
    assert row == {"state": "skipped", "reason": "paused"}


async def test_what_was_missed_under_the_old_schedule_is_recorded(world):
    await world.apply(job("a", cron("* * * * *", misfire=Misfire(policy="skip"))))
    await world.apply(job("a", cron("30 * * * *")), now=at(200 * 60 + 40))
    rows = await world.rows(
        "SELECT reason, sum(instants)::int AS n FROM execution_history GROUP BY reason"
    )
    assert rows == [{"reason": "misfire", "n": 200}]
    assert await world.rows("SELECT FROM executions") == []


async def test_a_due_instant_survives_a_change_that_leaves_the_schedule_alone(world):
    await world.apply(job("a", cron("* * * * *")))
    await world.apply(job("a", cron("* * * * *"), timeout_s=5.0), now=at(70))
    row = await world.schedule("a")
    assert (row["version"], row["cursor"], row["next_fire_at"]) == (2, NOW, at(60))
    assert await world.rows("SELECT FROM executions") == []


async def test_a_changed_calendar_is_a_new_version_of_every_job_that_names_it(world):
    days = {"holidays": Calendar(exclude=("2026-12-25",))}
    await world.apply(
        job("a", cron("0 9 * * *", calendars=("holidays",))), calendars=days, source="mine"
    )
    await world.apply(job("b", cron("0 9 * * *", calendars=("holidays",))), source="yours")
    more = {"holidays": Calendar(exclude=("2026-12-25", "2026-12-26"))}
    done = await world.apply(
        job("a", cron("0 9 * * *", calendars=("holidays",))),
        calendars=more,
        source="mine",
        now=at(1),
    )
    assert (done.updated, done.calendars) == (("a", "b"), ("holidays",))
    rows = await world.rows("SELECT job_id, source, version FROM jobs ORDER BY job_id")
    assert [tuple(row.values()) for row in rows] == [("a", "mine", 2), ("b", "yours", 2)]
    with pytest.raises(ConflictError, match='calendar "holidays" belongs to the source "mine"'):
        await world.apply(calendars=days, source="yours")
    with pytest.raises(ConflictError, match="cannot be deleted"):
        await world.apply(source="mine", prune=True)
    with pytest.raises(InvalidError, match='did you mean "holidays"'):
        await world.apply(job("c", cron("0 9 * * *", calendars=("holiday",))))


async def test_every_apply_leaves_an_audit_row(world):
    await world.apply(job("a"))
    row = await world.one("SELECT who, action, target, detail::text FROM audit")
    assert row == {
        "who": "tests",
        "action": "apply",
        "target": "files",
        "detail": '{"created": {"ids": ["a"], "count": 1}}',
    }


async def test_tenants_do_not_see_each_other(world):
    await world.apply(job("a"))
    world.tenant = "other"
    done = await world.apply(job("a", tenant="other"))
    assert done.created == ("a",)
    rows = await world.rows("SELECT tenant, job_id FROM jobs ORDER BY 1")
    assert [tuple(row.values()) for row in rows] == [("default", "a"), ("other", "a")]


async def test_ten_thousand_jobs_are_a_handful_of_statements(world):
    # Five chunks; one round trip a job would be ten thousand.
    jobs = [job(f"j{n}", every(60 + n % 7), tags=("t", f"t{n % 9}")) for n in range(10_000)]
    statements = []

    async def counted(conn, *, tenant):
        from runtime.postgres.definitions.apply import apply

        raw = conn._con if hasattr(conn, "_con") else conn
        raw.add_query_logger(statements.append)
        try:
            return await apply(
                conn,
                tenant=tenant,
                source="files",
                jobs=jobs,
                calendars={},
                content_hash=b"#",
                now=NOW,
                who="tests",
            )
        finally:
            raw.remove_query_logger(statements.append)

    done = await world.do(counted)
    assert len(done.created) == 10_000
    assert len(statements) < 100
    assert (await world.do(counted)).unchanged == tuple(sorted(spec.job_id for spec in jobs))
