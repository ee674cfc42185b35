"""Laws of placement: even, sticky, the same for all, and stable while it is being done."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from actors.placement import plan

INCARNATIONS = st.integers(min_value=1, max_value=40)
MEMBERS = st.dictionaries(INCARNATIONS, st.sampled_from("abcdefgh"), max_size=8)
COUNTS = st.integers(min_value=0, max_value=40)
HOLDERS = st.dictionaries(st.integers(0, 50), INCARNATIONS, max_size=40)


def loads(placed, members):
    counts = Counter(placed.values())
    return [counts[who] for who in members]


def moves(placed, holders):
    """Groups that are led by one and planned for another."""
    return [n for n, who in placed.items() if holders.get(n, who) != who]


@given(COUNTS, MEMBERS, HOLDERS)
def test_every_group_is_placed_on_a_member_and_evenly(count, members, holders):
    placed = plan(range(count), members, holders)
    if not members:
        assert placed == {}
        return
    assert set(placed) == set(range(count))
    assert set(placed.values()) <= set(members)
    shares = loads(placed, members)
    assert max(shares) - min(shares) <= 1


@given(COUNTS, MEMBERS, HOLDERS, st.randoms(use_true_random=False))
def test_what_is_told_in_another_order_is_planned_the_same(count, members, holders, order):
    def shuffled(facts):
        pairs = list(facts.items())
        order.shuffle(pairs)
        return dict(pairs)

    numbers = list(range(count))
    order.shuffle(numbers)
    first = plan(range(count), members, holders)
    assert plan(numbers, shuffled(members), shuffled(holders)) == first


@given(COUNTS, MEMBERS, HOLDERS)
def test_no_more_moves_than_evenness_asks_for(count, members, holders):
    placed = plan(range(count), members, holders)
    if not members:
        return
    held = Counter(holders[n] for n in range(count) if holders.get(n) in members)
    share, over = divmod(count, len(members))
    # The least that must be given up: all above the even share, less the places for one more.
    above = sorted((max(0, held[who] - share) for who in members), reverse=True)
    least = sum(above) - sum(1 for extra in above[:over] if extra)
    among_members = [n for n in moves(placed, holders) if holders[n] in members]
    assert len(among_members) == least


@given(COUNTS, MEMBERS, HOLDERS)
def test_a_plan_that_was_done_is_planned_again(count, members, holders):
    placed = plan(range(count), members, holders)
    assert plan(range(count), members, placed) == placed


@given(COUNTS, MEMBERS, HOLDERS, st.randoms(use_true_random=False))
def test_doing_a_plan_in_any_order_changes_nothing_in_the_rest(count, members, holders, order):
    placed = plan(range(count), members, holders)
    now = {n: who for n, who in holders.items() if n < count}
    steps = [n for n, who in placed.items() if now.get(n) != who]
    order.shuffle(steps)
    for number in steps:
        now.pop(number, None)  # given up by whoever had it
        assert plan(range(count), members, now) == placed
        now[number] = placed[number]
        assert plan(range(count), members, now) == placed


@given(st.integers(1, 40), st.dictionaries(INCARNATIONS, st.sampled_from("abc"), min_size=2))
def test_who_comes_takes_only_its_share_and_who_goes_leaves_only_its_own(count, members):
    *_, comer = members
    before = {who: name for who, name in members.items() if who != comer}
    placed = plan(range(count), before, {})
    after = plan(range(count), members, placed)
    moved = moves(after, placed)
    assert {after[n] for n in moved} <= {comer}
    assert len(moved) <= -(-count // len(members))
    left = plan(range(count), before, after)
    assert all(after[n] == comer for n in moves(left, after))


def test_groups_and_nodes_are_mixed_by_their_names_not_their_order():
    placed = plan(range(4), {1: "a", 2: "b", 3: "c", 4: "d"}, {})
    assert sorted(placed.values()) == [1, 2, 3, 4]
    orders = set()
    for base in range(0, 40, 4):
        nodes = {base + place: "n" for place in range(4)}
        orders.add(tuple(who - base for who in plan(range(4), nodes, {}).values()))
    assert len(orders) > 1
