"""What is done with a job: it is triggered, paused, resumed, backfilled, asked when it is due."""

import hashlib
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath

from protocols.dags import POOL
from protocols.executions import INPUT_BYTES_MAX
from protocols.ids import execution_id
from protocols.messages import Hint, JobsFinished, Ready, SchedulesChanged
from protocols.ports.store import Triggered, TriggerRequest
from protocols.views import Backfilled, ExecutionDetail, JobView, Page
from runtime.api.asked import (
    Asked,
    Given,
    made,
    read_instant,
    read_seconds,
    shown_as,
    told,
)
from runtime.api.problems import wrong
from runtime.postgres.operations.audit import record
from runtime.postgres.operations.backfill import LIMIT_MAX, backfill
from runtime.postgres.operations.dag_inputs import check_run_input
from runtime.postgres.operations.executions import show_execution
from runtime.postgres.operations.idempotency import KEY_LENGTH_MAX
from runtime.postgres.operations.next_fires import COUNT_MAX, next_fires
from runtime.postgres.operations.pause import pause_job, resume_job
from runtime.postgres.operations.session import Connection
from runtime.postgres.trigger import trigger


class TriggerJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Run a job once: now, `at` an instant (ISO-8601 with its offset), or `in` a duration."""

    input: Any = None
    at: str | None = None
    in_: str | float | None = msgspec.field(name="in", default=None)
    key: Annotated[str, msgspec.Meta(max_length=KEY_LENGTH_MAX)] | None = None
    """An idempotency key, as the header `Idempotency-Key`."""
    with_dependencies: bool = False


class BackfillJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Run the instants from `from` to `to`, both included, at most `limit` of them."""

    from_: str = msgspec.field(name="from")
    to: str
    limit: Annotated[int, msgspec.Meta(ge=1, le=LIMIT_MAX)] = 1000
    parallel: Annotated[int, msgspec.Meta(ge=1, le=LIMIT_MAX)] | None = None
    """At most so many of them at once; without it, as `overlap` has it."""
    dry_run: bool = False


class Pausing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why, for those who look at it later."""

    reason: Annotated[str, msgspec.Meta(max_length=1000)] | None = None


class Upcoming(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many instants, and after which."""

    count: Annotated[int, msgspec.Meta(ge=1, le=COUNT_MAX)] = 5
    after: str | None = None


@post("/jobs/{job_id:str}/trigger", opt={"body": TriggerJob})
async def trigger_(asked: Given, job_id: FromPath[str]) -> Response[ExecutionDetail]:
    """Run a job once; 201 with the execution, 200 with the one that the key stands for."""
    body = await asked.body(TriggerJob)
    given = _input(body)
    key = _key(asked, body)
    # What is meant by `in` moves with the clock; what was asked is what a key stands for.
    plain = (job_id, body.input, body.at, body.in_, body.with_dependencies)
    request = TriggerRequest(
        tenant=asked.tenant,
        job_id=job_id,
        input=given,
        run_at=_run_at(asked, body),
        with_dependencies=body.with_dependencies,
        key=key,
        body_hash=hashlib.sha256(msgspec.json.encode(plain, order="deterministic")).digest(),
    )

    async def work(conn: Connection) -> tuple[ExecutionDetail, Triggered]:
        (answer,) = await trigger(conn, [request], now=asked.now)
        if not isinstance(answer, Triggered):
            raise answer
        name = execution_id(answer.id, answer.created_at)
        if not answer.known:
            await record(
                conn,
                tenant=asked.tenant,
                who=asked.who,
                action="trigger",
                target=job_id,
                detail={"execution_id": name},
                now=asked.now,
            )
        shown = await show_execution(conn, tenant=asked.tenant, execution=name, now=asked.now)
        if answer.pool == POOL:
            await check_run_input(
                conn,
                tenant=asked.tenant,
                job_key=answer.job_key,
                version=shown.version,
                execution=answer.id,
                given=body.input,
            )
            shown = await show_execution(conn, tenant=asked.tenant, execution=name, now=asked.now)
        return shown, answer

    execution, answer = await asked.do(work, kept_plans=True)
    if answer.state == "blocked":
        asked.hint(JobsFinished((answer.job_key,)))
    elif answer.pool is not None:
        asked.hint(Ready(answer.pool))
    return made(
        ExecutionDetail,
        (msgspec.json.encode(execution), answer.known),
        Location=f"/api/v1/executions/{execution.execution_id}",
    )


