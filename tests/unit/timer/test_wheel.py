"""The timing wheel equals a sorted list, walks down its levels, and never fires early."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors.timer.wheel import DAY, HOUR, MINUTE, MS, SECOND, WINDOW, TimingWheel

START = 1_790_000_000 * SECOND - (1_790_000_000 * SECOND) % DAY


def held(wheel: TimingWheel) -> dict[str, int]:
    statistics = wheel.statistics()
    return {name: n for name, n in statistics.levels.items() if n} | (
        {"near": statistics.near} if statistics.near else {}
    )


def test_two_hours_fifteen_minutes_thirty_seconds_walk_down_the_levels():
    wheel = TimingWheel(START)
    due = START + 2 * HOUR + 15 * MINUTE + 30 * SECOND + 7 * MS + 5
    timer = wheel.insert(due, "tea")
    walked = [(0, held(wheel))]
    for step in (2 * HOUR, 15 * MINUTE, 30 * SECOND, 7 * MS):
        assert wheel.advance(wheel.now_ns + step) == []
        walked.append((wheel.now_ns - START, held(wheel)))
    assert walked == [
        (0, {"hours": 1}),
        (2 * HOUR, {"minutes": 1}),
        (2 * HOUR + 15 * MINUTE, {"seconds": 1}),
        (2 * HOUR + 15 * MINUTE + 30 * SECOND, {"milliseconds": 1}),
        (due - 5 - START, {"near": 1}),
    ]
    assert wheel.advance(due - 1) == []
    assert wheel.advance(due) == [timer]
    assert len(wheel) == 0


@pytest.mark.parametrize(
    ("ahead", "level"),
    [
        (5 * MS, "milliseconds"),
        (5 * SECOND, "seconds"),
        (5 * MINUTE, "minutes"),
        (5 * HOUR, "hours"),
        (2 * DAY, "days"),
    ],
)
def test_each_distance_has_its_level(ahead, level):
    wheel = TimingWheel(START - 9 * DAY)
    wheel.advance(START)  # the windows move on though nothing fires
    wheel.insert(START + ahead, None)
    assert held(wheel) == {level: 1}
    assert wheel.next_expiry() == START + ahead


def test_what_is_beyond_the_days_waits_in_the_overflow():
    wheel = TimingWheel(START)
    late = wheel.insert(START + 3 * WINDOW, "late")
    later = wheel.insert(START + 3 * WINDOW + 1, "later")
    assert wheel.statistics().overflow == 2
    assert wheel.next_expiry() == late.when_ns
    assert wheel.advance(late.when_ns) == [late]
    assert wheel.advance(later.when_ns) == [later]
    assert wheel.next_expiry() is None


def test_a_jump_of_days_fires_all_in_order():
    wheel = TimingWheel(START)
    ahead = [400 * DAY, 3 * DAY, 5 * MS, 2 * HOUR, 90 * SECOND, 5 * MS, 70 * DAY, 0]
    timers = [wheel.insert(START + delay, n) for n, delay in enumerate(ahead)]
    fired = wheel.advance(START + 500 * DAY)
    assert [timer.item for timer in fired] == [7, 2, 5, 4, 3, 1, 6, 0]
    assert all(wheel.cancel(timer) is False for timer in timers)


def test_a_clock_that_goes_back_moves_nothing():
    wheel = TimingWheel(START)
    wheel.advance(START + HOUR)
    timer = wheel.insert(START + HOUR + 1, None)
    assert wheel.advance(START) == []
    assert wheel.now_ns == START + HOUR
    assert wheel.insert(START, "overdue") in wheel.advance(START)
    assert wheel.advance(START + HOUR + 1) == [timer]


def test_a_cancelled_timer_neither_fires_nor_keeps_what_it_was_for():
    wheel = TimingWheel(START)
    timer = wheel.insert(START + SECOND, "payload")
    assert wheel.cancel(timer) is True
    assert wheel.cancel(timer) is False
    assert timer.item is None
    assert wheel.advance(START + DAY) == []
    assert wheel.statistics().cancelled_unswept == 0


def test_cancelled_timers_are_swept_before_they_outnumber_the_waiting():
    wheel = TimingWheel(START)
    kept = [wheel.insert(START + n * MINUTE, n) for n in range(100)]
    for n in range(50_000):
        wheel.cancel(wheel.insert(START + (n % 400) * DAY, n))
        statistics = wheel.statistics() if n % 5000 == 0 else None
        assert statistics is None or statistics.cancelled_unswept <= 1025
    assert wheel.advance(START + 400 * DAY) == kept


DELAYS = st.one_of(
    st.integers(-2 * SECOND, 3 * MS),
    st.integers(0, 3 * SECOND),
    st.integers(0, 3 * HOUR),
    st.integers(0, 400 * DAY),
    st.sampled_from([MS, SECOND, MINUTE, HOUR, DAY, WINDOW, MS - 1, SECOND - 1, WINDOW - 1]),
)


class WheelMachine(RuleBasedStateMachine):
    """The wheel beside the plainest thing that could be right: a list that is sorted."""

    def __init__(self):
        super().__init__()
        self.now = START + 123_456_789
        self.wheel = TimingWheel(self.now)
        self.model: list[tuple[int, int]] = []
        self.timers = {}
        self.number = 0

    @rule(delay=DELAYS)
    def insert(self, delay):
        self.number += 1
        when = self.now + delay
        self.timers[self.number] = self.wheel.insert(when, self.number)
        self.model.append((when, self.number))

    @precondition(lambda self: self.timers)
    @rule(data=st.data())
    def cancel(self, data):
        number = data.draw(st.sampled_from(sorted(self.timers)))
        waits = any(n == number for _, n in self.model)
        assert self.wheel.cancel(self.timers.pop(number)) is waits
        self.model = [(w, n) for w, n in self.model if n != number]

    @rule(step=DELAYS)
    def advance(self, step):
        self.move(self.now + step)

    @precondition(lambda self: self.model)
    @rule(early=st.sampled_from([0, 1, MS]))
    def advance_to_the_next(self, early):
        self.move(min(self.model)[0] - early)

    def move(self, to):
        self.now = max(self.now, to)
        due = sorted(entry for entry in self.model if entry[0] <= self.now)
        fired = [(timer.when_ns, timer.item) for timer in self.wheel.advance(to)]
        assert fired == due
        self.model = [entry for entry in self.model if entry[0] > self.now]

    @rule()
    def sweep(self):
        self.wheel._sweep()

    @invariant()
    def the_wake_up_is_never_late(self):
        assert len(self.wheel) == len(self.model)
        expiry = self.wheel.next_expiry()
        if self.model:
            assert expiry is not None
            assert expiry <= min(self.model)[0]

    @invariant()
    def without_cancelling_the_wake_up_is_exact(self):
        if self.model and not self.wheel.statistics().cancelled_unswept:
            assert self.wheel.next_expiry() == min(self.model)[0]


TestWheelIsASortedList = WheelMachine.TestCase
TestWheelIsASortedList.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)


@given(st.lists(DELAYS, max_size=60))
@settings(max_examples=100, deadline=None)
def test_sleeping_until_the_next_expiry_fires_each_at_its_instant(delays):
    wheel = TimingWheel(START + 77)
    for number, delay in enumerate(delays):
        wheel.insert(START + 77 + delay, number)
    wakes = 0
    while (expiry := wheel.next_expiry()) is not None:
        fired = wheel.advance(expiry)
        assert fired
        assert all(timer.when_ns == expiry or expiry <= START + 77 for timer in fired)
        wakes += 1
    assert wakes <= len(set(delays))
    assert len(wheel) == 0
