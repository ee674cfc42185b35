"""Enqueue N no-op jobs and drain them: jobs a second from the first claim to the last finish."""

import argparse
import asyncio
import time
from typing import Any

from protocols.messages import Ready
from protocols.ports.store import TriggerRequest
from runtime import Runtime, job
from runtime.postgres.operations.pause import pause_house, resume_house
from runtime.postgres.operations.session import Connection, transact
from scripts.loading.house import Meter, loaded, progress

BATCH = 500


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of this load."""
    parser.add_argument("--jobs", type=int, default=100_000, help="how many (100000)")
    parser.add_argument("--slots", type=int, default=2000, help="slots of the pool (2000)")


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """Enqueue, drain, measure."""
    async with loaded(options.slots) as rt:
        return await drain(rt, options.jobs)


async def drain(rt: Runtime, jobs: int) -> dict[str, Any]:
    """Drain `jobs` executions on a running node; everything else about it stands still."""
    node = rt.node
    await rt.apply(job("noop", isolation="shared", overlap="allow")(noop))
    await warm(rt)
    await _pause(rt, paused=True)
    since, began = node.clock.now(), time.perf_counter()
    with progress() as bar:
        task = bar.add_task("enqueue", total=jobs)
        for start in range(0, jobs, BATCH):
            wanted = min(BATCH, jobs - start)
            requests = [TriggerRequest(tenant="default", job_id="noop")] * wanted
            await node.store.trigger(requests, now=node.clock.now())
            bar.advance(task, wanted)
        enqueue_s = time.perf_counter() - began
        await _pause(rt, paused=False)
        done = finished(rt)
        meter = Meter(node)
        task = bar.add_task("drain", total=jobs)
        node.hints.send(Ready("default"))
        held = node.life.held["default"]
        while finished(rt) - done < jobs or held.busy:
            await asyncio.sleep(0.01)
            bar.update(task, completed=finished(rt) - done)
    used = meter.read()
    (row,) = await node.keeping.fetch(
        "SELECT count(*) AS n FROM execution_history WHERE tenant = 'default' AND job_id = 'noop' "
        "AND state = 'succeeded' AND scheduled_for >= $1",
        since,
    )
    return {
        "held": row["n"] == jobs,
        "jobs": jobs,
        "enqueued_per_s": jobs / enqueue_s,
        "drained_per_s": jobs / used["wall_s"],
        "node_cpu_us_per_job": used["node_cpu_s"] / jobs * 1e6,
        **used,
    }


async def noop(ctx: object) -> None:
    """Nothing."""


noop.__module__, noop.__qualname__ = "loadjobs", "noop"


async def warm(rt: Runtime) -> None:
    """Run one, so that the host is up and every statement is prepared."""
    await (await rt.trigger("noop")).wait(60)


def finished(rt: Runtime) -> int:
    """Attempts that the node has seen succeed."""
    return rt.node.executors["default"].statistics().get("finished_succeeded", 0)


async def _pause(rt: Runtime, *, paused: bool) -> None:
    node = rt.node

    async def work(conn: Connection) -> None:
        now = node.clock.now()
        if paused:
            await pause_house(conn, tenant="default", reason="load", who="load", now=now)
        else:
            await resume_house(conn, tenant="default", who="load", now=now)

    await transact(node.api, "default", work)
