"""What a life tells its actors at each beat: said again, since an actor may have begun anew."""

from types import SimpleNamespace

from actors.timing import Cover, StepDown
from protocols.ports.store import Pulse
from runtime.clock import DatabaseClock
from runtime.health import Health
from runtime.life import Life


def a_life(told: list[object]) -> Life:
    clock = DatabaseClock()
    life = Life(
        settings=SimpleNamespace(pools={}, lease_ttl_s=5.0),
        store=SimpleNamespace(locks=None),
        clock=clock,
        health=Health(clock),
        url="",
        functions={},
        actors=(),
        incarnation=1,
        leaderships=1,
    )
    timing = SimpleNamespace(tell=told.append)
    life.lookup = lambda name: timing if name == "timing" else None
    return life


def pulse(leaderships: int, state: str = "up") -> Pulse:
    return Pulse(state=state, house_paused=False, leaderships=leaderships, peers=())


def test_the_number_of_leaderships_is_said_again_to_a_timing_actor_that_was_restarted():
    told: list[object] = []
    life = a_life(told)
    life._on_pulse(pulse(4))
    life._on_pulse(pulse(4))
    assert told == [Cover(4), Cover(4)]


def test_a_node_that_is_drained_is_given_no_number_again():
    told: list[object] = []
    life = a_life(told)
    life._on_pulse(pulse(4, "draining"))
    assert told == [StepDown()]
    assert life.drained.is_set()
