"""Single jobs by their ETag, lists of them, pauses, and what a start applies."""

import msgspec
import pytest

from protocols.errors import ConflictError, InvalidError, NotFoundError, PreconditionError
from protocols.jobs import Trigger
from runtime.postgres.definitions.apply import apply_if_new
from runtime.postgres.definitions.jobs import change_job, create_job, delete_job, replace_job
from runtime.postgres.definitions.zones import recompute_for_tzdata
from runtime.postgres.operations.jobs_view import list_jobs, show_job
from runtime.postgres.operations.pause import pause_house, pause_job, resume_house, resume_job
from tests.integration.operations.conftest import NOW, at, cron, every, job
from tests.integration.operations.helpers import hot, over, state_of

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]
WHO = {"who": "tests"}


async def test_a_job_is_made_once_and_changed_by_its_version(world):
    made = await world.do(create_job, spec=job("a", every(60)), now=NOW, **WHO)
    assert (made.version, made.source, made.next_fire_at is not None) == (1, "api", True)
    with pytest.raises(ConflictError, match="already"):
        await world.do(create_job, spec=job("a"), now=NOW, **WHO)
    with pytest.raises(PreconditionError, match="version 1 is in force"):
        await world.do(replace_job, spec=job("a"), if_match=2, now=NOW, **WHO)
    with pytest.raises(PreconditionError, match="no such job"):
        await world.do(replace_job, spec=job("b"), if_match=2, now=NOW, **WHO)

    put = await world.do(replace_job, spec=job("a", every(90)), if_match=1, now=at(1), **WHO)
    assert (put.created, put.job.version, put.job.schedule) == (False, 2, "@every 90s")
    again = await world.do(replace_job, spec=job("a", every(90)), now=at(2), **WHO)
    assert again.job.version == 2

    changed = await world.do(
        change_job,
        job_id="a",
        change=lambda spec: msgspec.structs.replace(spec, timeout_s=5.0),
        if_match=2,
        now=at(3),
        **WHO,
    )
    assert (changed.version, changed.spec.timeout_s, changed.schedule) == (3, 5.0, "@every 90s")
    with pytest.raises(ConflictError, match="keeps its id"):
        await world.do(change_job, job_id="a", change=lambda _: job("z"), now=at(3), **WHO)
    new = await world.do(replace_job, spec=job("n"), now=at(4), **WHO)
    assert new.created


async def test_a_wrong_job_is_told_by_its_fields(world):
    with pytest.raises(InvalidError) as caught:
        await world.do(create_job, spec=job("a", dependencies=("x",)), now=NOW, **WHO)
    assert caught.value.problems[0].path == ("dependencies", 0)


async def test_a_files_job_is_the_files_until_it_is_adopted(world):
    await world.apply(job("a"), source="files")
    with pytest.raises(ConflictError, match='source "files"'):
        await world.do(replace_job, spec=job("a", timeout_s=1.0), now=NOW, **WHO)
    put = await world.do(replace_job, spec=job("a", timeout_s=1.0), adopt=True, now=NOW, **WHO)
    assert put.job.source == "api"


async def test_a_deleted_job_ends_what_waits_and_its_name_is_free(world):
    await world.apply(job("a", every(60), overlap="allow", tags=("t",)))
    waits, runs, ended = (
        await hot(world, "a", 0),
        await hot(world, "a", 1, "running"),
        await over(world, "a", 2),
    )
    with pytest.raises(PreconditionError):
        await world.do(delete_job, job_id="a", if_match=9, now=at(5), **WHO)
    await world.do(delete_job, job_id="a", if_match=1, now=at(5), **WHO)
    state = await state_of(world, waits)
    assert (state["state"], state["reason"]) == ("cancelled", "deleted")
    assert (await state_of(world, runs))["state"] == "running"
    assert (await state_of(world, ended))["state"] == "succeeded"
    for table in ("schedules", "job_tags"):
        assert await world.rows(f"SELECT FROM {table}") == []
    with pytest.raises(NotFoundError):
        await world.do(show_job, job_id="a")
    with pytest.raises(NotFoundError):
        await world.do(delete_job, job_id="a", now=at(5), **WHO)
    again = await world.do(create_job, spec=job("a"), now=at(5), **WHO)
    assert again.version == 1
    keys = await world.rows("SELECT job_key FROM jobs WHERE job_id = 'a'")
    assert len(keys) == 2


