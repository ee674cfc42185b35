"""The laws that hold in every run, whatever goes wrong: looked at all along, and at its end."""
# ruff: noqa: A001, A002 - a row's key is called id everywhere

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from protocols.executions import FINAL
from protocols.ports.executor import Assignment, Outcome
from protocols.ports.store import Finish
from runtime.kernel.testkit import VirtualClock
from tests.sim.model_books import Books, Job, Row

Key = tuple[int, int]


class BrokenError(AssertionError):
    """A law was broken."""


class Ledger:
    """Beside the books: what really started and ended, and which laws were broken."""

    def __init__(self, books: Books, clock: VirtualClock) -> None:
        self.books = books
        self._clock = clock
        self.broken: list[str] = []
        self.starts: dict[int, list[int]] = {}
        """Tokens by which jobs really started, by execution."""
        self.outcomes: dict[Key, str] = {}
        self.acknowledged: dict[str, int] = {}
        """The execution that each trigger was answered with, by its idempotency key."""
        self._newest: dict[int, int] = {}
        self._epochs: dict[int, int] = {}
        self._succeeded: dict[int, int] = {}
        self._in_force: dict[int, int | None] = {}

    def law(self, holds: bool, told: str) -> None:
        """Note a law that does not hold."""
        if not holds:
            self.broken.append(f"{self._clock.monotonic():.4f}: {told}")

    # --- what the executors do ------------------------------------------------------------

    def started(self, one: Assignment) -> None:
        """A job begins to do what it does to the world."""
        id, token = one.id, one.fencing_token
        due = self._clock.now_ns() >= one.scheduled_for_ns
        self.law(due, f"{id}/{token} started before its instant")
        earlier = self.starts.setdefault(id, [])
        self.law(token not in earlier, f"{id}/{token} started twice")
        recorded = {attempt.token for attempt in self.books.attempts.get(id, ())}
        for other in earlier:
            first = min(other, token)
            self.law(
                first in recorded,
                f"{id} started by {token} after {other}, and no loss of {first} is recorded",
            )
        earlier.append(token)
        row = self.books.hot.get(id) or self.books.history[id]
        once = not row.at_most_once or len(earlier) == 1
        self.law(once, f"{id} is at_most_once and started by {earlier}")

    def reported(self, outcome: Outcome) -> None:
        """The executor told how an attempt ended."""
        self.outcomes[outcome.id, outcome.fencing_token] = outcome.state

    # --- what is written ------------------------------------------------------------------

    def before(self, name: str, args: tuple) -> None:
        """Look at a statement about to run: of a finish, which tokens are in force."""
        if name == "finish":
            self._in_force = {f.id: self._token(f.id) for f in args[1]}

    def _token(self, id: int) -> int | None:
        row = self.books.hot.get(id)
        return None if row is None else row.token

    def after(self, name: str, args: tuple, value: Any) -> None:
        """Look at what a statement did."""
        match name:
            case "take_epoch":
                self._epochs[value.number] = value.epoch
            case "fire":
                term = args[0]
                newest = self._epochs[term.number]
                self.law(term.epoch >= newest, f"epoch {term.epoch} fired after {newest} was taken")
            case "claim":
                self._claimed(value)
            case "finish":
                self._finished(args[1], set(value.accepted))

    def _claimed(self, claimed: Sequence) -> None:
        for one in claimed:
            newest = self._newest.get(one.id, 0)
            self.law(one.fencing_token > newest, f"{one.id} was claimed by an older token")
            self._newest[one.id] = one.fencing_token
        for key in {one.job_key for one in claimed}:
            running = [
                row.id
                for row in self.books.of_job(key)
                if row.state == "running" and row.overlap != "allow"
            ]
            self.law(len(running) <= 1, f"{running} of job {key} run at once")

    def _finished(self, finishes: Sequence[Finish], accepted: set[int]) -> None:
        for finish in finishes:
            token = finish.fencing_token
            rivals = {f.fencing_token for f in finishes if f.id == finish.id}
            proven = token == self._in_force[finish.id] or self._in_force[finish.id] not in rivals
            if finish.id not in accepted or not proven:
                continue  # it was refused, and another of its row may have been taken
            seen = self.outcomes.get((finish.id, token))
            self.law(
                seen == finish.attempt_state,
                f"{finish.id}/{token} is recorded {finish.attempt_state} and was {seen}",
            )
            self.law(
                token == self._newest[finish.id],
                f"{finish.id} was finished by {token}; {self._newest[finish.id]} is in force",
            )
            if finish.attempt_state == "succeeded":
                other = self._succeeded.setdefault(finish.id, token)
                self.law(other == token, f"{finish.id} succeeded by {other} and by {token}")

    # --- the end --------------------------------------------------------------------------

    def settled(self) -> bool:
        """Whether nothing is pending any more."""
        books = self.books
        return not books.hot and all(
            job.next_fire_at is None and job.catchup_from is None
            for job in books.jobs.values()
            if job.scheduled
        )

    def close(self) -> None:
        """Look at the whole of the books, once all is healed and drained."""
        for row in self.books.hot.values():
            self.law(False, f"{row.id} of {row.job_id} is still {row.state}: {row.reason}")
        for row in self.books.history.values():
            self.law(row.state in FINAL, f"{row.id} is in history as {row.state}")
            self._just(row)
        for job in self.books.jobs.values():
            if job.spec.schedule is not None and job.spec.schedule.kind == "every":
                self._covered(job)
        for key, id in self.acknowledged.items():
            self.law(id in self.books.history, f"the answer to trigger {key} is gone")

    def _just(self, row: Row) -> None:
        """A row that ended has its reason."""
        tokens = [attempt.token for attempt in self.books.attempts.get(row.id, ())]
        self.law(tokens == sorted(set(tokens)), f"{row.id}: its tokens are {tokens}")
        if row.state == "succeeded":
            self.law(row.id in self._succeeded, f"{row.id} succeeded by nobody")
        if row.reason == "misfire":
            spec = self.books.jobs[row.job_key].versions[row.version]
            assert spec.schedule is not None
            grace = timedelta(seconds=spec.schedule.misfire.grace_s)
            late = row.created_at - (row.last or row.scheduled_for)
            self.law(late > grace, f"{row.id} of {row.job_id} was only {late} late, and is missed")

    def _covered(self, job: Job) -> None:
        """Every due instant has exactly one row, or lies in exactly one run of skipped ones."""
        schedule = job.spec.schedule
        assert schedule is not None
        assert schedule.interval_s is not None
        assert schedule.end is not None
        step = timedelta(seconds=schedule.interval_s)
        count: dict[datetime, int] = {}
        at = job.anchor + step
        while at <= schedule.end:
            count[at] = 0
            at += step
        for row in self.books.ended_of(job.key):
            if row.origin != 0:
                continue
            at, last, number = row.scheduled_for, row.last or row.scheduled_for, 0
            while at <= last:
                self.law(at in count, f"{job.spec.job_id} has a row at {at}, where none is due")
                count[at] = count.get(at, 0) + 1
                at, number = at + step, number + 1
            self.law(number == row.instants, f"{row.id} covers {number}, not {row.instants}")
        for at, rows in count.items():
            self.law(rows == 1, f"{job.spec.job_id} at {at} has {rows} rows")
