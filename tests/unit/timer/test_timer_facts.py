"""The running TimerActor meets every cron fact, on a virtual clock that walks through them."""

import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from actors.timer import actor as timer_module
from actors.timer.actor import TimerActor
from actors.timer.schedule import compile_schedule
from protocols.jobs import CommandTask, JobSpec
from protocols.ports.store import DueSchedule, Fired, Term
from protocols.schedules import Schedule
from runtime.kernel.testkit import TestKit

FACTS = Path(__file__).parents[4] / "shared" / "data" / "cron_facts.json"
YEARS_S = 40 * 366 * 86400.0


def facts():
    if not FACTS.exists():
        return [
            pytest.param(None, marks=pytest.mark.skip(reason="../shared/data is not here")),
        ]
    return [
        pytest.param(fact, id=f"{i}-{fact['category']}")
        for i, fact in enumerate(json.loads(FACTS.read_text())["facts"])
    ]


class OneSchedule:
    """A store of one schedule row; it keeps what was fired and when that was."""

    def __init__(self, spec: JobSpec, start: datetime, clock) -> None:
        self.spec = spec
        self.clock = clock
        compiled = compile_schedule(spec.schedule, anchor=start, salt=b"")
        following = compiled.next_after(start)
        self.row = following and DueSchedule(
            job_key=1, version=1, cursor=start, next_fire_at=following, anchor=start
        )
        self.fired: list[tuple[datetime, datetime]] = []

    async def due(self, term, *, until, limit):
        row = self.row
        return [row] if row is not None and row.next_fire_at <= until else []

    async def definitions(self, keys):
        return [self.spec for _ in keys]

    async def fire(self, term, firings, *, now):
        (firing,) = firings
        assert (firing.version, firing.seen_cursor) == (1, self.row.cursor)
        self.fired += [(instant.scheduled_for, self.clock.now()) for instant in firing.instants]
        self.row = firing.next_fire_at and DueSchedule(
            job_key=1,
            version=1,
            cursor=firing.cursor,
            next_fire_at=firing.next_fire_at,
            anchor=self.row.anchor,
        )
        return Fired(moved=[1], pools=["default"])


class Trusted:
    number = 0

    def trusted(self) -> bool:
        return True


class NoHints:
    def send(self, hint) -> None:
        pass


@pytest.mark.asyncio
@pytest.mark.parametrize("fact", facts())
async def test_the_running_timer_meets_the_fact(fact, monkeypatch):
    # The wheel alone carries the job over the years between: polls would only slow the walk.
    monkeypatch.setattr(timer_module, "POLL_S", YEARS_S)
    monkeypatch.setattr(timer_module, "WINDOW_S", YEARS_S)
    start = datetime.fromisoformat(fact["start"])
    expected = [datetime.fromisoformat(text) for text in fact["next"]]
    schedule = Schedule(
        kind="cron",
        text=fact["expression"],
        cron=fact["expression"],
        timezone=fact["timezone"],
    )
    spec = JobSpec(job_id="fact", task=CommandTask(shell="true"), schedule=schedule)
    async with TestKit(start=start, autojump=False) as kit:
        store = OneSchedule(spec, start, kit.clock)
        kit.spawn(
            lambda: TimerActor(
                store=store,
                hints=NoHints(),
                term=Term(0, 1, 1),
                leadership=Trusted(),
                on_broken=lambda key, error: pytest.fail(str(error)),
                on_tick=lambda: None,
            )
        )
        await kit.settle()
        if expected:
            await kit.advance((expected[-1] - start).total_seconds())
        assert [instant for instant, _ in store.fired] == expected
        assert all(
            timedelta(0) <= at - instant < timedelta(seconds=1) for instant, at in store.fired
        )
        assert not kit.failures
