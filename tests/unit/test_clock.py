"""The clock never runs ahead of the database, and adopts what contradicts it."""

from hypothesis import given
from hypothesis import strategies as st

from runtime.clock import DatabaseClock, Sample

SECOND = 1_000_000_000


class World:
    """A database clock and a monotonic clock that run apart by a given drift."""

    def __init__(self, *, offset_ns: int = 10**18, drift_ppm: int = 0):
        self.monotonic_ns = 5 * SECOND
        self.offset_ns = offset_ns
        self.drift_ppm = drift_ppm

    @property
    def database_ns(self) -> int:
        passed = self.monotonic_ns - 5 * SECOND
        return self.monotonic_ns + self.offset_ns + passed * self.drift_ppm // 1_000_000

    def clock(self, wall=lambda: 0):
        return DatabaseClock(monotonic=lambda: self.monotonic_ns, wall=wall)

    def sample(self, *, there_ns: int, back_ns: int) -> Sample:
        asked = self.monotonic_ns
        self.monotonic_ns += there_ns
        said = self.database_ns
        self.monotonic_ns += back_ns
        return Sample(asked, said, self.monotonic_ns)


delays = st.integers(min_value=0, max_value=SECOND // 5)


@given(
    st.integers(min_value=-400, max_value=400),
    st.lists(st.tuples(delays, delays, st.integers(0, 60 * SECOND)), min_size=1, max_size=30),
)
def test_never_ahead_of_the_database_and_never_a_false_step(drift_ppm, trips):
    world = World(drift_ppm=drift_ppm)
    clock = world.clock()
    for there, back, pause in trips:
        sample = world.sample(there_ns=there, back_ns=back)
        assert clock.adopt(sample) is None
        assert clock.now_ns() <= world.database_ns
        assert world.database_ns - clock.now_ns() <= (there + back) * 1.001 + 2
        world.monotonic_ns += pause


def test_a_quick_sample_keeps_a_slow_one_from_lagging():
    world = World()
    clock = world.clock()
    clock.adopt(world.sample(there_ns=1000, back_ns=1000))
    clock.adopt(world.sample(there_ns=1000, back_ns=SECOND))
    assert world.database_ns - clock.now_ns() < SECOND // 500


def test_a_step_of_the_database_is_told_and_adopted():
    world = World()
    clock = world.clock()
    clock.adopt(world.sample(there_ns=1000, back_ns=1000))
    world.offset_ns -= 3600 * SECOND
    step = clock.adopt(world.sample(there_ns=1000, back_ns=1000))
    assert step is not None
    assert round(step.by_s) == -3600
    assert abs(world.database_ns - clock.now_ns()) <= 2000


def test_a_small_step_is_told_and_one_too_small_is_only_adopted():
    world = World()
    clock = world.clock()
    clock.adopt(world.sample(there_ns=1000, back_ns=1000))
    world.offset_ns += SECOND // 20
    step = clock.adopt(world.sample(there_ns=1000, back_ns=1000))
    assert step is not None
    assert round(step.by_s, 3) == 0.05
    world.offset_ns -= SECOND // 200
    assert clock.adopt(world.sample(there_ns=1000, back_ns=1000)) is None
    assert 0 <= world.database_ns - clock.now_ns() <= 2000


def test_the_nodes_wall_clock_changes_nothing_but_the_offset_it_shows():
    world = World()
    wall_ns = 0
    clock = world.clock(wall=lambda: wall_ns)
    clock.adopt(world.sample(there_ns=0, back_ns=0))
    before = clock.now_ns()
    wall_ns = world.database_ns + 7200 * SECOND
    assert clock.now_ns() == before
    clock.adopt(world.sample(there_ns=0, back_ns=0))
    assert clock.offset_s == 7200
