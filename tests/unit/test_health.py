"""A node is ready only while each of its timers and dispatchers advances."""

import pytest

from runtime.health import STALLED_S, Health


class Clock:
    def __init__(self):
        self.passed = 100.0

    def monotonic(self):
        return self.passed

    def now(self):
        return self.passed


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def health(clock):
    health = Health(clock)
    health.begin(timers=[0, 1], pools=["default", "heavy"])
    return health


def everybody(health, but=()):
    for number in {0, 1} - set(but):
        health.tick(number)
    for pool in {"default", "heavy"} - set(but):
        health.dispatch(pool)


def test_it_is_not_ready_before_it_began_nor_once_it_ends(clock, health):
    assert Health(clock).view().reasons == ("the node is starting",)
    assert health.view().ready
    health.end()
    assert health.view().reasons == ("the node is ending",)


@pytest.mark.parametrize(
    ("still", "reason"),
    [(1, "timers do not advance: 1"), ("heavy", "dispatchers do not advance: heavy")],
)
def test_one_that_stands_still_is_not_hidden_by_the_others(clock, health, still, reason):
    clock.passed += STALLED_S
    everybody(health, but={still})
    assert health.view().ready
    clock.passed += 0.1
    everybody(health, but={still})
    view = health.view()
    assert (view.ready, view.reasons) == (False, (reason,))
    assert max(view.last_tick_s, view.last_dispatch_s) > STALLED_S
    everybody(health)
    assert health.view().ready


def test_a_timer_that_never_came_up_is_noticed(clock, health):
    clock.passed += STALLED_S + 1
    for pool in ("default", "heavy"):
        health.dispatch(pool)
    assert health.view().reasons == ("timers do not advance: 0, 1",)


def test_troubles_are_news_once_and_only_the_database_makes_it_unready(health):
    assert health.trouble("clock", "off", level="warning")
    assert not health.trouble("clock", "still off")
    assert health.view().ready
    assert health.trouble("database", "away")
    assert health.view().reasons == ("database: away",)
    assert [t.part for t in health.view().troubles] == ["clock", "database"]
    assert health.mend("database")
    assert not health.mend("database")
    assert health.view().ready


def test_what_leads_nothing_is_ready(clock, health):
    health.begin(pools=["default"])
    clock.passed += STALLED_S - 1
    view = health.view()
    assert (view.ready, view.last_tick_s) == (True, None)
