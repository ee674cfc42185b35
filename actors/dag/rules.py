"""The rules of a run's progress, pure: what follows when a task ends, and how a run ends.

A task is decided by counters over its parents. A parent counts as `failed` where it failed or was
`skipped: upstream_failed`, since what it stood for did not come about because of a failure; as
`skipped` where it was skipped otherwise, or cancelled with its run. A failure that settles a
child's fate does so at once; a skip is waited out, so that what the child becomes does not hang on
who was first.

| trigger | starts | is skipped |
|---|---|---|
| all_succeeded | all parents succeeded | one failed: at once; one skipped: when all are over |
| all_done, always | all are over | never; nor does `fail_fast` stop an `always` |
| one_succeeded | one succeeded: at once | all are over, and none did |
| one_failed | one failed: at once | all are over, and none did |
| none_failed | all are over, none failed | one failed: at once |

Under `on_failure: continue` a failed parent counts as one that succeeded, for `all_succeeded`: one
that is skipped all the same is so for the sake of a parent that was skipped.
A task without parents starts at once, whatever its trigger.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

import msgspec

from actors.dag.shape import Shape, TaskShape
from protocols.dags import FINAL_TASK, OnFailure, RunState, TaskRole, TaskState, TaskTrigger

UPSTREAM_FAILED: Final = "upstream_failed"
UPSTREAM_SKIPPED: Final = "upstream_skipped"
UNTRIGGERED: Final = "trigger"
CONDITION: Final = "condition"
FAIL_FAST: Final = "fail_fast"
CANCELLED: Final = "cancelled"
"""Of a run, and of what it stopped; of a task that failed: somebody cancelled its execution."""
GAVE_WAY: Final = ("overlap", "deleted")
"""Of an execution that was cancelled in its queue: for a newer one of its job, or with its job."""
AGAIN: Final = "cancelled again"
"""Of a run, until its handlers have been stopped."""
TIMEOUT: Final = "timeout"
MARKED: Final = "marked"
ITEMS: Final = "items"
"""Of a mapped task: its items say why."""
INPUT: Final = "input"
"""Of a run that nothing may begin in: its DAG does not take what it was given."""

Stop = Literal["fail_fast", "cancelled", "timeout"]
"""Why a run begins nothing more: its policy, a person, its deadline."""
STOPS: Final = (FAIL_FAST, CANCELLED, TIMEOUT)
Count = Literal["succeeded", "failed", "skipped"]


class Task(msgspec.Struct, kw_only=True):
    """A task's row, as far as rules look at it or change it."""

    number: int
    state: TaskState = "blocked"
    reason: str | None = None
    cause: str | None = None
    """Of one that is blocked: the failure, or else the skip, that it heard of first."""
    pending: int = 0
    succeeded: int = 0
    failed: int = 0
    skipped: int = 0

    @property
    def final(self) -> bool:
        """Whether it is over."""
        return self.state in FINAL_TASK

    def end(self, state: TaskState, reason: str | None = None, cause: str | None = None) -> None:
        """Be over."""
        self.state, self.reason, self.cause = state, reason, cause


class Run(msgspec.Struct, kw_only=True):
    """A run's row, as far as rules look at it or change it; `open` counts no handlers."""

    state: RunState = "running"
    reason: str | None = None
    open: int = 0
    failed: int = 0
    handlers: Literal["none", "running", "done"] = "none"
    cancelling: bool = False


class Skip(msgspec.Struct, frozen=True):
    """A task is not to run."""

    reason: str


Verdict = Literal["start"] | Skip | None
"""None: not decided yet."""


def counts_as(state: TaskState, reason: str | None) -> Count:
    """How a parent, or an item, that is over counts."""
    if state == "succeeded":
        return "succeeded"
    if state == "failed" or (state == "skipped" and reason == UPSTREAM_FAILED):
        return "failed"
    return "skipped"


def forgives(trigger: TaskTrigger, policy: OnFailure) -> bool:
    """Whether a failed parent is as good as one that succeeded."""
    return trigger == "all_succeeded" and policy == "continue"