async def test_a_job_that_others_need_is_not_deleted(world):
    await world.apply(
        job("p"), job("c", dependencies=("p",)), job("q"), job("t", on=(Trigger(job="q"),))
    )
    for needed, child in (("p", "c"), ("q", "t")):
        with pytest.raises(ConflictError, match=f'since "{child}" names it'):
            await world.do(delete_job, job_id=needed, now=at(5), **WHO)
        assert (await world.do(show_job, job_id=needed)).dependents == (child,)


async def test_jobs_are_listed_newest_first_with_their_last_state(world):
    await world.apply(job("z", every(60), tags=("x", "y")))
    await world.apply(
        job("m", cron("0 9 * * *", timezone="Europe/Berlin"), tags=("x",)), source="2"
    )
    await world.apply(job("a"), source="3")
    await over(world, "z", 0)
    await over(world, "z", 60, "dead")
    await hot(world, "m", 0, "running")
    await over(world, "m", 60, "skipped")
    page = await world.do(list_jobs)
    assert [(i.job_id, i.schedule, i.timezone, i.last_state) for i in page.items] == [
        ("a", None, None, None),
        ("m", "0 9 * * *", "Europe/Berlin", "running"),
        ("z", "@every 60s", "UTC", "dead"),
    ]
    one = await world.do(list_jobs, limit=1)
    two = await world.do(list_jobs, limit=2, cursor=one.next)
    assert [i.job_id for i in (*one.items, *two.items)] == ["a", "m", "z"]
    assert two.next is None
    tagged = await world.do(list_jobs, tag="x", limit=1)
    rest = await world.do(list_jobs, tag="x", cursor=tagged.next)
    assert [i.job_id for i in (*tagged.items, *rest.items)] == ["m", "z"]
    assert [i.job_id for i in (await world.do(list_jobs, tag="y")).items] == ["z"]
    await world.apply(job("z", every(60), tags=("n",)))
    assert (await world.do(list_jobs, tag="y")).items == ()


async def test_a_pause_keeps_the_job_and_withdraws_what_was_inserted_ahead(world):
    await world.apply(job("a", every(60), overlap="allow"))
    late = await hot(world, "a", 60)
    await hot(world, "a", 120)
    await world.node.fetch("UPDATE schedules SET cursor = $1, next_fire_at = $2", at(120), at(180))
    view = await world.do(pause_job, job_id="a", reason="incident", now=at(61), **WHO)
    assert (view.paused, view.paused_reason, view.enabled) == (True, "incident", True)
    rows = await world.rows("SELECT scheduled_for FROM executions")
    assert rows == [{"scheduled_for": at(60)}], late
    row = await world.schedule("a")
    assert (row["paused"], row["cursor"], row["next_fire_at"]) == (True, at(61), at(120))
    view = await world.do(resume_job, job_id="a", now=at(200), **WHO)
    assert (view.paused, view.paused_reason) == (False, None)
    assert (await world.schedule("a"))["paused"] is False


async def test_a_deletion_leaves_no_trace_of_instants_that_never_came(world):
    await world.apply(job("a", every(60), overlap="allow"))
    await hot(world, "a", 60)
    await hot(world, "a", 120)
    await world.do(delete_job, job_id="a", now=at(61), **WHO)
    rows = await world.rows("SELECT scheduled_for, state, reason FROM execution_history")
    assert rows == [{"scheduled_for": at(60), "state": "cancelled", "reason": "deleted"}]
    assert await world.rows("SELECT id FROM executions") == []


async def test_a_new_version_of_a_paused_job_stays_paused(world):
    await world.apply(job("a"))
    await world.do(pause_job, job_id="a", reason=None, now=at(1), **WHO)
    await world.apply(job("a", every(60)), now=at(2))
    assert (await world.schedule("a"))["paused"] is True


async def test_what_a_paused_schedule_owed_is_recorded_as_paused(world):
    await world.apply(job("a", every(60)))
    await world.do(pause_job, job_id="a", reason=None, now=at(1), **WHO)
    await world.apply(job("a", every(90)), now=at(70))
    row = await world.one("SELECT state, reason, scheduled_for FROM execution_history")
    assert row == {"state": "skipped", "reason": "paused", "scheduled_for": at(60)}


