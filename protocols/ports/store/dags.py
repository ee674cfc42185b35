"""What a DagActor asks of the store: to begin runs, to take account of what ended, to end them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from protocols.ports.store.claiming import DispatchStore


class Advanced(msgspec.Struct, frozen=True, kw_only=True):
    """What a step has done, as far as others are to be told."""

    pools: Sequence[str] = ()
    """Pools with more to claim."""
    over: Sequence[int] = ()
    """Runs that are final now: their roots are to be finished."""
    asked: Sequence[tuple[int, int]] = ()
    """(id, fencing token) of running executions that were asked to stop."""
    more: bool = False


class Glance(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to do for any run, by one look at all of them."""

    next_at: datetime | None
    """When the first wait or deadline is due, or was."""
    ends: bool
    """Whether there are ends of tasks, or looks, that nobody has taken account of yet."""


class Within(msgspec.Struct, frozen=True):
    """A root that was claimed, and for the sake of which run: it is within that, or in its way."""

    id: int
    fencing_token: int
    within: int


class DagStore(DispatchStore, Protocol):
    """What a DagActor asks; each step is one transaction, and may be repeated at will.

    A root is the execution of a DAG, known by its id and the fencing token of its claim.
    """

    async def begin_runs(
        self, incarnation: int, roots: Sequence[tuple[int, int]], *, now: datetime
    ) -> Advanced:
        """Make the runs of roots that have none, and start what waits for nothing."""
        ...

    async def claim_within(
        self, incarnation: int, runs: Sequence[int], *, limit: int, now: datetime, level: int
    ) -> Sequence[Within]:
        """Claim roots that are due and whose runs are to be within these, up to `limit`.

        And up to `limit` of those that have the turn for which such a root waits. The first of
        `runs` come first.
        """
        ...

    async def advance(self, *, now: datetime, limit: int) -> Advanced:
        """Take account of up to `limit` ends of tasks, whose runs they are whatever; and looks."""
        ...

    async def glance(self) -> Glance:
        """See what there is to do, whoever's runs they are: all that a quiet poll asks."""
        ...

    async def wake(self, *, now: datetime, limit: int) -> Advanced:
        """End waits whose instant has come, and stop runs whose deadline has."""
        ...

    async def runs_over(self, runs: Sequence[int]) -> Sequence[int]:
        """Those of these runs that are final."""
        ...

    async def finish_runs(
        self, incarnation: int, roots: Sequence[tuple[int, int]], *, now: datetime
    ) -> tuple[Sequence[int], Sequence[int]]:
        """End the roots of runs that are final; those runs, and the keys of jobs to settle.

        A root whose token is not in force is another node's to end, and is let go here.
        """
        ...

    async def cancel_runs(self, runs: Sequence[int], *, now: datetime) -> None:
        """Cancel these runs, as somebody asked by cancelling their roots."""
        ...

    async def cancel_requests(self, incarnation: int) -> Sequence[tuple[int, int]]:
        """As in `WorkerStore`."""
        ...

    async def running(self, incarnation: int, pool: str) -> Sequence[tuple[int, int]]:
        """As in `WorkerStore`."""
        ...
