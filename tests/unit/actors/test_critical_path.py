"""The critical path and slack: laws that hold of any run, and what people expect of small ones."""

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from actors.dag.critical_path import Span, critical, holding


@st.composite
def runs(draw):
    """A run in which a task begins some time after some of its parents have ended."""
    spans = []
    for n in range(draw(st.integers(1, 12))):
        parents = tuple(sorted(draw(st.sets(st.integers(0, n - 1), max_size=4)))) if n else ()
        if draw(st.integers(0, 9)) == 0:
            spans.append(Span(parents=parents))
            continue
        ends = [spans[p].finished_us for p in parents if spans[p].finished_us is not None]
        eager = draw(st.booleans())
        ready = min(ends) if ends and eager else max(ends, default=0)
        started = ready + draw(st.integers(0, 5))
        skipped = draw(st.integers(0, 5)) == 0
        finished = started if skipped else started + draw(st.integers(0, 20))
        spans.append(
            Span(parents=parents, started_us=None if skipped else started, finished_us=finished)
        )
    return spans


def ends_if_late(spans, late, by):
    """When each task ends if one takes longer by so much, all others as long as they took."""
    ends = []
    for n, span in enumerate(spans):
        if span.finished_us is None:
            ends.append(None)
            continue
        held = holding(spans, n)
        ready = max((spans[p].finished_us for p in held), default=None)
        now_ready = max((ends[p] for p in held), default=None)
        moved = 0 if ready is None else now_ready - ready
        ends.append(span.finished_us + moved + (by if n == late else 0))
    return ends


def last(ends):
    return max(end for end in ends if end is not None)


@settings(deadline=None)
@given(runs(), st.data())
def test_a_task_may_be_late_by_its_slack_and_no_more(spans, data):
    found = critical(spans)
    known = [n for n, slack in enumerate(found.slack_us) if slack is not None]
    ran = {n for n, s in enumerate(spans) if s.started_us is not None and s.finished_us is not None}
    assert ran <= set(known)
    assert bool(ran) == bool(known)
    if not known:
        return
    before = last([spans[n].finished_us for n in known])
    task = data.draw(st.sampled_from(known))
    slack = found.slack_us[task]
    assert slack >= 0
    for late, so_much in ((slack, 0), (slack + 7, 7)):
        ends = ends_if_late(spans, task, late)
        assert last([ends[n] for n in known]) == before + so_much


@settings(deadline=None)
@given(runs())
def test_the_path_has_no_slack_and_leads_from_what_waited_for_nothing_to_the_last_end(spans):
    found = critical(spans)
    if not found.path:
        assert all(s.finished_us is None or s.started_us is None for s in spans)
        return
    assert all(found.slack_us[n] == 0 for n in found.path)
    assert not holding(spans, found.path[0])
    ends = [s.finished_us for s in spans if s.started_us is not None]
    assert spans[found.path[-1]].finished_us == last(ends)
    for parent, child in zip(found.path, found.path[1:], strict=False):
        assert parent in holding(spans, child)


def test_the_longer_way_is_the_path_and_the_shorter_one_has_the_difference_as_slack():
    spans = [
        Span(started_us=0, finished_us=10),
        Span(parents=(0,), started_us=10, finished_us=40),
        Span(parents=(0,), started_us=10, finished_us=15),
        Span(parents=(1, 2), started_us=41, finished_us=50),
    ]
    found = critical(spans)
    assert found.path == (0, 1, 3)
    assert found.slack_us == (0, 0, 25, 0)


def test_a_parent_that_ended_later_than_its_child_began_held_nothing_up():
    spans = [
        Span(started_us=0, finished_us=3),
        Span(started_us=0, finished_us=90),
        Span(parents=(0, 1), started_us=3, finished_us=100),
    ]
    assert critical(spans).path == (0, 2)
    assert critical(spans).slack_us == (0, 10, 0)
    waited = [*spans[:2], replace(spans[2], started_us=90)]
    assert critical(waited).path == (1, 2)


def test_what_was_skipped_counts_only_where_something_ran_after_it():
    failed = Span(started_us=0, finished_us=10)
    skipped = Span(parents=(0,), finished_us=12)
    assert critical([failed, skipped]).path == (0,)
    assert critical([failed, skipped]).slack_us == (0, None)
    last = Span(parents=(1,), started_us=13, finished_us=20)
    assert critical([failed, skipped, last]).path == (0, 1, 2)


def test_a_run_in_which_nothing_ended_has_no_path():
    assert critical([Span(), Span(parents=(0,))]).path == ()
    assert critical([]).slack_us == ()


def test_a_line_of_ten_thousand_is_no_trouble():
    spans = [
        Span(parents=(n - 1,) if n else (), started_us=n, finished_us=n + 1) for n in range(10_000)
    ]
    assert len(critical(spans).path) == 10_000