def hear(child: Task, parent: Task, parent_id: str, *, forgiven: bool = False) -> None:
    """Count a parent that is over into its child; the first failure is remembered as the cause.

    `forgiven`: the child `forgives` failures, so that none is its cause.
    """
    how = counts_as(parent.state, parent.reason)
    named = how == "skipped" or (how == "failed" and not forgiven)
    if named and (child.cause is None or (how == "failed" and not child.failed)):
        child.cause = parent.cause or parent_id
    child.pending -= 1
    if how == "succeeded":
        child.succeeded += 1
    elif how == "failed":
        child.failed += 1
    else:
        child.skipped += 1


def decide(trigger: TaskTrigger, task: Task, policy: OnFailure) -> Verdict:
    """What its counters say of a blocked task."""
    over = task.pending <= 0
    if over and not (task.succeeded or task.failed or task.skipped):
        return "start"  # it has no parents
    verdict = _at_once(trigger, task, policy)
    if verdict is not None or not over:
        return verdict
    met = trigger in ("all_done", "always", "none_failed")
    if met or (trigger == "all_succeeded" and not task.skipped):
        return "start"
    if trigger == "one_failed":
        return Skip(UNTRIGGERED)
    failed = task.failed and not forgives(trigger, policy)
    return Skip(UPSTREAM_FAILED if failed else UPSTREAM_SKIPPED)


def _at_once(trigger: TaskTrigger, task: Task, policy: OnFailure) -> Verdict:
    """What needs no parent more to be decided."""
    if (trigger == "one_succeeded" and task.succeeded) or (trigger == "one_failed" and task.failed):
        return "start"
    strict = trigger in ("none_failed", "all_succeeded") and not forgives(trigger, policy)
    return Skip(UPSTREAM_FAILED) if strict and task.failed else None


def handlers_to_stop(run: Run, shape: Shape, tasks: Iterable[Task], stop: Stop) -> set[int]:
    """The handlers that a stop ends: a first cancel what runs but `finally`, a second one all."""
    if stop != "cancelled" or run.handlers != "running":
        return set()
    handlers = [t for t in tasks if shape.tasks[t.number].role != "task" and not t.final]
    if run.reason != AGAIN:
        handlers = [
            t for t in handlers if t.state != "blocked" and shape.tasks[t.number].role != "finally"
        ]
    return {task.number for task in handlers}


def skip(task: Task, reason: str) -> None:
    """End a task that is not to run; the cause is kept where the reason lies upstream."""
    upstream = reason in (UPSTREAM_FAILED, UPSTREAM_SKIPPED)
    task.end("skipped", reason, task.cause if upstream else None)


def note_end(run: Run, task: Task, role: TaskRole) -> None:
    """Count a task that has just come to an end in its run's books."""
    if role == "task":
        run.open -= 1
    if task.state == "failed":
        run.failed += 1


def stop_of(run: Run, policy: OnFailure) -> Stop | None:
    """Why this run is to be stopped now, if it is; None where that was done."""
    if run.cancelling and run.reason != CANCELLED:
        return "cancelled"
    if run.failed and policy == "fail_fast" and run.reason not in STOPS and run.open:
        return "fail_fast"
    return None


def survives(stop: Stop, trigger: TaskTrigger) -> bool:
    """Whether a task is left to run when its run is stopped."""
    return stop == "fail_fast" and trigger == "always"


def stopped_by(run: Run, task: TaskShape) -> Stop | None:
    """The stop of its run that a task is under, if it is; some a stop leaves alone."""
    if run.cancelling:
        return CANCELLED
    if task.role != "task":
        return None
    for stop in (FAIL_FAST, TIMEOUT):
        if run.reason == stop and not survives(stop, task.trigger):
            return stop
    return None


def when_cancelled(run: Run, task: TaskShape, reason: str | None) -> tuple[TaskState, str]:
    """What becomes of a task whose execution was cancelled, for this reason; and why.

    Where it is under no stop of its run, that one execution was cancelled, by a person or as
    `GAVE_WAY` says: what the task stood for did not come about, which is a failure.
    """
    stop = stopped_by(run, task)
    if stop is not None:
        return "cancelled", stop
    return "failed", reason if reason in GAVE_WAY else CANCELLED


def when_items_skipped(run: Run, task: TaskShape) -> tuple[TaskState, str]:
    """What becomes of a mapped task none of whose items failed, and some were skipped; and why."""
    stop = stopped_by(run, task)
    return ("skipped", ITEMS) if stop is None else ("cancelled", stop)


