"""What users read: the shapes of lists and answers that scripts rely on, as JSON has them.

Instants are text (ISO-8601, UTC, microseconds), durations seconds, results and inputs the JSON
value itself. Fields are added, never renamed.
"""

from typing import Any, Generic, TypeVar

import msgspec

from protocols.jobs import JobSpec

Item = TypeVar("Item")


class Page(msgspec.Struct, Generic[Item], frozen=True):
    """A part of a list, newest first; `next` is the cursor of what follows, if anything does."""

    items: tuple[Item, ...]
    next: str | None = None


# --- executions -----------------------------------------------------------------------------


class AttemptView(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt of an execution; `state` is `running` while it runs."""

    attempt: int
    run: int
    state: str
    reason: str | None
    fencing_token: int | None
    node: str | None
    started_at: str | None
    finished_at: str | None
    duration_s: float | None
    exit_code: int | None
    error: str | None


class ExecutionView(msgspec.Struct, frozen=True, kw_only=True):
    """An execution; where it stands for a run of skipped instants, `instants` is above 1.

    `state` is `ready` for one that is scheduled and whose `run_at` has passed.
    """

    execution_id: str
    tenant: str
    job_id: str
    dag_run_id: str | None = None
    task_id: str | None = None
    scheduled_for: str
    state: str
    reason: str | None
    run: int
    attempt: int
    fencing_token: int | None
    priority: str
    pool: str
    node: str | None
    created_at: str
    run_at: str | None
    started_at: str | None
    finished_at: str | None
    duration_s: float | None
    exit_code: int | None
    error: str | None
    result: Any
    version: int
    cancel_requested: bool = False
    last_scheduled_for: str | None = None
    instants: int = 1


class ExecutionDetail(ExecutionView, frozen=True, kw_only=True):
    """An execution with what it was given and every attempt at it, first one first."""

    input: Any
    attempts: tuple[AttemptView, ...]


class DeadLetterView(ExecutionView, frozen=True, kw_only=True):
    """An execution that ended dead and that nobody has put away."""

    dead_at: str


class LogView(msgspec.Struct, frozen=True, kw_only=True):
    """What an attempt printed: the first and the last part, and how much lies between."""

    attempt: int
    head: str
    omitted_bytes: int
    tail: str


# --- jobs -----------------------------------------------------------------------------------


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job as lists show it; `last_state` is of its newest execution that runs or has ended."""

    tenant: str
    job_id: str
    schedule: str | None
    timezone: str | None
    enabled: bool
    paused: bool
    paused_reason: str | None
    next_fire_at: str | None
    last_state: str | None
    tags: tuple[str, ...]
    source: str
    version: int


class JobDetail(JobView, frozen=True, kw_only=True):
    """A job with the version in force; `version` is its ETag."""

    spec: JobSpec
    in_force_at: str
    created_at: str
    updated_at: str
    dependents: tuple[str, ...]


class FieldChange(msgspec.Struct, frozen=True):
    """One field that differs, by its dotted path; `old` or `new` is null where it is absent."""

    path: str
    old: Any
    new: Any


class JobChange(msgspec.Struct, frozen=True):
    """What an apply changes in one job."""

    job_id: str
    fields: tuple[FieldChange, ...]


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What an apply did, or with `--dry-run` would do: job ids, sorted."""

    created: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    changes: tuple[JobChange, ...] = ()
    """Field by field, of what is updated: the first thousand jobs by id."""
    calendars: tuple[str, ...] = ()
    """Calendars that were added, changed or removed."""


# --- answers of commands --------------------------------------------------------------------


class Cancelled(msgspec.Struct, frozen=True, kw_only=True):
    """A cancelled execution, or one whose node was asked to stop it: then `asked` says where."""

    execution: ExecutionView
    job_key: int
    asked: tuple[int, int, int] | None = None
    """(incarnation, execution's key, fencing token) of the attempt to stop."""


class Reopened(msgspec.Struct, frozen=True, kw_only=True):
    """Executions that run again, by public id; `more`: the chunk was full, ask again."""

    execution_ids: tuple[str, ...]
    pools: tuple[str, ...]
    more: bool = False


class Discarded(msgspec.Struct, frozen=True):
    """Dead letters that were put away."""

    execution_ids: tuple[str, ...]
    more: bool = False


class LeftInstant(msgspec.Struct, frozen=True):
    """An instant that a backfill leaves alone, since its execution is in `state`.

    `undecided`: it is due, and the timer has not come to it yet.
    """

    scheduled_for: str
    state: str


class FilledInstant(msgspec.Struct, frozen=True):
    """An instant that a backfill runs; without an id in a dry run."""

    scheduled_for: str
    execution_id: str | None = None


class Backfilled(msgspec.Struct, frozen=True, kw_only=True):
    """What a backfill made, re-opened and left alone; `continue_from` where it met its limit."""

    created: tuple[FilledInstant, ...] = ()
    reopened: tuple[FilledInstant, ...] = ()
    left: tuple[LeftInstant, ...] = ()
    pools: tuple[str, ...] = ()
    continue_from: str | None = None


# --- the house ------------------------------------------------------------------------------


class NodePoolView(msgspec.Struct, frozen=True):
    """What a node's pool can hold, and holds."""

    slots: int
    running: int = 0


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    """A node: the newest incarnation of its name."""

    name: str
    incarnation: int
    state: str
    url: str
    pid: int
    host: str
    version: str
    started_at: str
    last_beat_at: str
    leads: tuple[int, ...]
    epochs: dict[str, int]
    pools: dict[str, NodePoolView]
    clock_offset_s: float


class LockView(msgspec.Struct, frozen=True, kw_only=True):
    """A lock that an attempt holds; whose is told while the attempt runs."""

    tenant: str
    name: str
    token: int
    execution_id: str | None
    job_id: str | None
    attempt: int | None
    fencing_token: int
    node: str | None
    ttl_s: float
    taken_at: str
    expires_at: str


class AuditView(msgspec.Struct, frozen=True, kw_only=True):
    """Who changed what, and when."""

    number: int
    at: str
    tenant: str
    who: str
    action: str
    target: str
    detail: dict[str, Any]


class LeadershipView(msgspec.Struct, frozen=True):
    """A leadership, by which epoch it is held, and by whom."""

    number: int
    epoch: int
    incarnation: int | None
    taken_at: str | None


class StatsView(msgspec.Struct, frozen=True, kw_only=True):
    """Figures for metrics and the doctor; none takes a scan of what is final."""

    executions: dict[str, int]
    """Not final ones by state, each counted up to `counted_to`."""
    counted_to: int
    history_estimate: int
    jobs_estimate: int
    oldest_ready_s: dict[str, float]
    """By pool: how long the row that has been ready longest has waited."""
    paused: bool
    paused_reason: str | None
    leaderships: tuple[LeadershipView, ...]
