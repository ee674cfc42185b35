"""The life of an execution: its states, the legal moves between them, and its attempts.

Every writer, in SQL or in memory, takes its guards from `TRANSITIONS`; there is no other list.
"""

from collections.abc import Mapping
from typing import Final, Literal

State = Literal[
    "blocked", "scheduled", "ready", "running", "succeeded", "dead", "cancelled", "skipped"
]
AttemptState = Literal["succeeded", "failed", "timed_out", "lost", "cancelled"]
SkipReason = Literal["overlap", "misfire", "paused", "excluded", "dependency", "quota", "expired"]
BlockReason = Literal["overlap", "dependency", "delayed"]

TRANSITIONS: Final[Mapping[State, frozenset[State]]] = {
    "blocked": frozenset({"scheduled", "cancelled", "skipped"}),
    "scheduled": frozenset({"ready", "running", "blocked", "cancelled", "skipped"}),
    "ready": frozenset({"running", "cancelled", "skipped"}),
    "running": frozenset({"succeeded", "dead", "cancelled", "scheduled"}),
    "succeeded": frozenset(),
    "dead": frozenset({"scheduled"}),
    "cancelled": frozenset({"scheduled"}),
    "skipped": frozenset({"scheduled"}),
}
"""From each state, where it may go.

`ready` is never stored: a `scheduled` row whose `run_at` has passed reads as `ready`, so a claim
writes `scheduled -> running`. `running -> scheduled` is a retry, or work handed back. The last
three re-open the row of an instant (retry, replay, backfill) and raise its `run` by one.
"""

FINAL: Final[frozenset[State]] = frozenset({"succeeded", "dead", "cancelled", "skipped"})
"""States that end a run; rows in them live in history."""

STORED: Final[frozenset[State]] = frozenset(TRANSITIONS) - {"ready"}
"""States that a row may hold."""

INPUT_BYTES_MAX: Final = 256 * 1024
"""Of an execution's input, whoever gives it: a trigger, a record, or a run that another begins."""


class IllegalTransition(Exception):  # noqa: N818
    """A state was asked to become one that `TRANSITIONS` does not allow."""

    def __init__(self, source: State, target: State) -> None:
        super().__init__(f"an execution that is {source} cannot become {target}")
        self.source = source
        self.target = target


def check_transition(source: State, target: State) -> None:
    """Raise `IllegalTransition` unless `source -> target` is legal."""
    if target not in TRANSITIONS[source]:
        raise IllegalTransition(source, target)


def sources_of(target: State, *, among: frozenset[State] = STORED) -> tuple[State, ...]:
    """The stored states, sorted, from which a row may become `target`."""
    return tuple(sorted(s for s in among if target in TRANSITIONS[s]))
