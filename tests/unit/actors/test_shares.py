"""How a claim's slots are split over lanes."""

from hypothesis import given
from hypothesis import strategies as st

from actors.dispatcher.shares import budgets
from protocols.ports.store import Lane

LANES = st.lists(
    st.builds(Lane, tenant=st.sampled_from("abcdef"), priority=st.integers(0, 3)), unique=True
)


@given(lanes=LANES, free=st.integers(0, 50), turn=st.integers(0, 99))
def test_the_most_urgent_share_all_slots_alike(lanes, free, turn):
    given_out = budgets(lanes, free, turn=turn)
    urgent = [lane for lane in lanes if lane.priority == min(each.priority for each in lanes)]
    assert sum(budget.count for budget in given_out) == (free if lanes else 0)
    assert {budget.lane for budget in given_out} <= set(urgent)
    counts = [budget.count for budget in given_out] + [0] * (len(urgent) - len(given_out))
    assert max(counts, default=0) - min(counts, default=0) <= 1


@given(free=st.integers(1, 4), tenants=st.integers(1, 5))
def test_over_many_turns_nobody_gets_more(free, tenants):
    lanes = [Lane(f"t{number}", 2) for number in range(tenants)]
    got = dict.fromkeys(lanes, 0)
    for turn in range(tenants * 3):
        for budget in budgets(lanes, free, turn=turn):
            got[budget.lane] += budget.count
    assert len(set(got.values())) == 1
