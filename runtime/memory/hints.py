"""Hints within one node: each goes to the actor it concerns, if that one lives."""

from collections.abc import Callable

from protocols.actor import Ref
from protocols.dags import POOL
from protocols.messages import (
    CancelRequested,
    EventsAppended,
    Hint,
    JobsFinished,
    Ready,
    SchedulesChanged,
    TasksEnded,
)

Lookup = Callable[[str], Ref | None]


class LocalHints:
    """Delivers by registered name; what finds nobody is dropped, and the polls carry on."""

    def __init__(self, lookup: Lookup, *, pools: tuple[str, ...]) -> None:
        self._lookup = lookup
        self._pools = pools
        self._leaderships = 1
        self.sent = 0

    def cover(self, leaderships: int) -> None:
        """Know how many groups of shards there are."""
        self._leaderships = leaderships

    def send(self, hint: Hint, /) -> None:
        """Pass it on; never blocks, never fails."""
        self.sent += 1
        for name in self._names(hint):
            if (ref := self._lookup(name)) is not None:
                ref.tell(hint)

    def _names(self, hint: Hint) -> tuple[str, ...]:
        match hint:
            case Ready(pool=pool):
                return ("dags",) if pool == POOL else (f"dispatcher:{pool}",)
            case SchedulesChanged():
                timers = tuple(f"timer:{number}" for number in range(self._leaderships))
                return (*timers, "subscriptions")
            case CancelRequested():
                return (*(f"worker:{pool}" for pool in self._pools), "dags")
            case JobsFinished() | EventsAppended():
                return ("waiting",)
            case TasksEnded():
                return ("dags",)
            case _:
                return ()