async def test_the_whole_house_is_paused_with_every_leadership(world):
    await world.do(pause_house, reason="copy", now=NOW, **WHO)
    row = await world.one(
        "SELECT h.paused, h.paused_reason, l.paused AS led FROM house h, leaderships l"
    )
    assert row == {"paused": True, "paused_reason": "copy", "led": True}
    await world.do(resume_house, now=NOW, **WHO)
    row = await world.one(
        "SELECT h.paused, h.paused_reason, l.paused AS led FROM house h, leaderships l"
    )
    assert row == {"paused": False, "paused_reason": None, "led": False}
    actions = await world.rows("SELECT action FROM audit ORDER BY number")
    assert [row["action"] for row in actions] == ["pause --all", "resume --all"]


async def test_a_start_applies_what_was_not_the_last_and_never_prunes(world):
    async def start(digest, *jobs):
        return await world.do(
            apply_if_new,
            source="files",
            jobs=jobs,
            calendars={},
            content_hash=digest,
            now=NOW,
            who="start",
        )

    assert (await start(b"1", job("a"), job("b"))).created == ("a", "b")
    await world.do(replace_job, spec=job("b", timeout_s=7.0), adopt=True, now=NOW, **WHO)
    assert await start(b"1", job("a"), job("b")) is None
    assert (await world.do(show_job, job_id="b")).spec.timeout_s == 7.0
    done = await start(b"2", job("a", timeout_s=2.0))
    assert (done.updated, done.deleted) == (("a",), ())


async def test_an_after_schedule_runs_at_once_and_then_waits_for_its_finish(world):
    from protocols.schedules import Schedule

    def after(seconds):
        return Schedule(kind="after", text="@after", interval_s=seconds)

    await world.apply(job("a", after(60.0)))
    row = await world.schedule("a")
    assert (row["after_s"], row["next_fire_at"]) == (60.0, NOW)
    await over(world, "a", 0)
    await world.node.fetch("UPDATE schedules SET next_fire_at = NULL")
    await world.apply(job("a", after(90.0)), now=at(10))
    row = await world.schedule("a")
    assert (row["after_s"], row["next_fire_at"]) == (90.0, None)
    await world.apply(job("a", after(90.0), enabled=False), now=at(20))
    assert (await world.schedule("a"))["after_s"] is None


async def test_an_at_that_was_decided_is_not_decided_twice(world):
    from protocols.schedules import Schedule

    once = Schedule(kind="at", text="@at", at=at(60))
    await world.apply(job("a", once))
    await over(world, "a", 60)
    await world.node.fetch("UPDATE schedules SET cursor = $1, next_fire_at = NULL", at(60))
    await world.apply(job("a", msgspec.structs.replace(once, timezone="Asia/Tokyo")), now=at(65))
    assert (await world.schedule("a"))["next_fire_at"] is None


async def test_a_new_zone_database_moves_next_fires_and_nothing_else(world):
    await world.apply(
        job("zoned", cron("0 9 * * *", timezone="Europe/Berlin")), job("utc", cron("0 9 * * *"))
    )
    before = await world.schedule("zoned")
    wrong = at(5)
    await world.node.fetch("UPDATE schedules SET next_fire_at = $1", wrong)
    assert await recompute_for_tzdata(world.node, "2025.2") == 1
    assert await world.schedule("zoned") == before
    assert (await world.schedule("utc"))["next_fire_at"] == wrong
    assert await recompute_for_tzdata(world.node, "2025.2") == 0


async def test_a_paused_house_has_nothing_in_the_table_for_instants_to_come(world):
    for tenant in ("default", "other"):
        world.tenant = tenant
        await world.apply(job("a", every(60), overlap="allow", tenant=tenant))
        await hot(world, "a", 60)
        await hot(world, "a", 120)
    await world.node.fetch("UPDATE schedules SET cursor = $1, next_fire_at = $2", at(120), at(180))
    await world.do(pause_house, reason="copy", now=at(61), **WHO)
    rows = await world.rows("SELECT tenant, scheduled_for FROM executions ORDER BY tenant")
    assert [tuple(row.values()) for row in rows] == [("default", at(60)), ("other", at(60))]
    rows = await world.rows("SELECT cursor, next_fire_at FROM schedules")
    assert rows == [{"cursor": at(61), "next_fire_at": at(120)}] * 2
