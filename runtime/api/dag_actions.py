"""What is done with a run of a DAG: cancelled, paused, tried again, marked, sent a signal."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Any, Final, Literal

import msgspec
from litestar import Response, post
from litestar.params import FromPath

from protocols.dag_views import RunControlled
from protocols.dags import POOL
from protocols.messages import Hint, Ready, TasksEnded
from runtime.api.asked import Asked, Given, told
from runtime.api.job_actions import Pausing
from runtime.api.problems import wrong
from runtime.files.fields import NAME
from runtime.postgres.operations.dag_controls import (
    cancel_run,
    mark_task,
    pause_run,
    resume_run,
    retry_tasks,
    send_signal,
)
from runtime.postgres.operations.session import Connection

PAYLOAD_BYTES_MAX: Final = 64 * 1024
TASKS_MAX: Final = 10_000
_MOVED: Final[tuple[Hint, ...]] = (TasksEnded(),)
_REOPENED: Final[tuple[Hint, ...]] = (TasksEnded(), Ready(POOL))


class RetryTasks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which tasks: these, or (the default) all that failed; with all that comes after them."""

    tasks: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=TASKS_MAX)] | None = (
        None
    )
    failed: bool = False
    downstream: bool = False
    """Also what succeeded after them is run again."""


class MarkTask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which state a task is to be in, and why; one that is to have succeeded may have a result."""

    task: str
    state: Literal["succeeded", "skipped"]
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
    result: Any = None


class SendSignal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A signal by its name, with any JSON value."""

    name: str
    payload: Any = None


@post("/dags/runs/{run_id:str}/cancel", status_code=200)
async def cancel(asked: Given, run_id: FromPath[str]) -> Response[RunControlled]:
    """Cancel a run; its `finally` runs all the same. One more, at its handlers, ends that, too."""
    body = await asked.empty_body()
    return await _controlled(asked, "cancel", run_id, body, cancel_run)


@post("/dags/runs/{run_id:str}/pause", opt={"body": Pausing}, status_code=200)
async def pause(asked: Given, run_id: FromPath[str]) -> Response[RunControlled]:
    """Let nothing more of a run begin; what runs goes on."""
    body = await asked.body(Pausing)
    pausing = partial(pause_run, reason=body.reason)
    return await _controlled(asked, "pause", run_id, body, pausing)


@post("/dags/runs/{run_id:str}/resume", status_code=200)
async def resume(asked: Given, run_id: FromPath[str]) -> Response[RunControlled]:
    """Let a paused run go on."""
    body = await asked.empty_body()
    return await _controlled(asked, "resume", run_id, body, resume_run)


@post("/dags/runs/{run_id:str}/retry", opt={"body": RetryTasks}, status_code=200)
async def retry(asked: Given, run_id: FromPath[str]) -> Response[RunControlled]:
    """Run tasks of a run again, without what succeeded elsewhere."""
    body = await asked.body(RetryTasks)
    if body.failed and body.tasks is not None:
        raise wrong("failed", "give `tasks`, or `failed: true`, not both")
    retrying = partial(
        retry_tasks,
        tasks="failed" if body.tasks is None else body.tasks,
        downstream=body.downstream,
    )
    return await _controlled(asked, "retry", run_id, body, retrying, hints=_REOPENED)


@post("/dags/runs/{run_id:str}/mark", opt={"body": MarkTask}, status_code=200)
async def mark(asked: Given, run_id: FromPath[str]) -> Response[RunControlled]:
    """Set a task's state by hand; what hung on it is decided anew."""
    body = await asked.body(MarkTask)
    if body.result is not None and body.state != "succeeded":
        raise wrong("result", "only a task that has succeeded has a result")
    marking = partial(
        mark_task,
        task=body.task,
        state=body.state,
        reason=body.reason,
        result=_bounded(body.result, "result"),
    )
    return await _controlled(asked, "mark", run_id, body, marking, hints=_REOPENED)


@post("/dags/runs/{run_id:str}/signal", opt={"body": SendSignal}, status_code=200)
async def signal(asked: Given, run_id: FromPath[str]) -> Response[RunControlled]:
    """Send a run a signal; under each name one."""
    body = await asked.body(SendSignal)
    if not NAME.fullmatch(body.name):
        raise wrong("name", "a signal's name is a letter or digit, then up to 199 of those or ._-")
    payload = _bounded(body.payload, "payload")
    sending = partial(send_signal, name=body.name, payload=payload)
    return await _controlled(asked, "signal", run_id, body, sending)


async def _controlled(
    asked: Asked,
    verb: str,
    run_id: str,
    body: object,
    change: Callable[..., Awaitable[RunControlled]],
    *,
    hints: tuple[Hint, ...] = _MOVED,
) -> Response[RunControlled]:
    """Change a run once, in its tenant, by whoever asks."""

    async def work(conn: Connection) -> tuple[RunControlled, tuple[Hint, ...]]:
        done = await change(conn, tenant=asked.tenant, run=run_id, who=asked.who, now=asked.now)
        return done, hints

    return told(RunControlled, await asked.once(f"{verb} run {run_id}", body, work))


def _bounded(value: Any, name: str) -> bytes | None:
    if value is None:
        return None
    text = msgspec.json.encode(value)
    if len(text) > PAYLOAD_BYTES_MAX:
        raise wrong(name, f"this has at most {PAYLOAD_BYTES_MAX:,} bytes as JSON")
    return text


ROUTES: Final = [cancel, pause, resume, retry, mark, signal]
