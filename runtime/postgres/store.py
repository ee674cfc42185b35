"""`PostgresStore`: the Store port on PostgreSQL, each method one function of a module beside it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from protocols.errors import FencedError, KeyReusedError, NotFoundError
from protocols.jobs import JobSpec
from protocols.ports.records import Subscription
from protocols.ports.store import (
    Budget,
    Claimed,
    DueSchedule,
    Finish,
    Finished,
    Fired,
    Firing,
    GiveBack,
    Lanes,
    Match,
    NodeInfo,
    Pulse,
    Settled,
    Term,
    Triggered,
    TriggerRequest,
)
from runtime.postgres import (
    claim,
    finish,
    nodes,
    records,
    schedules,
    task_calls,
    trigger,
    triggers,
    upkeep,
    waiting,
)
from runtime.postgres.dags.store import Runs
from runtime.postgres.figures import StoreFigures
from runtime.postgres.locks import PostgresLocks
from runtime.postgres.outbox import PostgresOutbox
from runtime.postgres.pool import Pool


class HotPath:
    """What timers, dispatchers and workers ask thousands of times a second.

    Args:
        pool: pinned connections of the node's role.
        figures: counts what is refused.
    """

    def __init__(self, pool: Pool, figures: StoreFigures) -> None:
        self._pool = pool
        self.figures = figures

    async def take_epoch(self, number: int, incarnation: int, *, now: datetime) -> Term:
        """As the port says."""
        return await schedules.take_epoch(self._pool, number, incarnation, now=now)

    async def due(self, term: Term, *, until: datetime, limit: int) -> Sequence[DueSchedule]:
        """As the port says."""
        try:
            return await schedules.due(self._pool, term, until=until, limit=limit)
        except FencedError:
            self.figures.fenced += 1
            raise

    async def definitions(self, keys: Sequence[tuple[int, int]]) -> Sequence[JobSpec | None]:
        """As the port says."""
        return await schedules.definitions(self._pool, keys)

    async def fire(self, term: Term, firings: Sequence[Firing], *, now: datetime) -> Fired:
        """As the port says."""
        try:
            return await schedules.fire(self._pool, term, firings, now=now)
        except FencedError:
            self.figures.fenced += 1
            raise

    async def trigger(
        self, requests: Sequence[TriggerRequest], *, now: datetime
    ) -> Sequence[Triggered | NotFoundError | KeyReusedError]:
        """As the port says."""
        return await trigger.trigger(self._pool, requests, now=now)

    async def lanes(self, pool: str, *, now: datetime, level: int) -> Lanes:
        """As the port says."""
        return await claim.lanes(self._pool, pool, now=now, level=level)

    async def claim(
        self,
        pool: str,
        incarnation: int,
        budgets: Sequence[Budget],
        *,
        now: datetime,
        level: int,
        refused: Sequence[tuple[int, int]] = (),
    ) -> Sequence[Claimed]:
        """As the port says."""
        return await claim.claim(
            self._pool, pool, incarnation, budgets, now=now, level=level, refused=refused
        )

    async def checkpoints(self, ids: Sequence[int]) -> dict[int, bytes]:
        """As the port says."""
        return await finish.checkpoints(self._pool, ids)

    async def finish(self, incarnation: int, finishes: Sequence[Finish]) -> Finished:
        """As the port says."""
        finished = await finish.finish(self._pool, incarnation, finishes)
        self.figures.stale += len(finishes) - len(finished.accepted)
        return finished

    async def give_back(self, incarnation: int, given: Sequence[GiveBack]) -> None:
        """As the port says."""
        await finish.give_back(self._pool, incarnation, given)


class Keeping:
    """What nodes, janitors and waiting work ask once a second or less, and tasks now and then.

    Args:
        pool: connections of the node's role.
        vital: those of beats, which nothing else is to hold up.
        figures: counts what is lost.
    """

    def __init__(self, pool: Pool, vital: Pool, figures: StoreFigures) -> None:
        self._keeping = pool
        self._vital = vital
        self._lose = figures.lose

    async def join(self, node: NodeInfo, *, now: datetime, alone: bool) -> int:
        """As the port says."""
        return await nodes.join(self._keeping, node, now=now, alone=alone, lose=self._lose)

    async def beat(
        self,
        incarnation: int,
        *,
        running: dict[str, int],
        leads: dict[int, int],
        clock_offset_s: float,
        ttl_s: float,
    ) -> Pulse:
        """As the port says."""
        return await nodes.beat(
            self._vital,
            incarnation,
            running=running,
            leads=leads,
            clock_offset_s=clock_offset_s,
            ttl_s=ttl_s,
        )

    async def bury(self, incarnation: int, *, silent_since: datetime, now: datetime) -> None:
        """As the port says."""
        await nodes.bury(
            self._keeping, incarnation, silent_since=silent_since, now=now, lose=self._lose
        )

    async def leave(self, incarnation: int, *, now: datetime) -> None:
        """As the port says."""
        await nodes.leave(self._keeping, incarnation, now=now, lose=self._lose)

    async def declare_dead(self, *, ttl_s: float, now: datetime) -> Sequence[int]:
        """As the port says."""
        return await nodes.declare_dead(self._keeping, ttl_s=ttl_s, now=now, lose=self._lose)

    async def expire(self, *, now: datetime, limit: int) -> int:
        """As the port says."""
        return await upkeep.expire(self._keeping, now=now, limit=limit)

    async def tidy(self, *, now: datetime, keep_s: float) -> None:
        """As the port says."""
        await upkeep.tidy(self._keeping, now=now, keep_s=keep_s)

    async def settle(
        self, job_keys: Sequence[int] | None, *, now: datetime, after: int = 0
    ) -> Settled:
        """As the port says."""
        return await waiting.settle(self._keeping, job_keys, now=now, after=after)

    async def run_triggers(self, *, now: datetime, limit: int) -> Settled:
        """As the port says."""
        return await triggers.run_triggers(self._keeping, now=now, limit=limit)

    async def subscriptions(self, cluster: str) -> frozenset[Subscription]:
        """As the port says."""
        return await records.subscriptions(self._keeping, cluster)

    async def followed_since(self, cluster: str, subscription: Subscription) -> datetime | None:
        """As the port says."""
        return await records.followed_since(self._keeping, cluster, subscription)

    async def match_records(
        self,
        cluster: str,
        subscription: Subscription,
        keys: Sequence[str | None],
        values: Sequence[str | None],
    ) -> Sequence[Match]:
        """As the port says."""
        return await records.match_records(self._keeping, cluster, subscription, keys, values)

    async def save_checkpoint(
        self,
        id: int,  # noqa: A002
        token: int,
        value: bytes,
        *,
        now: datetime,
    ) -> bool:
        """As the port says."""
        return await task_calls.save_checkpoint(self._keeping, id, token, value, now=now)

    async def once(
        self,
        id: int,  # noqa: A002
        token: int,
        key: str,
        ttl_s: float,
        *,
        now: datetime,
    ) -> Literal["first", "again", "no"] | None:
        """As the port says."""
        return await task_calls.once(self._keeping, id, token, key, ttl_s, now=now)

    async def emit(
        self,
        tenant: str,
        event: str,
        payload: bytes | None,
        *,
        now: datetime,
        key: str | None = None,
    ) -> None:
        """As the port says."""
        await task_calls.emit(self._keeping, tenant, event, payload, now=now, key=key)

    async def cancel_requests(self, incarnation: int) -> Sequence[tuple[int, int]]:
        """As the port says."""
        return await task_calls.cancel_requests(self._keeping, incarnation)

    async def running(self, incarnation: int, pool: str) -> Sequence[tuple[int, int]]:
        """As the port says."""
        return await task_calls.running(self._keeping, incarnation, pool)


class PostgresStore(HotPath, Keeping, Runs):
    """All of the port.

    Args:
        hot: for what is asked all the time.
        keeping: for the rest, so that neither waits for the other's connections.
        vital: for beats; by default with the rest.
    """

    def __init__(self, *, hot: Pool, keeping: Pool, vital: Pool | None = None) -> None:
        figures = StoreFigures()
        HotPath.__init__(self, hot, figures)
        Keeping.__init__(self, keeping, vital or keeping, figures)
        Runs.__init__(self, hot)
        self.locks = PostgresLocks(keeping)
        """The locks of tasks."""
        self.outbox = PostgresOutbox(keeping)
        """What other systems are told."""
