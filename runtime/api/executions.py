"""Executions: listed, shown, waited for, cancelled, run again, and what they printed."""

from functools import partial
from typing import Annotated, Final

import anyio
import msgspec
from litestar import Response, get, post
from litestar.params import FromPath

from protocols.executions import FINAL, State
from protocols.messages import CancelRequested, Hint, JobsFinished, Ready
from protocols.views import ExecutionDetail, ExecutionView, LogView, Page
from runtime.api.asked import (
    Asked,
    Given,
    OfJob,
    listed,
    shown_as,
    told,
)
from runtime.api.tail import GivenTail
from runtime.postgres.operations.cancel import cancel_execution
from runtime.postgres.operations.executions import list_executions, show_execution
from runtime.postgres.operations.logs import read_logs
from runtime.postgres.operations.reopen import retry_execution
from runtime.postgres.operations.session import Connection

WAIT_S_MAX: Final = 60.0


class Executions(OfJob, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which executions."""

    state: State | None = None


class Waiting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long to wait, in seconds."""

    timeout_s: Annotated[float, msgspec.Meta(ge=0, le=WAIT_S_MAX)] = 25.0


class Logs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of which attempt, and only the lines that hold a text."""

    attempt: Annotated[int, msgspec.Meta(ge=1, le=(1 << 31) - 1)] | None = None
    grep: str | None = None


@get("/executions", opt={"query": Executions})
async def list_(asked: Given) -> Response[Page[ExecutionView]]:
    """List executions, newest first."""
    query = asked.query(Executions)
    of = partial(
        list_executions,
        tenant=asked.tenant,
        now=asked.now,
        job_id=query.job,
        state=query.state,
        since=query.since_by(asked.now),
    )
    return await listed(asked, query, of)


@get("/executions/{execution:str}")
async def show(asked: Given, execution: FromPath[str]) -> Response[ExecutionDetail]:
    """Show one execution with every attempt at it."""
    return shown_as(await asked.do(lambda conn: _show(conn, asked, execution)))


@get("/executions/{execution:str}/wait", opt={"query": Waiting})
async def wait(
    asked: Given, execution: FromPath[str], tail: GivenTail
) -> Response[ExecutionDetail]:
    """Answer once the execution's state is final, or when the time is over: see its `state`."""
    found = await asked.do(lambda conn: _show(conn, asked, execution))
    with anyio.move_on_after(asked.query(Waiting).timeout_s), tail.follow() as news:
        while found.state not in FINAL and not tail.ended:
            await news.next()
            found = await asked.do(lambda conn: _show(conn, asked, execution))
    return shown_as(found)


@post("/executions/{execution:str}/cancel", status_code=200)
async def cancel(asked: Given, execution: FromPath[str]) -> Response[ExecutionDetail]:
    """Cancel what has not started; ask the node that runs it to stop what has."""
    body = await asked.empty_body()

    async def work(conn: Connection) -> tuple[ExecutionDetail, tuple[Hint, ...]]:
        done = await cancel_execution(
            conn, tenant=asked.tenant, execution=execution, who=asked.who, now=asked.now
        )
        hint: Hint = JobsFinished((done.job_key,))
        if done.asked is not None:
            _, key, token = done.asked
            hint = CancelRequested(key, token)
        return await _show(conn, asked, execution), (hint,)

    return told(ExecutionDetail, await asked.once(f"cancel {execution}", body, work))


@post("/executions/{execution:str}/retry", status_code=200)
async def retry(asked: Given, execution: FromPath[str]) -> Response[ExecutionDetail]:
    """Run an execution again that ended dead, cancelled or skipped."""
    body = await asked.empty_body()

    async def work(conn: Connection) -> tuple[ExecutionDetail, tuple[Hint, ...]]:
        done = await retry_execution(
            conn, tenant=asked.tenant, execution=execution, who=asked.who, now=asked.now
        )
        shown = await _show(conn, asked, execution)
        return shown, tuple(Ready(pool) for pool in done.pools)

    return told(ExecutionDetail, await asked.once(f"retry {execution}", body, work))


@get("/executions/{execution:str}/logs", opt={"query": Logs})
async def logs(asked: Given, execution: FromPath[str]) -> Response[Page[LogView]]:
    """What its attempts printed, first attempt first; of long output the ends are kept."""
    query = asked.query(Logs)
    found = await asked.do(
        lambda conn: read_logs(
            conn,
            tenant=asked.tenant,
            execution=execution,
            attempt=query.attempt,
            grep=query.grep,
        )
    )
    return shown_as(Page(found))


async def _show(conn: Connection, asked: Asked, execution: str) -> ExecutionDetail:
    now = asked.node.clock.now()
    return await show_execution(conn, tenant=asked.tenant, execution=execution, now=now)


ROUTES: Final = [list_, show, wait, cancel, retry, logs]
