"""What the model store holds, and the few moves by which any of it may change."""

from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec

from protocols.executions import FINAL, check_transition
from protocols.jobs import JobSpec
from protocols.ports.store import PoolLoad


class Row(msgspec.Struct, kw_only=True):
    """An execution, hot or final."""

    id: int
    created_at: datetime
    tenant: str
    job_id: str
    job_key: int
    version: int
    origin: int
    scheduled_for: datetime
    run_at: datetime
    pool: str
    priority: int
    state: str
    overlap: str
    patient: bool = False
    reason: str | None = None
    holds_turn: bool = False
    limit_key: str | None = None
    expires_at: datetime | None = None
    at_most_once: bool = False
    max_lost: int = 5
    input: bytes | None = None
    attempt: int = 0
    failures: int = 0
    losses: int = 0
    token: int | None = None
    incarnation: int | None = None
    started_at: datetime | None = None
    cancel_requested: bool = False
    finished_at: datetime | None = None
    exit_code: int | None = None
    error: str | None = None
    result: bytes | None = None
    instants: int = 1
    last: datetime | None = None

    def become(self, state: str) -> None:
        """Change state, by a legal move only."""
        check_transition(self.state, state)
        self.state = state


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt ended, as recorded."""

    id: int
    attempt: int
    state: str
    token: int
    exit_code: int | None = None
    error: str | None = None


class Job(msgspec.Struct, kw_only=True):
    """A job, with its schedule's row where it has one."""

    key: int
    versions: dict[int, JobSpec]
    version: int
    shard: int = 0
    parents: tuple[int, ...] = ()
    met: set[int] = msgspec.field(default_factory=set)
    scheduled: bool = True
    paused: bool = False
    anchor: datetime
    cursor: datetime
    next_fire_at: datetime | None = None
    catchup_from: datetime | None = None
    catchup_until: datetime | None = None
    after_s: float | None = None

    @property
    def spec(self) -> JobSpec:
        return self.versions[self.version]


class Node(msgspec.Struct, kw_only=True):
    """An incarnation; `silent_from` is its last beat."""

    incarnation: int
    name: str
    state: str = "up"
    last_beat_at: datetime
    pools: dict[str, PoolLoad] = {}
    closed: bool = False


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the event log."""

    kind: str
    tenant: str | None = None
    ids: tuple[int, ...] = ()
    job_keys: tuple[int, ...] = ()
    states: tuple[str, ...] = ()
    name: str | None = None
    payload: bytes | None = None


class Term(msgspec.Struct, kw_only=True):
    """A leadership's row."""

    epoch: int = 0
    paused: bool = False


class Books:
    """All tables, with the indexes that a look needs."""

    def __init__(self, *, leaderships: int = 1) -> None:
        self.house_paused = False
        self.terms = [Term() for _ in range(leaderships)]
        self.nodes: dict[int, Node] = {}
        self.jobs: dict[int, Job] = {}
        self.hot: dict[int, Row] = {}
        self.history: dict[int, Row] = {}
        self.attempts: dict[int, list[Attempt]] = {}
        self.outputs: dict[int, list[tuple[int, bytes, bytes, int]]] = {}
        self.edges: dict[int, tuple[int, ...]] = {}
        self.holders: dict[str, list[int]] = {}
        self.checkpoints: dict[tuple[int, int], bytes] = {}
        self.once: dict[tuple[str, str], list] = {}
        self.keys: dict[tuple[str, str, str], tuple] = {}
        self.events: list[Event] = []
        self.events_read = 0
        self.instants: dict[tuple[int, datetime], int] = {}
        """The unique index: which row an instant of a schedule has."""
        self._id = self._token = self._node = 0

    # --- numbers --------------------------------------------------------------------------

    def reshard(self, leaderships: int) -> None:
        """Group the shards anew; no epoch comes back."""
        epoch = max(term.epoch for term in self.terms) + 1
        paused = any(term.paused for term in self.terms)
        self.terms = [Term(epoch=epoch, paused=paused) for _ in range(leaderships)]

    def next_id(self) -> int:
        self._id += 1
        return self._id

    def next_token(self) -> int:
        self._token += 1
        return self._token

    def next_node(self) -> int:
        self._node += 1
        return self._node

    # --- looks ----------------------------------------------------------------------------

    def of_job(self, key: int) -> Iterable[Row]:
        return (row for row in self.hot.values() if row.job_key == key)

    def holder(self, key: int) -> Row | None:
        return next((row for row in self.of_job(key) if row.holds_turn), None)

    def waiting(self, key: int) -> list[Row]:
        """Those that wait for the job's turn."""
        return [r for r in self.of_job(key) if r.state == "blocked" and r.reason == "overlap"]

    def room(self, limit_key: str) -> int:
        """How many more may hold a limited key."""
        limit = self.jobs[int(limit_key.removeprefix("job:"))].spec.concurrency_limit or 0
        return limit - len(self.holders.get(limit_key, ()))

    def ended_of(self, key: int) -> list[Row]:
        return [row for row in self.history.values() if row.job_key == key]

    # --- moves ----------------------------------------------------------------------------

    def add(self, row: Row) -> None:
        """Insert a new row where its state belongs."""
        (self.history if row.state in FINAL else self.hot)[row.id] = row
        if row.origin == 0:
            self.instants[row.job_key, row.scheduled_for] = row.id

    def end(self, row: Row, state: str, reason: str | None, at: datetime) -> None:
        """Make a hot row final."""
        row.become(state)
        row.reason, row.finished_at, row.holds_turn = reason, at, False
        self.history[row.id] = self.hot.pop(row.id)
        self.edges.pop(row.id, None)
        self.free(row)

    def again(self, row: Row, run_at: datetime, reason: str | None) -> None:
        """Schedule what ran once more."""
        row.become("scheduled")
        row.run_at, row.reason = run_at, reason
        row.expires_at = row.token = row.incarnation = row.started_at = None
        self.free(row)

    def free(self, row: Row) -> None:
        """Give back what it held of its limit."""
        held = self.holders.get(row.limit_key or "")
        if held is not None and row.id in held:
            held.remove(row.id)

    def tried(self, row: Row, state: str, token: int, **more) -> None:
        """Record an attempt."""
        self.attempts.setdefault(row.id, []).append(
            Attempt(id=row.id, attempt=row.attempt, state=state, token=token, **more)
        )

    def tell(self, kind: str, rows: Iterable[tuple[Row, str]], tenant: str | None = None) -> None:
        """Append to the event log what became of these."""
        told = list(rows)
        if told:
            self.events.append(
                Event(
                    kind=kind,
                    tenant=tenant,
                    ids=tuple(row.id for row, _ in told),
                    job_keys=tuple(row.job_key for row, _ in told),
                    states=tuple(state for _, state in told),
                )
            )


def later(instant: datetime, seconds: float | None) -> datetime | None:
    """So many seconds after; None stays None."""
    return None if seconds is None else instant + timedelta(seconds=seconds)
