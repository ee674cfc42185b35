"""Writes a stored job as a job file would have it, so that what is read can be sent back.

`read_job` of what this writes is the same job. A DAG is only told of: it is changed by its file.
"""

from decimal import Decimal
from typing import Any, Final

import msgspec

from protocols.dags import TIMEOUT_S, DagTask, DagTaskSpec
from protocols.durations import format_duration
from protocols.instants import iso
from protocols.jobs import PRIORITIES, CommandTask, HttpTask, JobSpec, PythonTask, Retry, Task
from protocols.schedules import Misfire, Schedule
from protocols.tasks import NoTask

_PLAIN: Final = (
    "pool",
    "overlap",
    "guarantee",
    "on_dependency_failure",
    "checkpoint",
    "description",
    "owner",
    "enabled",
)
_LISTS: Final = ("dependencies", "tags")
_DURATIONS: Final = {
    "timeout_s": "timeout",
    "expires_s": "expires",
    "dependency_timeout_s": "dependency_timeout",
    "heartbeat_s": "heartbeat",
}


def spelled(spec: JobSpec) -> dict[str, Any]:
    """The fields of `spec` that are not their defaults."""
    if isinstance(spec.task, DagTask):
        return _dag(spec, spec.task)
    found: dict[str, Any] = {"job_id": spec.job_id}
    if spec.schedule is not None:
        found["schedule"] = _schedule(spec.schedule)
    found |= _task(spec.task)
    default = JobSpec(job_id=spec.job_id, task=spec.task)
    for field, name in _DURATIONS.items():
        value = getattr(spec, field)
        if value != getattr(default, field):
            found[name] = _duration(value)
    if spec.priority != default.priority:
        found["priority"] = PRIORITIES[spec.priority]
    for name in _PLAIN:
        if getattr(spec, name) != getattr(default, name):
            found[name] = getattr(spec, name)
    for name in _LISTS:
        if getattr(spec, name):
            found[name] = list(getattr(spec, name))
    if spec.concurrency_limit is not None:
        found["concurrency"] = {"limit": spec.concurrency_limit}
    if spec.on:
        found["on"] = [_without_defaults(trigger) for trigger in spec.on]
    return found | _retry(spec.retry)


def _duration(seconds: float) -> str | float:
    """As people write it, where that reads back as the same number."""
    return format_duration(seconds) if seconds == round(seconds, 3) else seconds


def _without_defaults(value: msgspec.Struct) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(value)
    return found


def _task(task: Task) -> dict[str, Any]:
    found: dict[str, Any] = {}
    match task:
        case CommandTask():
            found = {"command": task.shell or list(task.argv or ())}
            found |= {"cwd": task.cwd, "env": task.env}
            if task.success_exit_codes != (0,):
                found["success_exit_codes"] = list(task.success_exit_codes)
        case PythonTask():
            found = {"python": task.target, "args": list(task.args), "kwargs": task.kwargs}
            found["isolation"] = task.isolation
        case HttpTask():
            inner = {"url": task.url, "method": task.method, "headers": task.headers}
            inner |= {"body": task.body, "expect": _without_defaults(task.expect)}
            found = {"http": _filled(inner)}
    return _filled(found)


def _dag(spec: JobSpec, dag: DagTask) -> dict[str, Any]:
    """A DAG as its file has it; what every DAG's own execution is, goes without saying."""
    timeout_s = JobSpec(job_id="", task=NoTask()).timeout_s
    plain = msgspec.structs.replace(
        spec,
        task=NoTask(),
        pool="default",
        retry=msgspec.structs.replace(spec.retry, max_lost=Retry().max_lost),
        timeout_s=timeout_s if spec.timeout_s == TIMEOUT_S else spec.timeout_s,
    )
    found = {**spelled(plain), "dag_id": spec.job_id, "on_failure": dag.on_failure}
    del found["job_id"]
    if dag.inputs is not None:
        found["inputs"] = dag.inputs
    found |= {f"{one.role}_task": one.task_id for one in dag.tasks if one.role != "task"}
    return found | {"tasks": [_dag_task(one) for one in dag.tasks]}


def _dag_task(spec: DagTaskSpec) -> dict[str, Any]:
    """A task of a DAG, without what its hidden job says of it; no file could be made of this."""
    plain = msgspec.structs.replace(spec, task=None)
    found = _without_defaults(plain) | ({} if spec.task is None else _task(spec.task))
    return _filled(found)


def _filled(fields: dict[str, Any]) -> dict[str, Any]:
    """Without what says nothing."""
    return {name: value for name, value in fields.items() if value not in (None, {}, [], ())}


def _retry(retry: Retry) -> dict[str, Any]:
    default = Retry()
    found: dict[str, Any] = {}
    if retry.max_retries != default.max_retries:
        found["max_retries"] = retry.max_retries
    if retry.max_lost != default.max_lost:
        found["max_lost"] = retry.max_lost
    inner: dict[str, Any] = {}
    if retry.backoff != default.backoff:
        inner["backoff"] = retry.backoff
    if retry.base_s != default.base_s:
        inner["base"] = _duration(retry.base_s)
    if retry.max_s != default.max_s:
        inner["max"] = _duration(retry.max_s)
    if retry.jitter != default.jitter:
        inner["jitter"] = retry.jitter
    if retry.retry_on != default.retry_on:
        inner["retry_on"] = list(retry.retry_on)
    return found | ({"retry": inner} if inner else {})


def _schedule(schedule: Schedule) -> dict[str, Any]:
    """Always a mapping: it says of itself all that a text would leave to the job."""
    found: dict[str, Any] = {}
    if schedule.timezone != "UTC":
        found["timezone"] = schedule.timezone
    match schedule.kind:
        case "cron":
            found["cron"] = schedule.text
        case kind:
            # Its text is exact, whatever the number or the instant is.
            found[kind] = schedule.text.partition(" ")[2]
    for bound, instant in (("start", schedule.start), ("end", schedule.end)):
        if instant is not None:
            found[bound] = iso(instant)
    if schedule.jitter_s:
        found["jitter"] = _duration(schedule.jitter_s)
    if schedule.calendars:
        found["calendar"] = list(schedule.calendars)
    if schedule.exclude:
        found["exclude"] = list(schedule.exclude)
    dst = _filled({"gap": schedule.dst_gap, "fold": schedule.dst_fold})
    if dst:
        found["dst"] = dst
    misfire = _misfire(schedule)
    return found | ({"misfire": misfire} if misfire else {})


def _misfire(schedule: Schedule) -> dict[str, Any]:
    default = Misfire(policy="catch_up" if schedule.kind == "at" else "execute_once")
    misfire = schedule.misfire
    found: dict[str, Any] = {}
    if schedule.kind == "after":
        return found
    if misfire.policy != default.policy:
        found["policy"] = misfire.policy
    if misfire.grace_s != default.grace_s:
        found["grace"] = _duration(misfire.grace_s)
    if misfire.within_s is not None:
        found["within"] = _duration(misfire.within_s)
    if misfire.limit != default.limit:
        found["limit"] = misfire.limit
    if misfire.rate_per_s is not None:
        found["rate"] = _rate(misfire.rate_per_s)
    return found


def _rate(per_s: float) -> str:
    """A rate that reads back as the same number."""
    return f"{Decimal(repr(per_s)):f}/s"
