"""`PostgresStore`: the Store port on PostgreSQL, each method one function of a module beside it."""

from collections.abc import Sequence
from datetime import datetime

from protocols.errors import KeyReusedError, NotFoundError
from protocols.jobs import JobSpec
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
    Term,
    Triggered,
    TriggerRequest,
)
from runtime.postgres import claim, finish, schedules, trigger
from runtime.postgres.pool import Pool


class HotPath:
    """What timers, dispatchers and workers ask thousands of times a second.

    Args:
        pool: pinned connections of the node's role.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def take_epoch(self, number: int, incarnation: int, *, now: datetime) -> Term:
        """As the port says."""
        return await schedules.take_epoch(self._pool, number, incarnation, now=now)

    async def due(self, term: Term, *, until: datetime, limit: int) -> Sequence[DueSchedule]:
        """As the port says."""
        return await schedules.due(self._pool, term, until=until, limit=limit)

    async def definitions(self, keys: Sequence[tuple[int, int]]) -> Sequence[JobSpec | None]:
        """As the port says."""
        return await schedules.definitions(self._pool, keys)

    async def fire(self, term: Term, firings: Sequence[Firing], *, now: datetime) -> Fired:
        """As the port says."""
        return await schedules.fire(self._pool, term, firings, now=now)

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
        return await finish.finish(self._pool, incarnation, finishes)

    async def give_back(self, incarnation: int, given: Sequence[GiveBack]) -> None:
        """As the port says."""
        await finish.give_back(self._pool, incarnation, given)


class PostgresStore(HotPath):
    """All of the port."""
