"""DAGs and their runs: listed, shown, waited for and followed."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Final

import anyio
import msgspec
from litestar import Response, get
from litestar.params import FromPath
from litestar.response import Stream

from protocols.dag_views import (
    DagDetail,
    DagRunDetail,
    DagRunTaskView,
    DagRunView,
    DagView,
    RunChanged,
    TaskChanged,
)
from protocols.errors import TickwrightError
from protocols.views import Page
from runtime.api.asked import Asked, Given, Listing, listed, shown_as
from runtime.api.executions import Waiting
from runtime.api.problems import RefusedError
from runtime.api.tail import GivenTail, Tail
from runtime.postgres.operations.dag_runs import list_runs, run_state, show_run
from runtime.postgres.operations.dags import list_dags, show_dag

FINAL: Final = frozenset({"succeeded", "failed", "cancelled", "skipped"})
"""States that a run does not leave by itself."""
_LOOK_S: Final = 0.2
"""How often a run that is followed is looked at, at most; a large one less often:"""
_SHARE: Final = 10
"""a look is followed by so many times what it took."""


class Runs(Listing, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which runs: those of `dag`."""

    dag: str | None = None


@get("/dags", opt={"query": Listing})
async def list_(asked: Given) -> Response[Page[DagView]]:
    """List DAGs, the one made last first."""
    return await listed(asked, asked.query(Listing), partial(list_dags, tenant=asked.tenant))


@get("/dags/{dag_id:str}")
async def show(asked: Given, dag_id: FromPath[str]) -> Response[DagDetail]:
    """Show a DAG with the tasks of the version in force."""
    found = await asked.do(lambda conn: show_dag(conn, tenant=asked.tenant, dag_id=dag_id))
    return shown_as(found)


@get("/dags/{dag_id:str}/runs", opt={"query": Listing})
async def runs_of(asked: Given, dag_id: FromPath[str]) -> Response[Page[DagRunView]]:
    """List the runs of a DAG that have begun, newest first."""
    of = partial(list_runs, tenant=asked.tenant, dag_id=dag_id)
    return await listed(asked, asked.query(Listing), of)


@get("/dags/runs", opt={"query": Runs})
async def runs(asked: Given) -> Response[Page[DagRunView]]:
    """List the runs of all DAGs, or of one, that have begun, newest first."""
    query = asked.query(Runs)
    of = partial(list_runs, tenant=asked.tenant, dag_id=query.dag)
    return await listed(asked, query, of)


@get("/dags/runs/{run_id:str}")
async def run(asked: Given, run_id: FromPath[str]) -> Response[DagRunDetail]:
    """Show a run with every task; of a finished one also its critical path."""
    return shown_as(await _look(asked, run_id))


@get("/dags/runs/{run_id:str}/wait", opt={"query": Waiting})
async def wait(asked: Given, run_id: FromPath[str], tail: GivenTail) -> Response[DagRunDetail]:
    """Answer once the run's state is final, or when the time is over: see its `state`."""
    state = await _state(asked, run_id)
    with anyio.move_on_after(asked.query(Waiting).timeout_s), tail.follow() as news:
        while state not in FINAL and not tail.ended:
            await news.next()
            state = await _state(asked, run_id)
    return shown_as(await _look(asked, run_id))


@get("/dags/runs/{run_id:str}/events", opt={"stream": RunChanged})
async def follow(asked: Given, run_id: FromPath[str], tail: GivenTail) -> Stream:
    """What becomes of a run and its tasks, as it happens, until it is over."""
    first = await _look(asked, run_id)
    if tail.is_full:
        raise RefusedError(503, "too_many", "too many requests wait here already")
    return Stream(
        _stream(asked, tail, first),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _stream(asked: Asked, tail: Tail, first: DagRunDetail) -> AsyncIterator[bytes]:
    with tail.follow() as news:
        told: dict[str, TaskChanged] = {}
        last: DagRunView | None = None
        found: DagRunDetail | None = first
        pause = _LOOK_S
        while True:
            if found is not None:
                changes = [_change(task) for task in found.tasks]
                fresh = [change for change in changes if told.get(change.task_id) != change]
                told.update({change.task_id: change for change in fresh})
                head = _head(found)
                if fresh or head != last:
                    last = head
                    yield _written(head, found, fresh)
                else:
                    yield b": nothing happens\n\n"
                if found.state in FINAL:
                    return
            if tail.ended:
                return
            await anyio.sleep(pause)
            await news.next()
            started = anyio.current_time()
            try:
                found = await _look(asked, first.run_id)
            except TickwrightError:
                found = None  # an outage ends no stream: what became of it is told after it
            # A run of thousands ends many tasks a second, and is not read for each.
            pause = max(_LOOK_S, _SHARE * (anyio.current_time() - started))


def _written(head: DagRunView, found: DagRunDetail, fresh: list[TaskChanged]) -> bytes:
    states: dict[str, int] = {}
    for task in found.tasks:
        states[task.state] = states.get(task.state, 0) + 1
    event = RunChanged(run=head, states=states, tasks=tuple(fresh))
    return b"event: run\ndata: %s\n\n" % msgspec.json.encode(event)


def _head(found: DagRunDetail) -> DagRunView:
    names = DagRunView.__struct_fields__
    return DagRunView(**{name: getattr(found, name) for name in names})


def _change(task: DagRunTaskView) -> TaskChanged:
    names = TaskChanged.__struct_fields__
    return TaskChanged(**{name: getattr(task, name) for name in names})


async def _state(asked: Asked, run_id: str) -> str:
    now = asked.node.clock.now()
    return await asked.do(lambda conn: run_state(conn, tenant=asked.tenant, run=run_id, now=now))


async def _look(asked: Asked, run_id: str) -> DagRunDetail:
    now = asked.node.clock.now()
    return await asked.do(lambda conn: show_run(conn, tenant=asked.tenant, run=run_id, now=now))


ROUTES: Final = [list_, show, runs_of, runs, run, wait, follow]
