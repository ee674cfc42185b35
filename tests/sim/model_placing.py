"""The model's one place that decides where a new execution goes, whoever asks for it."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from protocols.jobs import JobSpec
from tests.sim.model_books import Books, Row, later

QUEUED_MAX = 100


class Asked(msgspec.Struct, kw_only=True):
    """One execution that somebody wants; the columns of the CTE `asked`."""

    id: int
    origin: int
    job_key: int
    version: int
    spec: JobSpec
    scheduled_for: datetime
    run_at: datetime
    input: bytes | None = None
    skip: str | None = None
    last: datetime | None = None
    instants: int = 1
    patient: bool = False
    delayed: bool = False
    gated: bool = False

    @property
    def way(self) -> str:
        if self.skip is not None:
            return "skip"
        if self.gated:
            return "gate"
        if self.spec.overlap == "allow":
            return "go"
        return "delay" if self.delayed else "turn"


class Placed(msgspec.Struct):
    """What became of a batch."""

    rows: list[Row]
    displaced: list[Row]

    @property
    def pools(self) -> list[str]:
        return sorted({row.pool for row in self.rows if row.state == "scheduled"})

    @property
    def followers(self) -> list[int]:
        blocked = {row.job_key for row in self.rows if row.state == "blocked"}
        return sorted(blocked | {row.job_key for row in self.displaced})


def place(
    books: Books, asked: Sequence[Asked], *, kind: str, now: datetime, by_tenant: bool = False
) -> Placed:
    """Insert what is asked for, each where its job's overlap rule puts it."""
    placed = Placed([], [])
    turns = _turns(books, asked)
    rivals = {one.job_key: _rivals(books, one.job_key) for one in asked}
    for one in asked:
        state, reason, holds = _decide(one, turns.get(one.id))
        row = _row(one, state, reason, now)
        row.holds_turn = holds
        books.add(row)
        if one.way == "gate":
            books.edges[row.id] = books.jobs[one.job_key].parents
        placed.rows.append(row)
    for one, row in zip(asked, placed.rows, strict=True):
        if row.state == "blocked" and row.reason == "overlap" and _cancels(one):
            for rival in rivals.pop(one.job_key, ()):
                displace(books, rival, placed.displaced, now)
    born = [(row, row.state) for row in placed.rows]
    cancelled = [(row, "cancelled") for row in placed.displaced]
    for tenant in sorted({row.tenant for row, _ in born}) if by_tenant else [None]:
        books.tell(kind, [b for b in born if tenant in (None, b[0].tenant)], tenant)
        books.tell("cancelled", [c for c in cancelled if tenant in (None, c[0].tenant)], tenant)
    return placed


def displace(books: Books, rival: Row, displaced: list[Row], now: datetime) -> None:
    """Make room for a newcomer under `cancel_running`."""
    if rival.state == "running":
        rival.cancel_requested = True
    else:
        books.end(rival, "cancelled", "overlap", now)
        displaced.append(rival)


def _cancels(one: Asked) -> bool:
    return one.spec.overlap == "cancel_running" and not one.patient


def _rivals(books: Books, key: int) -> list[Row]:
    holder = books.holder(key)
    return [*([holder] if holder else []), *books.waiting(key)]


def _turns(books: Books, asked: Sequence[Asked]) -> dict[int, int | None]:
    """The place in its job's turn of each that needs one; None for one overtaken in the batch."""
    turns: dict[int, int | None] = {}
    by_job: dict[int, list[Asked]] = {}
    for one in asked:
        if one.way == "turn":
            by_job.setdefault(one.job_key, []).append(one)
    for key, ones in by_job.items():
        ones.sort(key=lambda one: one.scheduled_for)
        ahead = (books.holder(key) is not None) + len(books.waiting(key))
        for number, one in enumerate(ones):
            if _cancels(one) and number < len(ones) - 1:
                turns[one.id] = None
            else:
                ahead += 1
                turns[one.id] = ahead
    return turns


def _decide(one: Asked, place: int | None) -> tuple[str, str | None, bool]:
    if one.way != "turn":
        return {
            "skip": ("skipped", one.skip, False),
            "go": ("scheduled", None, False),
            "gate": ("blocked", "dependency", False),
            "delay": ("blocked", "delayed", False),
        }[one.way]
    if place is None:
        return "cancelled", "overlap", False
    if place == 1:
        return "scheduled", None, True
    dropped = one.spec.overlap == "skip" or (one.spec.overlap == "queue" and place > QUEUED_MAX + 1)
    return "skipped" if dropped and not one.patient else "blocked", "overlap", False


def _row(one: Asked, state: str, reason: str | None, now: datetime) -> Row:
    spec = one.spec
    limited = spec.concurrency_limit is not None
    return Row(
        id=one.id,
        created_at=now,
        tenant=spec.tenant,
        job_id=spec.job_id,
        job_key=one.job_key,
        version=one.version,
        origin=one.origin,
        scheduled_for=one.scheduled_for,
        run_at=one.run_at,
        pool=spec.pool,
        priority=spec.priority,
        state=state,
        reason=reason,
        overlap=spec.overlap,
        patient=one.patient,
        limit_key=f"job:{one.job_key}" if limited else None,
        expires_at=later(one.run_at, spec.expires_s),
        at_most_once=spec.guarantee == "at_most_once",
        max_lost=spec.retry.max_lost,
        input=one.input,
        instants=one.instants,
        last=one.last,
        finished_at=now if state in ("skipped", "cancelled") else None,
    )
