"""The rules of progress against a model that is too plain to be wrong, in any order of ends."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.dag import rules
from actors.dag.rules import Run, Skip, Task
from actors.dag.shape import Shape, TaskShape
from protocols.dags import DagTaskSpec

TRIGGERS = ("all_succeeded", "all_done", "one_succeeded", "one_failed", "none_failed", "always")


def shape_of(parents: list[list[int]], triggers: list[str], policy: str) -> Shape:
    return Shape(
        on_failure=policy,
        tasks=[
            TaskShape(
                number=number,
                task_id=f"t{number}",
                key=number,
                trigger=trigger,
                role="task",
                spec=DagTaskSpec(task_id=f"t{number}"),
            )
            for number, trigger in enumerate(triggers)
        ],
        edges=[(parent, child) for child, found in enumerate(parents) for parent in found],
    )


class Play:
    """A run in memory: what a store does around the rules, and nothing else."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.tasks = [Task(number=t.number, pending=len(t.parents)) for t in shape.tasks]
        self.run = Run(open=len(self.tasks))
        self.going: set[int] = set()
        self.began: list[int] = []
        self.look(range(len(self.tasks)))

    def look(self, numbers) -> None:
        for number in numbers:
            self.decide(number)
        self.stop()

    def decide(self, number: int) -> None:
        task = self.tasks[number]
        if task.state != "blocked":
            return
        match rules.decide(self.shape.tasks[number].trigger, task, self.shape.on_failure):
            case "start":
                task.state = "scheduled"
                self.going.add(number)
                self.began.append(number)
            case Skip(reason=reason):
                rules.skip(task, reason)
                self.over(number)

    def end(self, number: int, state: str) -> None:
        self.going.discard(number)
        self.tasks[number].end(state)
        self.over(number)
        self.stop()

    def over(self, number: int) -> None:
        rules.note_end(self.run, self.tasks[number], "task")
        for child in self.shape.tasks[number].children:
            if self.tasks[child].state == "blocked":
                trigger = self.shape.tasks[child].trigger
                forgiven = rules.forgives(trigger, self.shape.on_failure)
                rules.hear(self.tasks[child], self.tasks[number], f"t{number}", forgiven=forgiven)
                self.decide(child)

    def stop(self) -> None:
        stop = rules.stop_of(self.run, self.shape.on_failure)
        if stop is None:
            return
        self.run.reason = stop
        for task in self.tasks:
            blocked = task.state == "blocked"
            if blocked and not rules.survives(stop, self.shape.tasks[task.number].trigger):
                task.end("skipped", stop)
                self.over(task.number)

    def play(self, outcomes: list[str], rng: random.Random) -> None:
        while self.going:
            number = rng.choice(sorted(self.going))
            self.end(number, outcomes[number])


def model(parents, triggers, outcomes, policy) -> list[tuple[str, str | None]]:
    """What becomes of each task, worked out from its parents' states alone."""
    found: list[tuple[str, str | None]] = []
    for number, own in enumerate(parents):
        states = [found[p] for p in own]
        failed = [s for s in states if s[0] == "failed" or s[1] == "upstream_failed"]
        good = [s for s in states if s[0] == "succeeded"]
        other = len(states) - len(failed) - len(good)
        fate: tuple[str, str | None] | None = None
        why = ("skipped", "upstream_failed" if failed else "upstream_skipped")
        if own:
            match triggers[number]:
                case "all_succeeded" if failed and policy != "continue":
                    fate = ("skipped", "upstream_failed")
                case "all_succeeded" if other:
                    fate = ("skipped", "upstream_skipped")
                case "none_failed" if failed:
                    fate = why
                case "one_succeeded" if not good:
                    fate = why
                case "one_failed" if not failed:
                    fate = ("skipped", "trigger")
        found.append(fate or (outcomes[number], None))
    return found


@st.composite
def dags(draw):
    size = draw(st.integers(1, 12))
    parents = [
        sorted(draw(st.sets(st.integers(0, n - 1), max_size=4))) if n else [] for n in range(size)
    ]
    triggers = draw(st.lists(st.sampled_from(TRIGGERS), min_size=size, max_size=size))
    outcome = st.sampled_from(("succeeded", "succeeded", "failed", "cancelled"))
    outcomes = draw(st.lists(outcome, min_size=size, max_size=size))
    return parents, triggers, outcomes


@given(dags(), st.sampled_from(("fail_downstream", "continue")), st.randoms(use_true_random=False))
@settings(max_examples=400, deadline=None)
def test_states_are_the_models_in_whatever_order_tasks_end(dag, policy, rng):
    parents, triggers, outcomes = dag
    play = Play(shape_of(parents, triggers, policy))
    play.play(outcomes, rng)
    expected = model(parents, triggers, outcomes, policy)
    assert [(t.state, t.reason) for t in play.tasks] == expected
    assert play.run.open == 0
    assert play.run.failed == sum(state == "failed" for state, _ in expected)
    assert sorted(play.began) == [n for n, (_, why) in enumerate(expected) if why is None]
    for task in play.tasks:
        if task.reason == "upstream_failed":
            cause = play.shape.number_of(task.cause)
            assert play.tasks[cause].state == "failed"
            assert task.number in play.shape.descendants([cause])
        if task.reason == "upstream_skipped" and set(triggers) == {"all_succeeded"}:
            assert play.tasks[play.shape.number_of(task.cause)].state == "cancelled"


