"""The part of the store that DagActors ask: each method one transaction of a module beside it."""

from collections.abc import Sequence
from datetime import datetime

from protocols.dags import POOL
from protocols.ports.store.dags import Advanced, Glance, Within
from runtime.postgres.dags import advance
from runtime.postgres.dags.rows import leave_looks, lock_runs, write_runs
from runtime.postgres.dags.shapes import Shapes
from runtime.postgres.dags.within import claim_within
from runtime.postgres.pool import Pool, Session


class Runs:
    """Runs of DAGs.

    Args:
        pool: pinned connections of the node's role.
    """

    def __init__(self, pool: Pool) -> None:
        self._runs = pool
        self._shapes = Shapes()

    async def begin_runs(
        self, incarnation: int, roots: Sequence[tuple[int, int]], *, now: datetime
    ) -> Advanced:
        """As the port says."""
        return await advance.begin(self._runs, self._shapes, incarnation, roots, now=now)

    async def claim_within(
        self, incarnation: int, runs: Sequence[int], *, limit: int, now: datetime, level: int
    ) -> Sequence[Within]:
        """As the port says."""
        return await claim_within(
            self._runs, POOL, incarnation, runs, limit=limit, now=now, level=level
        )

    async def advance(self, *, now: datetime, limit: int) -> Advanced:
        """As the port says."""
        return await advance.advance(self._runs, self._shapes, now=now, limit=limit)

    async def glance(self) -> Glance:
        """As the port says."""
        return await advance.glance(self._runs)

    async def wake(self, *, now: datetime, limit: int) -> Advanced:
        """As the port says."""
        return await advance.wake(self._runs, self._shapes, now=now, limit=limit)

    async def runs_over(self, runs: Sequence[int]) -> Sequence[int]:
        """As the port says."""
        return await advance.over(self._runs, runs)

    async def finish_runs(
        self, incarnation: int, roots: Sequence[tuple[int, int]], *, now: datetime
    ) -> tuple[Sequence[int], Sequence[int]]:
        """As the port says."""
        return await advance.finish_roots(self._runs, incarnation, roots, now=now)

    async def cancel_runs(self, runs: Sequence[int], *, now: datetime) -> None:
        """As the port says."""

        async def work(session: Session) -> None:
            found = await lock_runs(session, runs)
            new = [r for r in found.values() if r.finished_at is None and not r.cancelling]
            for run in new:
                run.cancelling = True
            await write_runs(session, new)
            await leave_looks(session, [(run.run, run.tenant) for run in new], now=now)

        await self._runs.transact(work)