def handlers_due(
    run: Run, shape: Shape, handlers: Mapping[int, Task]
) -> tuple[list[int], list[int], bool]:
    """What handlers follow now that no task is open: to start, to skip, and whether all are over.

    First that of the run's outcome, then `finally`. A cancelled run has only its `finally`.
    """
    outcome = outcome_of(run)
    wanted = {"succeeded": "on_success", "failed": "on_failure"}.get(outcome)
    starts: list[int] = []
    skips: list[int] = []
    under_way = False
    for number in shape.handlers:
        task, role = handlers[number], shape.tasks[number].role
        if task.final:
            continue
        if task.state != "blocked":
            under_way = True
        elif role == "finally":
            continue
        elif role == wanted:
            starts.append(number)
        else:
            skips.append(number)
    last = [
        n
        for n in shape.handlers
        if shape.tasks[n].role == "finally" and handlers[n].state == "blocked"
    ]
    if last and not under_way and not starts:
        starts += last
    return starts, skips, not (under_way or starts)


def outcome_of(run: Run) -> RunState:
    """How a run ends whose tasks are all over."""
    if run.cancelling:
        return "cancelled"
    return "failed" if run.failed or run.reason in (TIMEOUT, FAIL_FAST) else "succeeded"


def to_reset(
    shape: Shape,
    tasks: Sequence[Task],
    targets: Iterable[int] | Literal["failed"],
    *,
    downstream: bool,
) -> set[int]:
    """The tasks that a retry puts back to `blocked`, handlers among them.

    `failed`: what failed, was cancelled, or was skipped since its run was stopped. With each goes
    all after it that has not succeeded; with `downstream` what succeeded goes too.
    """
    if targets == "failed":
        roots = {
            t.number
            for t in tasks
            if shape.tasks[t.number].role == "task"
            and (t.state in ("failed", "cancelled") or (t.state == "skipped" and t.reason in STOPS))
        }
    else:
        roots = set(targets)
    found = set(roots)
    for number in shape.descendants(roots):
        task = tasks[number]
        if task.state == "blocked" or (task.final and (downstream or task.state != "succeeded")):
            found.add(number)
    return found | set(shape.handlers)


def has_stopped(shape: Shape, tasks: Sequence[Task]) -> bool:
    """Whether a stop of the run is why one of its tasks has not run to its end."""
    return any(
        task.state in ("skipped", "cancelled") and task.reason in STOPS
        for task in tasks
        if shape.tasks[task.number].role == "task"
    )


def behind_mark(
    shape: Shape, tasks: Sequence[Task], number: int, *, stopped: bool = False
) -> set[int]:
    """The tasks to decide anew once this one was marked: what it held up, or had skipped.

    `stopped`: the run is being stopped, so that what was skipped stays skipped.
    """
    found: set[int] = set()
    left = [number]
    while left:
        for child in shape.tasks[left.pop()].children:
            task = tasks[child]
            undone = (
                not stopped
                and task.state == "skipped"
                and task.reason in (UPSTREAM_FAILED, UPSTREAM_SKIPPED, UNTRIGGERED)
            )
            if child not in found and (undone or task.state == "blocked"):
                found.add(child)
                left.append(child)
    return found


def reset(shape: Shape, tasks: Sequence[Task], numbers: Iterable[int]) -> None:
    """Put tasks back to `blocked`, their counters made anew from their parents' states."""
    chosen = sorted(numbers)
    for number in chosen:
        task = tasks[number]
        task.end("blocked")
        task.succeeded = task.failed = task.skipped = 0
        task.pending = len(shape.tasks[number].parents)
    for number in chosen:
        forgiven = forgives(shape.tasks[number].trigger, shape.on_failure)
        for parent in shape.tasks[number].parents:
            if tasks[parent].final:
                name = shape.tasks[parent].task_id
                hear(tasks[number], tasks[parent], name, forgiven=forgiven)


def recount(run: Run, shape: Shape, tasks: Sequence[Task]) -> None:
    """Make a run that goes on again of one whose tasks were put back."""
    run.open = sum(not t.final for t in tasks if shape.tasks[t.number].role == "task")
    run.failed = sum(t.state == "failed" for t in tasks)
    run.state, run.reason, run.handlers, run.cancelling = "running", None, "none", False
