"""A timer fires each instant once: late after an outage, never twice after a lost answer."""

from datetime import timedelta

import pytest

from actors.timer.actor import TimerActor
from protocols.messages import Ready, SchedulesChanged
from protocols.props import Props
from protocols.schedules import Misfire, Schedule

pytestmark = pytest.mark.asyncio


class Trust:
    """A leadership that is trusted until the test says otherwise."""

    number = 0

    def __init__(self):
        self.good = True

    def trusted(self):
        return self.good


def every(seconds, **misfire):
    return Schedule(
        kind="every", text="@every", interval_s=seconds, misfire=Misfire(grace_s=30.0, **misfire)
    )


async def start(house, trust=None):
    term = await house.line.store.take_epoch(0, house.node, now=house.kit.clock.now())
    return house.kit.spawn(
        Props(
            name="timer",
            restart="transient",
            factory=lambda: TimerActor(
                store=house.line,
                hints=house,
                term=term,
                leadership=trust or Trust(),
                on_broken=lambda key, error: house.hints.append(error),
                on_tick=lambda: None,
            ),
        )
    )


def rows(house):
    """(due, state, created) of every row, in seconds since the job was made."""
    born = house.books.jobs[1].anchor
    every_row = sorted(
        [*house.books.hot.values(), *house.books.history.values()], key=lambda r: r.scheduled_for
    )
    return [
        ((r.scheduled_for - born).total_seconds(), r.state, (r.created_at - born).total_seconds())
        for r in every_row
    ]


async def test_instants_fire_on_time_and_wake_their_pool(open_house):
    async with open_house() as house:
        house.job(schedule=every(10.0), overlap="skip")
        await start(house)
        await house.kit.advance(25.0)
        assert rows(house) == [(10.0, "scheduled", 10.0), (20.0, "skipped", 20.0)]
        assert house.hints.count(Ready("default")) == 1


async def test_where_overlap_is_allowed_work_is_in_the_table_when_the_clock_strikes(open_house):
    async with open_house() as house:
        house.job(schedule=every(10.0))
        await start(house)
        await house.kit.advance(30.0)
        assert rows(house) == [(n, "scheduled", n - 1.5) for n in (10.0, 20.0, 30.0)]
        assert all(row.run_at == row.scheduled_for for row in house.books.hot.values())


async def test_what_is_paused_is_decided_at_its_instant_and_not_before(open_house):
    async with open_house() as house:
        job = house.job(schedule=every(10.0))
        await start(house)
        await house.kit.advance(5.0)
        job.paused = True
        await house.kit.advance(9.0)
        assert rows(house) == [(10.0, "skipped", 10.0)]
        await house.kit.advance(5.5)
        job.paused = False
        await house.kit.advance(1.0)
        assert [(due, state) for due, state, _ in rows(house)] == [
            (10.0, "skipped"),
            (20.0, "scheduled"),
        ]


async def test_what_an_outage_made_late_runs_once_it_is_over(open_house):
    async with open_house() as house:
        house.job(schedule=every(10.0))
        await start(house)
        await house.kit.advance(5.0)
        house.line.away = True
        await house.kit.advance(20.0)
        assert rows(house) == []
        house.line.away = False
        await house.kit.advance(1.0)
        assert [(due, state) for due, state, _ in rows(house)] == [
            (10.0, "scheduled"),
            (20.0, "scheduled"),
        ]


async def test_an_outage_is_asked_about_at_a_pace(open_house):
    async with open_house() as house:
        house.job(schedule=every(1.0))
        await start(house)
        house.line.away = True
        await house.kit.advance(20.0)
        assert 20 <= len(house.line.asked) <= 300


async def test_a_lost_answer_fires_nothing_twice(open_house):
    async with open_house() as house:
        house.job(schedule=every(10.0))
        await start(house)
        await house.kit.advance(5.0)
        house.line.lose.add("fire")
        await house.kit.advance(20.0)
        assert [due for due, _, _ in rows(house)] == [10.0, 20.0]


async def test_it_ends_where_its_term_is_over(open_house):
    async with open_house() as house:
        house.job(schedule=every(10.0))
        timer = await start(house)
        await house.line.store.take_epoch(0, house.node, now=house.kit.clock.now())
        await house.kit.wait_terminated(timer, within_s=11.0)
        assert rows(house) == []


async def test_it_writes_nothing_once_it_is_not_trusted(open_house):
    async with open_house() as house:
        house.job(schedule=every(10.0), overlap="skip")
        trust = Trust()
        timer = await start(house, trust)
        await house.kit.advance(9.5)
        trust.good = False
        await house.kit.wait_terminated(timer, within_s=1.0)
        await house.kit.advance(5.0)
        assert "fire" not in house.line.asked


async def test_a_new_leader_decides_what_nobody_did(open_house):
    async with open_house() as house:
        job = house.job(schedule=every(10.0, policy="execute_once"))
        await house.kit.advance(65.0)
        await start(house)
        await house.kit.advance(1.0)
        told = [(due, state) for due, state, _ in rows(house)]
        assert told == [
            (10.0, "skipped"),
            (20.0, "skipped"),
            (30.0, "scheduled"),
            (40.0, "scheduled"),
            (50.0, "scheduled"),
            (60.0, "scheduled"),
        ]
        assert job.next_fire_at == job.anchor + timedelta(seconds=70)


async def test_a_schedule_that_changes_is_read_at_a_hint(open_house):
    async with open_house() as house:
        timer = await start(house)
        await house.kit.advance(0.5)
        house.job(schedule=every(1.0), overlap="skip")
        timer.tell(SchedulesChanged())
        await house.kit.advance(1.2)
        assert [(due, made) for due, _, made in rows(house)] == [(1.0, 1.0)]
