"""What a run leaves behind: rows of the books, lines of the ledger, and when the world was broken.

Instants are microseconds since 1970 by the clock of the one machine that all of it runs on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """An execution as the books have it."""

    execution: str
    job: str
    fired: bool
    """By its schedule; else it was asked for."""
    due_us: int
    last_us: int
    """Of a run of skipped instants its last one, else `due_us`."""
    state: str
    reason: str | None
    attempt: int
    token: int | None
    started_us: int | None
    """Of its last attempt."""
    key: str

    @property
    def shown(self) -> str:
        """One line of a report."""
        return (
            f"row {self.execution} of {self.job} due {self.due_us}: {self.state}"
            f"{f' ({self.reason})' if self.reason else ''}, attempt {self.attempt}, "
            f"token {self.token}"
        )


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt as the books have it; a first one that succeeded is in its execution's row."""

    execution: str
    attempt: int
    state: str
    reason: str | None
    token: int
    started_us: int


class Line(msgspec.Struct, frozen=True):
    """What a task wrote itself."""

    word: str
    execution: str
    token: int
    attempt: int
    job: str
    due_us: int
    at_us: int
    number: int
    """Of the line in the ledger, from 1."""

    @property
    def shown(self) -> str:
        """One line of a report."""
        return (
            f"ledger:{self.number}: {self.word} {self.execution} token {self.token} of {self.job}"
        )


class Fire(msgspec.Struct, frozen=True):
    """A commit by a leader: the epoch it used, and the newest that was committed by then."""

    number: int
    epoch: int
    newest: int
    moved: int
    at_us: int


class Epoch(msgspec.Struct, frozen=True):
    """An epoch taken: of which leadership, by whom, when."""

    number: int
    epoch: int
    incarnation: int
    at_us: int


class Disturbance(msgspec.Struct, frozen=True, kw_only=True):
    """A span in which promises of time are eased: `node`, `outage`, or `machine` (it stalled).

    In one of kind `silent`, which eases nothing, a node cannot reach etcd to give up what it leads.
    """

    kind: str
    what: str
    begin_us: int
    end_us: int
    node: str = ""


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """All of a run."""

    rows: Sequence[Row]
    tried: Sequence[Tried]
    lines: Sequence[Line]
    fires: Sequence[Fire]
    epochs: Sequence[Epoch]
    disturbances: Sequence[Disturbance]
    applied_us: int
    until_us: int
    """Instants in (applied, until] are judged."""
    anchors_us: Mapping[str, int]
    """Of every scheduled job: what its interval counts from."""
    filled_us: Sequence[int]
    """Past instants of the filled job that the harness had filled."""
    acknowledged: Mapping[str, str]
    """Execution by the key it was acknowledged for."""
    twice: Sequence[str]
    """Keys that were answered by two executions, told in a sentence each."""
    names: Mapping[int, str] = {}
    """Of the nodes, by incarnation."""


def read_ledger(path: Path) -> list[Line]:
    """Every whole line; one that was torn by a power cut could only be the last."""
    found = []
    for number, text in enumerate(path.read_text().splitlines(), 1):
        word, execution, token, attempt, job, due_us, at_us = text.split()
        found.append(
            Line(word, execution, int(token), int(attempt), job, int(due_us), int(at_us), number)
        )
    return found