@post("/jobs/{job_id:str}/pause", opt={"body": Pausing}, status_code=200)
async def pause(asked: Given, job_id: FromPath[str]) -> Response[JobView]:
    """Pause a job: what falls due is recorded as skipped; it can still be triggered."""
    body = await asked.body(Pausing)

    async def work(conn: Connection) -> tuple[JobView, tuple[Hint, ...]]:
        job = await pause_job(
            conn,
            tenant=asked.tenant,
            job_id=job_id,
            reason=body.reason,
            who=asked.who,
            now=asked.now,
        )
        return job, (SchedulesChanged(),)

    return told(JobView, await asked.once(f"pause {job_id}", body, work))


@post("/jobs/{job_id:str}/resume", status_code=200)
async def resume(asked: Given, job_id: FromPath[str]) -> Response[JobView]:
    """Let a job be fired again, from its next instant on."""
    body = await asked.empty_body()

    async def work(conn: Connection) -> tuple[JobView, tuple[Hint, ...]]:
        job = await resume_job(
            conn, tenant=asked.tenant, job_id=job_id, who=asked.who, now=asked.now
        )
        return job, (SchedulesChanged(),)

    return told(JobView, await asked.once(f"resume {job_id}", body, work))


@get("/jobs/{job_id:str}/next", opt={"query": Upcoming})
async def next_(asked: Given, job_id: FromPath[str]) -> Response[Page[str]]:
    """When a job is due next: instants in UTC, earliest first."""
    query = asked.query(Upcoming)
    after = asked.now if query.after is None else read_instant(query.after, "after")
    instants = await asked.do(
        lambda conn: next_fires(
            conn, tenant=asked.tenant, job_id=job_id, after=after, count=query.count
        )
    )
    return shown_as(Page(instants))


@post("/jobs/{job_id:str}/backfill", opt={"body": BackfillJob})
async def backfill_(asked: Given, job_id: FromPath[str]) -> Response[Backfilled]:
    """Run the instants of a span of the past that have no run, or none that succeeded."""
    body = await asked.body(BackfillJob)
    first, until = read_instant(body.from_, "from"), read_instant(body.to, "to")

    async def work(conn: Connection) -> tuple[Backfilled, tuple[Hint, ...]]:
        filled = await backfill(
            conn,
            tenant=asked.tenant,
            job_id=job_id,
            first=first,
            until=until,
            who=asked.who,
            now=asked.now,
            limit=body.limit,
            parallel=body.parallel,
            dry_run=body.dry_run,
        )
        return filled, tuple(Ready(pool) for pool in filled.pools)

    return made(Backfilled, await asked.once(f"backfill {job_id}", body, work))


def _input(body: TriggerJob) -> bytes | None:
    if body.input is None:
        return None
    given = msgspec.json.encode(body.input)
    if len(given) > INPUT_BYTES_MAX:
        raise wrong("input", f"an input has at most {INPUT_BYTES_MAX:,} bytes; send a reference")
    return given


def _key(asked: Asked, body: TriggerJob) -> str | None:
    key = body.key if asked.key is None else asked.key
    if body.key is not None and body.key != key:
        raise wrong("key", "the header Idempotency-Key says another one")
    if key is not None and (not 0 < len(key) <= KEY_LENGTH_MAX or "\0" in key):
        raise wrong("key", f"an idempotency key has 1 to {KEY_LENGTH_MAX} characters")
    return key


def _run_at(asked: Asked, body: TriggerJob) -> datetime | None:
    if body.at is not None and body.in_ is not None:
        raise wrong("in", "give one of `at` and `in`")
    if body.at is not None:
        return read_instant(body.at, "at")
    if body.in_ is not None:
        return asked.now + timedelta(seconds=read_seconds(body.in_, "in"))
    return None


ROUTES: Final = [trigger_, pause, resume, next_, backfill_]