@given(dags(), st.randoms(use_true_random=False))
def test_under_continue_a_failure_is_as_good_as_a_success_to_those_behind_it(dag, rng):
    parents, _, outcomes = dag
    shape = shape_of(parents, ["all_succeeded"] * len(parents), "continue")
    ends = []
    for bad in ("failed", "succeeded"):
        play = Play(shape)
        play.play([bad if outcome == "failed" else outcome for outcome in outcomes], rng)
        ends.append([task.state for task in play.tasks])
    failed, well = ends
    assert ["succeeded" if state == "failed" else state for state in failed] == well


@given(dags(), st.randoms(use_true_random=False))
@settings(max_examples=300, deadline=None)
def test_after_the_first_failure_fail_fast_begins_nothing_but_what_is_always_to_run(dag, rng):
    parents, triggers, outcomes = dag
    play = Play(shape_of(parents, triggers, "fail_fast"))
    while play.going:
        failed, before = play.run.failed, len(play.began)
        number = rng.choice(sorted(play.going))
        play.end(number, outcomes[number])
        if failed:
            assert {triggers[n] for n in play.began[before:]} <= {"always"}
    assert play.run.open == 0
    assert all(t.final for t in play.tasks)
    assert rules.outcome_of(play.run) == ("failed" if play.run.failed else "succeeded")


@given(dags(), st.sampled_from(("fail_downstream", "continue")), st.randoms(use_true_random=False))
@settings(max_examples=300, deadline=None)
def test_a_retry_of_what_failed_comes_to_what_a_run_without_the_failures_would(dag, policy, rng):
    parents, triggers, outcomes = dag
    triggers = ["all_succeeded" if t == "one_failed" else t for t in triggers]
    play = Play(shape_of(parents, triggers, policy))
    play.play(outcomes, rng)
    targets = rules.to_reset(play.shape, play.tasks, "failed", downstream=False)
    succeeded = {t.number for t in play.tasks if t.state == "succeeded"}
    assert not targets & succeeded
    rules.reset(play.shape, play.tasks, targets)
    rules.recount(play.run, play.shape, play.tasks)
    began = len(play.began)
    play.look(sorted(targets))
    play.play(["succeeded"] * len(outcomes), rng)
    assert not succeeded & set(play.began[began:])
    assert {t.state for t in play.tasks} == {"succeeded"}
    assert rules.outcome_of(play.run) == "succeeded"


@given(dags(), st.data(), st.randoms(use_true_random=False))
@settings(max_examples=300, deadline=None)
def test_counters_made_anew_are_those_that_were_counted(dag, data, rng):
    """At any moment of a run, a look at what is blocked finds its counters as they stand."""
    parents, triggers, outcomes = dag
    play = Play(shape_of(parents, triggers, "fail_downstream"))
    for _ in range(data.draw(st.integers(0, len(parents)))):
        if play.going:
            number = rng.choice(sorted(play.going))
            play.end(number, outcomes[number])

    def counted(task: Task):
        return task.pending, task.succeeded, task.failed, task.skipped

    blocked = [t.number for t in play.tasks if t.state == "blocked"]
    before = [counted(play.tasks[n]) for n in blocked]
    rules.reset(play.shape, play.tasks, blocked)
    assert [counted(play.tasks[n]) for n in blocked] == before


def test_a_parent_that_could_not_run_for_a_failure_counts_as_failed():
    assert rules.counts_as("skipped", "upstream_failed") == "failed"
    assert rules.counts_as("skipped", "condition") == "skipped"
    assert rules.counts_as("cancelled", None) == "skipped"


def task_of(trigger: str = "all_succeeded", role: str = "task") -> TaskShape:
    spec = DagTaskSpec(task_id="t")
    return TaskShape(number=0, task_id="t", key=0, trigger=trigger, role=role, spec=spec)


@pytest.mark.parametrize(
    ("run", "task", "becomes"),
    [
        (Run(), task_of(), ("failed", "cancelled")),
        (Run(reason="paused: lunch"), task_of(), ("failed", "cancelled")),
        (Run(cancelling=True), task_of(), ("cancelled", "cancelled")),
        (Run(reason="cancelled", cancelling=True), task_of(), ("cancelled", "cancelled")),
        (Run(reason="cancelled", cancelling=True), task_of(role="finally"), ("cancelled",) * 2),
        (Run(reason="fail_fast"), task_of(), ("cancelled", "fail_fast")),
        (Run(reason="fail_fast"), task_of("always"), ("failed", "cancelled")),
        (Run(reason="timeout"), task_of("always"), ("cancelled", "timeout")),
        (Run(reason="timeout"), task_of(role="on_failure"), ("failed", "cancelled")),
    ],
)
def test_a_cancelled_execution_is_a_failure_unless_a_stop_of_the_run_is_why(run, task, becomes):
    assert rules.when_cancelled(run, task, "requested") == becomes
    items = ("skipped", "items") if becomes[0] == "failed" else becomes
    assert rules.when_items_skipped(run, task) == items


def test_an_execution_that_gave_way_to_another_says_so():
    assert rules.when_cancelled(Run(), task_of(), "overlap") == ("failed", "overlap")
    for reason in (None, "retry", "lost"):
        assert rules.when_cancelled(Run(), task_of(), reason) == ("failed", "cancelled")
    assert rules.when_cancelled(Run(cancelling=True), task_of(), "overlap")[1] == "cancelled"
