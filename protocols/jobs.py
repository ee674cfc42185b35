"""What a job is, once its file has been read: normalised, immutable, and stored as JSON."""

from typing import Any, Literal

import msgspec

from protocols.dags import DagTask
from protocols.schedules import Calendar, Schedule
from protocols.tasks import (
    CommandTask,
    HttpExpect,
    HttpTask,
    Isolation,
    NoTask,
    PlainTask,
    PythonTask,
)

__all__ = [
    "PRIORITIES",
    "Backoff",
    "CheckpointScope",
    "CommandTask",
    "DagTask",
    "Guarantee",
    "HttpExpect",
    "HttpTask",
    "Isolation",
    "JobSpec",
    "KafkaTrigger",
    "NoTask",
    "OnDependencyFailure",
    "Overlap",
    "PlainTask",
    "PythonTask",
    "Retry",
    "RetryOn",
    "Task",
    "Trigger",
]

Overlap = Literal["skip", "queue", "allow", "cancel_running"]
Guarantee = Literal["at_least_once", "at_most_once"]
Backoff = Literal["exponential", "linear", "fibonacci", "fixed"]
RetryOn = Literal["failed", "timed_out"]
OnDependencyFailure = Literal["skip", "wait", "run"]
CheckpointScope = Literal["execution", "job"]
Task = CommandTask | PythonTask | HttpTask | DagTask | NoTask

PRIORITIES = ("critical", "high", "normal", "low")
"""Most urgent first; a priority's place here is the number it is stored as."""


class Retry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When a failed attempt is tried again; delays in seconds, `jitter` a share of the delay."""

    max_retries: int = 0
    max_lost: int = 5
    backoff: Backoff = "exponential"
    base_s: float = 2.0
    max_s: float = 300.0
    jitter: float = 0.1
    retry_on: tuple[RetryOn, ...] = ("failed", "timed_out")


class KafkaTrigger(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Records of a topic, each of which triggers once.

    `group` is the consumer group that remembers how far the topic was read, None the tenant's own
    for that topic. With `key`, only records with this key count.
    """

    topic: str
    group: str | None = None
    key: str | None = None


class Trigger(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`on:` in a job file; exactly one of `event`, `job` and `kafka` is set.

    `filter` holds for a payload whose value at each dotted path equals the one given here.
    """

    event: str | None = None
    job: str | None = None
    kafka: KafkaTrigger | None = None
    state: Literal["succeeded", "dead", "cancelled", "skipped"] = "succeeded"
    filter: dict[str, Any] = {}


class JobSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One version of a job's definition; durations in seconds."""

    tenant: str = "default"
    job_id: str
    task: Task
    schedule: Schedule | None = None
    calendars: dict[str, Calendar] = {}
    """The named calendars of `schedule`, as they stood when this version came into force."""
    timeout_s: float = 3600.0
    retry: Retry = Retry()
    priority: int = 2
    pool: str = "default"
    overlap: Overlap = "skip"
    expires_s: float | None = None
    concurrency_limit: int | None = None
    guarantee: Guarantee = "at_least_once"
    dependencies: tuple[str, ...] = ()
    on_dependency_failure: OnDependencyFailure = "skip"
    dependency_timeout_s: float | None = None
    on: tuple[Trigger, ...] = ()
    heartbeat_s: float | None = None
    checkpoint: CheckpointScope = "execution"
    tags: tuple[str, ...] = ()
    description: str = ""
    owner: str = ""
    enabled: bool = True
