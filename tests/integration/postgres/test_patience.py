"""What was caught up waits its turn, also where it had to wait for its parents first."""

import pytest

from protocols.ports.store import DueInstant
from tests.contract.store.harness import at, spec_of
from tests.contract.store.postgres_harness import PostgresHarness

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio]


@pytest.mark.parametrize(
    ("overlap", "caught_up", "state", "holder"),
    [
        ("skip", True, ("blocked", "overlap"), False),
        ("skip", False, ("skipped", "overlap"), False),
        ("queue", True, ("blocked", "overlap"), False),
        ("cancel_running", True, ("blocked", "overlap"), False),
        ("cancel_running", False, ("blocked", "overlap"), True),
    ],
)
async def test_a_caught_up_instant_keeps_its_place_behind_its_parents(
    house: PostgresHarness, overlap: str, caught_up: bool, state, holder: bool
):
    parent = await house.make_job(spec_of("p"), next_fire_at=at(60))
    spec = spec_of("c", overlap=overlap, dependencies=("p",))
    child = await house.make_job(spec, next_fire_at=at(60), parents=[parent])
    await house.trigger("c")
    (running,) = await house.claim()
    term = await house.lead()
    instant = DueInstant(scheduled_for=at(60), run_at=at(60), caught_up=caught_up)
    await house.fire(term, spec, child, instant, now=at(60))
    await house.fire(term, spec_of("p"), parent, at(60), now=at(60))
    (of_parent,) = await house.claim(now=at(60))
    await house.succeed(of_parent)
    await house.store.settle(None, now=at(61))
    first, waits = await house.executions_of(child)
    assert (waits.state, waits.reason) == state
    assert first.cancel_requested is holder
    await house.succeed(running)
    await house.store.settle(None, now=at(62))
    if state[0] == "blocked":
        (_, waits) = await house.executions_of(child)
        assert (waits.state, waits.holds_turn) == ("scheduled", True)
