"""Reads one job, from a file or from a request: the same fields, rules and words for both."""

from collections.abc import Mapping
from typing import Any, Final

from actors.timer.cron import CronError, compile_cron
from protocols.errors import Problem
from protocols.jobs import PRIORITIES, Guarantee, JobSpec, Retry
from protocols.schedule_text import parse_schedule
from protocols.schedules import Calendar, Schedule
from runtime.files.fields import (
    Fields,
    choice,
    distinct,
    filled,
    flag,
    job_name,
    list_of,
    name,
    seconds,
    share,
    short,
    text,
    whole,
)
from runtime.files.places import Path
from runtime.files.tasks import read_task
from runtime.files.triggers import read_triggers

DEPENDENCIES_MAX: Final = 1000
_LATER: Final = {
    "rate": "a rate limit",
    "resources": "a resource cost",
    "breaker": "a circuit breaker",
    "downstream": "a circuit breaker",
    "partitions": "partitioned work",
    "run_on": "choosing nodes",
    "must_finish_by": "an SLA",
    "expected_duration": "an SLA",
}
_RETRY_WORDS: Final = {"failed": "failed", "timed_out": "timed_out", "timeout": "timed_out"}


def read_job(
    raw: object,
    path: Path,
    problems: list[Problem],
    *,
    tenant: str,
    defaults: Mapping[str, Any],
    calendars: Mapping[str, Calendar],
) -> JobSpec | None:
    """The job that `raw` describes; None, and problems, where it is wrong.

    `calendars` are those of its file, by name; one that is not there is looked for when the job
    is applied.
    """
    before = len(problems)
    merged = {**defaults, **raw} if isinstance(raw, Mapping) else raw
    fields = Fields(merged, path, problems, what="a job: a mapping of fields")
    job_id = fields.take("job_id", job_name, "")
    if not job_id and "job_id" not in fields and isinstance(raw, Mapping):
        fields.refuse((), "a job needs its job_id")
    task = read_task(fields)
    schedule, due = read_due(fields)
    if job_id in due["dependencies"]:
        fields.refuse(("dependencies",), f"{job_id} depends on itself")
    values = due | read_shared(fields) | read_running(fields)
    close(fields)
    if len(problems) > before or task is None:
        return None
    return JobSpec(
        tenant=tenant,
        job_id=job_id,
        task=task,
        schedule=schedule,
        calendars=named_calendars(schedule, calendars),
        **values,
    )


def read_due(fields: Fields) -> tuple[Schedule | None, dict[str, Any]]:
    """When a job, or a DAG, is due, and what it waits for."""
    schedule = _schedule(fields)
    return schedule, {
        "dependencies": fields.take("dependencies", _dependencies, ()),
        "overlap": fields.take(
            "overlap", choice("skip", "queue", "allow", "cancel_running"), "skip"
        ),
        "on_dependency_failure": fields.take(
            "on_dependency_failure", choice("skip", "wait", "run"), "skip"
        ),
        "dependency_timeout_s": fields.take("dependency_timeout", seconds, None),
        "on": read_triggers(fields),
        "enabled": fields.take("enabled", flag, default=True),
    }


def read_shared(fields: Fields) -> dict[str, Any]:
    """What a job, a DAG and a task of a DAG have in common."""
    return {
        "priority": fields.take("priority", _priority, PRIORITIES.index("normal")),
        "expires_s": fields.take("expires", seconds, None),
        "concurrency_limit": _concurrency(fields),
        "tags": fields.take("tags", lambda v: distinct(list_of(short, most=100)(v)), ()),
        "description": fields.take("description", text, ""),
        "owner": fields.take("owner", short, ""),
    }


def read_running(fields: Fields) -> dict[str, Any]:
    """What holds for the executions of a job, or of a task, once a worker has them."""
    guarantee: Guarantee = fields.take(
        "guarantee", choice("at_least_once", "at_most_once"), "at_least_once"
    )
    retry = _retry(fields)
    if guarantee == "at_most_once" and retry.max_retries > 0:
        fields.refuse(("max_retries",), "a job that runs at most once has no retries")
    return {
        "guarantee": guarantee,
        "retry": retry,
        "timeout_s": fields.take("timeout", seconds, 3600.0),
        "pool": fields.take("pool", name, "default"),
        "heartbeat_s": fields.take("heartbeat", seconds, None),
        "checkpoint": fields.take("checkpoint", choice("execution", "job"), "execution"),
    }


def close(fields: Fields) -> None:
    """Refuse what is not built, and what nobody knows."""
    for field, why in _LATER.items():
        fields.later(field, why)
    fields.close()


def named_calendars(
    schedule: Schedule | None, calendars: Mapping[str, Calendar]
) -> dict[str, Calendar]:
    """Those of these calendars that a schedule names."""
    named = schedule.calendars if schedule is not None else ()
    return {key: calendars[key] for key in named if key in calendars}


def _schedule(fields: Fields) -> Schedule | None:
    timezone = fields.take("timezone", filled, "UTC")
    path = (*fields.path, "schedule")
    schedule: Schedule | None = fields.take(
        "schedule", lambda value: parse_schedule(value, timezone=timezone, path=path), None
    )
    if schedule is None or schedule.cron is None:
        return schedule
    try:
        compile_cron(schedule.cron)
    except CronError as error:
        fields.refuse(("schedule",), str(error))
        return None
    return schedule


def _retry(fields: Fields) -> Retry:
    default = Retry()
    retries = fields.take("max_retries", whole(0, 10_000), 0)
    lost = fields.take("max_lost", whole(0, 10_000), default.max_lost)
    raw = fields.raw("retry")
    if raw is None:
        return Retry(max_retries=retries, max_lost=lost)
    inner = Fields(
        raw,
        (*fields.path, "retry"),
        fields.problems,
        what="{backoff, base, max, jitter, retry_on}",
    )
    retry = Retry(
        max_retries=retries,
        max_lost=lost,
        backoff=inner.take(
            "backoff", choice("exponential", "linear", "fibonacci", "fixed"), default.backoff
        ),
        base_s=inner.take("base", seconds, default.base_s),
        max_s=inner.take("max", seconds, default.max_s),
        jitter=inner.take("jitter", share, default.jitter),
        retry_on=inner.take("retry_on", _retry_on, default.retry_on),
    )
    inner.close()
    return retry


def _retry_on(value: object) -> Any:
    words = [value] if isinstance(value, str) else value
    found = list_of(choice(*_RETRY_WORDS), most=10)(words)
    return distinct(tuple(_RETRY_WORDS[word] for word in found))


def _priority(value: object) -> int:
    word = "normal" if value == "medium" else value
    found: str = choice(*PRIORITIES)(word)
    return PRIORITIES.index(found)


def _dependencies(value: object) -> tuple[str, ...]:
    return distinct(list_of(job_name, most=DEPENDENCIES_MAX)(value))


def _concurrency(fields: Fields) -> int | None:
    raw = fields.raw("concurrency")
    if raw is None:
        return None
    inner = Fields(raw, (*fields.path, "concurrency"), fields.problems, what="{limit: N}")
    limit = inner.take("limit", whole(1, 100_000), None)
    inner.later("key", "a limit by key")
    inner.close()
    if limit is None and "limit" not in inner:
        inner.refuse((), "a concurrency needs its limit")
    return limit
