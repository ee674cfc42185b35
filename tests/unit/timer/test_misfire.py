"""Every due instant is decided once, by the rule, whatever the chunks; nothing is unbounded."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from actors.timer.misfire import PLAN_ROWS_MAX, DuePlan, plan_due
from actors.timer.schedule import CompiledSchedule, compile_schedule
from protocols.schedule_text import parse_schedule

START = datetime(2026, 3, 6, 12, 0, 0, tzinfo=UTC)  # a Friday


def compiled(value) -> CompiledSchedule:
    return compile_schedule(parse_schedule(value), anchor=START, salt=b"default/a")


def plans(
    schedule: CompiledSchedule,
    *,
    cursor: datetime,
    now: datetime,
    budget: int = PLAN_ROWS_MAX,
    step: timedelta = timedelta(0),
) -> list[DuePlan]:
    """Plan until nothing more is left; `step` is how much later each plan is than the last."""
    made, catchup = [], None
    while True:
        plan = plan_due(schedule, cursor=cursor, now=now, catchup=catchup, budget=budget)
        made.append(plan)
        assert len(plan.instants) <= budget
        assert plan.cursor >= cursor
        assert (plan.next_fire_at is not None and plan.next_fire_at <= now) == plan.more
        cursor = plan.cursor
        catchup = plan.catchup_from and (plan.catchup_from, plan.catchup_until)
        if not plan.more:
            assert catchup is None
            return made
        assert plan.instants
        assert len(made) < 2000
        now += step


def decided(schedule: CompiledSchedule, made: list[DuePlan]) -> dict[datetime, str]:
    """Spell out every decision; an instant decided twice is a failure."""
    found: dict[datetime, str] = {}
    for plan in made:
        for row in plan.instants:
            instants = [row.scheduled_for]
            if row.last is not None:
                before = row.scheduled_for - timedelta(microseconds=1)
                instants = list(schedule.between(before, row.last))
            assert len(instants) == row.count
            for instant in instants:
                assert instant not in found
                found[instant] = row.skip or ("caught up" if row.caught_up else "run")
    return found


def rule(schedule: CompiledSchedule, cursor: datetime, now: datetime) -> dict[datetime, str]:
    """Decide one by one, as docs/schedules.md words it."""
    misfire = schedule.schedule.misfire
    due = list(schedule.between(cursor, now))
    missed = [t for t in due if t < now - timedelta(seconds=misfire.grace_s)]
    found = dict.fromkeys(due, "run") | dict.fromkeys(missed, "misfire")
    young = [
        t
        for t in missed
        if not schedule.is_excluded(t)
        and (misfire.within_s is None or t >= now - timedelta(seconds=misfire.within_s))
    ]
    wanted = {"skip": 0, "execute_once": 1, "catch_up": misfire.limit}[misfire.policy]
    found |= dict.fromkeys(young[len(young) - min(wanted, len(young)) :], "caught up")
    return found | {t: "excluded" for t in due if schedule.is_excluded(t)}


@given(
    when=st.sampled_from([
        {"cron": "*/10 * * * *"}, {"cron": "0 */6 * * *"}, {"cron": "30 2 * * *"},
        {"every": "17m"}, {"every": "1d"}, {"at": "2026-03-07T00:00:00Z"}, {"cron": "0 0 30 2 *"},
        {"cron": "*/20 * * * *", "timezone": "Europe/Berlin"},
        {"cron": "0 * * * *", "start": "2026-03-07", "end": "2026-03-20"},
    ]),
    exclude=st.sampled_from([[], ["sat", "sun"], ["2026-03-07/2026-03-11"], ["fri"]]),
    policy=st.sampled_from(["skip", "execute_once", "catch_up"]),
    grace=st.sampled_from([30, 600, 7200, 86_400]),
    within=st.sampled_from([None, "1h", "3d"]),
    limit=st.sampled_from([1, 3, 40]),
    outage_s=st.integers(0, 10 * 86_400),
    budget=st.sampled_from([7, 150, 1000]),
    step=st.sampled_from([timedelta(0), timedelta(milliseconds=40)]),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
@example(
    when={"cron": "*/10 * * * *"},
    exclude=["fri"],
    policy="skip",
    grace=86_400,
    within=None,
    limit=1,
    outage_s=621_600,
    budget=150,
    step=timedelta(0),
)
def test_chunks_decide_what_the_rule_decides(
    *, when, exclude, policy, grace, within, limit, outage_s, budget, step
):
    misfire = {"policy": policy, "grace": grace, "limit": limit}
    if within:
        misfire["within"] = within
    schedule = compiled(when | {"exclude": exclude, "misfire": misfire})
    now = START + timedelta(seconds=outage_s)
    made = plans(schedule, cursor=START, now=now, budget=budget, step=step)
    found = decided(schedule, made)
    expected = rule(schedule, START, now)
    late = {t: d for t, d in found.items() if t > now}
    assert all(decision in {"run", "excluded"} for decision in late.values())
    assert {t: d for t, d in found.items() if t <= now} == expected


def test_what_is_only_late_comes_before_what_was_missed():
    schedule = compiled({"cron": "* * * * * *", "misfire": {"policy": "catch_up", "limit": 500}})
    now = START + timedelta(hours=1)
    made = plans(schedule, cursor=START, now=now)
    first = made[0].instants
    assert all(row.skip is None and not row.caught_up for row in first[:31])
    assert first[0].scheduled_for == now - timedelta(seconds=30)
    assert first[31].skip == "misfire"
    assert made[0].cursor == now


def test_a_long_run_of_skips_is_a_hundred_rows_and_one():
    schedule = compiled("*/1 * * * *")
    now = START + timedelta(days=2)
    (plan,) = plans(schedule, cursor=START, now=now)
    skipped = [row for row in plan.instants if row.skip == "misfire"]
    assert len(skipped) == 101
    assert skipped[-1].count == 2 * 1440 - 100 - 2
    assert skipped[-1].last == now - timedelta(minutes=2)
    assert [row.scheduled_for for row in plan.instants if row.caught_up] == [
        now - timedelta(minutes=1)
    ]


def test_closed_days_in_a_row_are_one_run_of_skips():
    schedule = compiled({"cron": "* * * * *", "exclude": ["2026-03-07/2026-03-16"]})
    made = plans(schedule, cursor=START, now=START + timedelta(days=14))
    excluded = [row for plan in made for row in plan.instants if row.skip == "excluded"]
    assert len(excluded) == 101
    assert sum(row.count for row in excluded) == 10 * 1440


def test_the_latest_open_instant_is_found_behind_closed_days():
    schedule = compiled({"cron": "* * * * * *", "exclude": ["sat", "sun"]})
    sunday = datetime(2026, 3, 8, 20, tzinfo=UTC)
    made = plans(schedule, cursor=START, now=sunday)
    runs = [row.scheduled_for for plan in made for row in plan.instants if row.skip is None]
    assert runs == [datetime(2026, 3, 6, 23, 59, 59, tzinfo=UTC)]


@pytest.mark.parametrize("later_s", [0, 100, 1000])
def test_time_that_passes_between_chunks_changes_no_decision(later_s):
    misfire = {"policy": "catch_up", "limit": 500, "within": "5m"}
    schedule = compiled({"cron": "* * * * * *", "misfire": misfire})
    seen = START + timedelta(hours=1)
    now = seen + timedelta(seconds=later_s)
    until = seen - timedelta(seconds=30, microseconds=1)
    plan = plan_due(schedule, cursor=now, now=now, catchup=(START, until))
    runs = [row.scheduled_for for row in plan.instants if row.caught_up]
    assert runs[0] == seen - timedelta(minutes=5)
    assert len(runs) == 270


@pytest.mark.parametrize(("grace", "step_s"), [("30s", 0), ("10m", 0), ("30s", 3)])
def test_a_rate_holds_over_all_that_is_caught_up(grace, step_s):
    # six hundred late instants, or some new ones each time, leave a plan too little room
    misfire = {"policy": "catch_up", "limit": 500, "rate": "5/s", "grace": grace}
    schedule = compiled({"cron": "* * * * * *", "misfire": misfire})
    now = START + timedelta(hours=1)
    made = plans(schedule, cursor=START, now=now, step=timedelta(seconds=step_s))
    assert len(made) < 5
    paced = [row.run_at for plan in made for row in plan.instants if row.caught_up]
    assert [two - one for one, two in pairwise(paced)] == [timedelta(seconds=0.2)] * 499


def test_a_budget_too_small_for_a_rate_still_catches_up():
    misfire = {"policy": "catch_up", "limit": 500, "rate": "5/s"}
    schedule = compiled({"cron": "* * * * *", "misfire": misfire})
    made = plans(schedule, cursor=START, now=START + timedelta(days=1), budget=200)
    assert list(decided(schedule, made).values()).count("caught up") == 500


def test_ten_years_of_seconds_are_one_plan():
    schedule = compiled("* * * * * *")
    now = START + timedelta(days=3650)
    (plan,) = plans(schedule, cursor=START, now=now)
    assert sum(row.count for row in plan.instants) == 3650 * 86_400
    assert len(plan.instants) == 31 + 101 + 1


def test_ten_years_of_seconds_with_closed_weekends_are_bounded_plans():
    schedule = compiled({"cron": "* * * * * *", "exclude": ["sat", "sun"]})
    now = START + timedelta(days=3650)
    made = plans(schedule, cursor=START, now=now)
    assert sum(row.count for plan in made for row in plan.instants) == 3650 * 86_400
    assert max(len(plan.instants) for plan in made) <= PLAN_ROWS_MAX


def test_caught_up_instants_keep_their_rate_and_are_not_before_now():
    schedule = compiled(
        {"cron": "* * * * *", "misfire": {"policy": "catch_up", "limit": 500, "rate": "10/s"}}
    )
    now = START + timedelta(days=1)
    made = plans(schedule, cursor=START, now=now)
    runs = [row for plan in made for row in plan.instants if row.caught_up]
    assert len(runs) == 500
    assert [row.run_at for row in runs] == [now + n * timedelta(seconds=0.1) for n in range(500)]
    assert [row.scheduled_for for row in runs] == sorted(row.scheduled_for for row in runs)


def test_a_second_outage_waits_until_the_first_is_caught_up():
    schedule = compiled({"cron": "* * * * *", "misfire": {"policy": "catch_up", "limit": 60}})
    now = START + timedelta(hours=1)
    first = plan_due(schedule, cursor=START, now=now, budget=10)
    assert first.more
    catchup = (first.catchup_from, first.catchup_until)
    again = now + timedelta(hours=1)
    made = [first]
    while made[-1].more:
        last = made[-1]
        catchup = last.catchup_from and (last.catchup_from, last.catchup_until)
        made.append(plan_due(schedule, cursor=last.cursor, now=again, catchup=catchup, budget=10))
    found = decided(schedule, made)
    assert len(found) == 120
    assert list(found.values()).count("run") == 2
    assert list(found.values()).count("caught up") == 118


def test_after_is_due_until_it_has_run_and_cannot_be_missed():
    schedule = compiled("@after 1h")
    due = START + timedelta(minutes=5)
    early = plan_due(schedule, cursor=START, now=START, next_fire_at=due)
    assert (early.instants, early.next_fire_at) == ((), due)
    late = plan_due(schedule, cursor=START, now=START + timedelta(days=9), next_fire_at=due)
    assert [(row.scheduled_for, row.skip) for row in late.instants] == [(due, None)]
    assert late.next_fire_at is None
    assert late.cursor == due


def test_after_on_a_closed_day_moves_to_the_next_open_one():
    schedule = compiled({"after": "1h", "exclude": ["sat", "sun"]})
    saturday = datetime(2026, 3, 7, 3, tzinfo=UTC)
    plan = plan_due(schedule, cursor=START, now=saturday, next_fire_at=saturday)
    assert [row.skip for row in plan.instants] == ["excluded"]
    assert plan.next_fire_at == datetime(2026, 3, 9, tzinfo=UTC)


@pytest.mark.parametrize("lateness_s", [0, 29.9, 30])
def test_late_is_not_missed(lateness_s):
    schedule = compiled({"cron": "0 13 * * *", "misfire": {"policy": "skip"}})
    now = START + timedelta(hours=1, seconds=lateness_s)
    (plan,) = plans(schedule, cursor=START, now=now)
    assert [(row.skip, row.run_at) for row in plan.instants] == [(None, START + timedelta(hours=1))]
    assert plan.cursor == now
    assert plan.next_fire_at == START + timedelta(hours=25)
