"""What becomes of instants that fell due: which run, which are skipped and why, in bounded steps.

The state is the schedule row's. `cursor`: every instant up to it is decided, or lies in the
catch-up range. `(catchup_from, catchup_until]`: instants that were found missed, still to be
decided, oldest first. A plan moves them so:

* Instants at most `grace` old are late at most, and run. They come first, and move the cursor.
* Instants older than that, found at the cursor, become the catch-up range in one step; the
  cursor leaps over them, so that what is due now never waits for what was missed.
* What is left of the plan's budget goes to the catch-up range. Which of its instants run is
  the same however often it is asked: it follows from the range's end, which stays, not from its
  beginning, which moves. `execute_once` runs the latest; `catch_up` the latest `limit`; of both,
  none older than `within` when the outage ended.
* An outage that ends while an older one is still being caught up waits until that one is done;
  that is a few statements, since skipped instants are counted, not visited.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from actors.timer.calendar import CLOSED_DAYS_MAX
from actors.timer.intervals import SECOND_US
from actors.timer.schedule import CompiledSchedule, from_us
from protocols.executions import SkipReason
from protocols.instants import epoch_us
from protocols.ports.store import DueInstant

PLAN_ROWS_MAX: Final = 1000
"""Rows of one plan, and so of one statement."""

SINGLE_SKIPS_MAX: Final = 100
"""So many instants skipped in a row for one reason have rows of their own; the rest share one."""


class DuePlan(msgspec.Struct, frozen=True, kw_only=True):
    """The decisions, and the schedule row as it stands once they are written.

    `more` says that instants up to now are still undecided: `next_fire_at` is then no later than
    now, and the next plan follows at once.
    """

    instants: Sequence[DueInstant]
    cursor: datetime
    next_fire_at: datetime | None
    catchup_from: datetime | None = None
    catchup_until: datetime | None = None
    more: bool = False


def plan_due(
    compiled: CompiledSchedule,
    *,
    cursor: datetime,
    now: datetime,
    next_fire_at: datetime | None = None,
    catchup: tuple[datetime, datetime] | None = None,
    budget: int = PLAN_ROWS_MAX,
) -> DuePlan:
    """Decide the instants that fell due by `now`, at most `budget` rows of them.

    Args:
        compiled: the schedule.
        cursor: instants up to here are decided.
        now: the instants up to here are due.
        next_fire_at: the row's; an `after` schedule has its one instant there.
        catchup: the row's (catchup_from, catchup_until], exclusive and inclusive.
        budget: the most rows; what does not fit stays for the next plan. Below some two hundred a
            run of skips is not folded, since it is counted within a plan.
    """
    if compiled.schedule.kind == "after":
        return _plan_after(compiled, cursor, now, next_fire_at)
    now_us, at = epoch_us(now), epoch_us(cursor)
    cutoff = now_us - round(compiled.schedule.misfire.grace_s * SECOND_US)
    pending = None if catchup is None else (epoch_us(catchup[0]), epoch_us(catchup[1]))
    walk = _Walk(compiled, now_us, budget)

    first = compiled.next_after_us(at)
    if first is not None and first < cutoff:
        if pending is not None:
            left = walk.catch_up(*pending)
            return _plan(walk, at, at if left else first, left, more=True)
        pending = (at, cutoff - 1)
        at = cutoff - 1
        first = compiled.next_after_us(at)
    following = first
    if first is not None and first <= now_us:
        reached, following = walk.live(first, now_us)
        at = max(at, now_us if following is None or following > now_us else reached)
    left = None
    if pending is not None:
        left = walk.catch_up(*pending) if walk.budget > 0 else pending
    more = left is not None or (following is not None and following <= now_us)
    return _plan(walk, at, following, left, more=more)


def _plan(
    walk: "_Walk",
    cursor: int,
    following: int | None,
    left: tuple[int, int] | None,
    *,
    more: bool,
) -> DuePlan:
    if more:
        following = walk.now_us if following is None else min(following, walk.now_us)
    return DuePlan(
        instants=walk.rows,
        cursor=from_us(cursor),
        next_fire_at=None if following is None else from_us(following),
        catchup_from=from_us(left[0]) if left else None,
        catchup_until=from_us(left[1]) if left else None,
        more=more,
    )


def _plan_after(
    compiled: CompiledSchedule, cursor: datetime, now: datetime, due: datetime | None
) -> DuePlan:
    """Plan an `after` schedule: its one instant is due until it runs, and the next is its finish's.

    It cannot be missed, since nothing follows it until it has run. One on a closed day moves to
    the next open one.
    """
    if due is None or due > now:
        return DuePlan(instants=(), cursor=cursor, next_fire_at=due)
    if compiled.is_excluded(due):
        row = DueInstant(scheduled_for=due, run_at=due, skip="excluded")
        following = compiled.after_excluded(due)
        return DuePlan(instants=(row,), cursor=max(cursor, due), next_fire_at=following)
    row = DueInstant(scheduled_for=due, run_at=compiled.run_at(due))
    return DuePlan(instants=(row,), cursor=max(cursor, due), next_fire_at=None)


class _Walk:
    """Walks over due instants and writes the rows of one plan."""

    __slots__ = ("_alike", "_reason", "_whole", "budget", "compiled", "now_us", "rows")

    def __init__(self, compiled: CompiledSchedule, now_us: int, budget: int) -> None:
        self.compiled = compiled
        self.now_us = now_us
        self._whole = self.budget = budget
        self.rows: list[DueInstant] = []
        self._reason: SkipReason | None = None
        self._alike = 0

    def live(self, first: int, until: int) -> tuple[int, int | None]:
        """Run the instants from `first` to `until`; return the last one decided, and the next."""
        compiled = self.compiled
        at: int | None = first
        reached = first - 1
        while at is not None and at <= until and self.budget > 0:
            if compiled.is_excluded_us(at):
                end = min(compiled.stretch_end_us(at), until)
                reached = self._skip(at, end, "excluded")
            else:
                self._run(at, at + compiled.jitter_us(at), caught_up=False)
                reached = at
            at = compiled.next_after_us(reached)
        return reached, at

    def catch_up(self, after: int, until: int) -> tuple[int, int] | None:
        """Decide missed instants in (after, until]; return the range that is left, or None."""
        compiled = self.compiled
        self._reason, self._alike = None, 0  # the live rows before these are later in time
        running_from, running = self._running(after, until)
        misfire = compiled.schedule.misfire
        pace_us = SECOND_US / misfire.rate_per_s if misfire.rate_per_s else 0.0
        run_at = float(self.now_us)
        at = compiled.next_after_us(after)
        while at is not None and at <= until:
            # What is paced is paced from now on, so it is left whole to a plan that can hold it.
            split = pace_us and at == running_from and self.budget < running <= self._whole
            if self.budget <= 0 or split:
                return at - 1, until
            end = min(compiled.stretch_end_us(at), until)
            if compiled.is_excluded_us(at):
                reached = self._skip(at, end, "excluded")
            elif running_from is None or at < running_from:
                end = end if running_from is None else min(end, running_from - 1)
                reached = self._skip(at, end, "misfire")
            else:
                self._run(at, round(run_at) + compiled.jitter_us(at), caught_up=True)
                run_at += pace_us
                reached = at
            at = compiled.next_after_us(reached)
        return None

    def _running(self, after: int, until: int) -> tuple[int | None, int]:
        """Find the first missed instant that runs, and how many do, looking back from the end."""
        compiled = self.compiled
        misfire = compiled.schedule.misfire
        wanted = {"skip": 0, "execute_once": 1, "catch_up": misfire.limit}[misfire.policy]
        if misfire.within_s is not None:
            # The outage was seen `grace` after the range's end, whenever this is asked.
            seen = until + 1 + round(misfire.grace_s * SECOND_US)
            after = max(after, seen - round(misfire.within_s * SECOND_US) - 1)
        first, found, closed = None, 0, 0
        at = compiled.last_until_us(until)
        while at is not None and at > after and found < wanted and closed < CLOSED_DAYS_MAX:
            if compiled.open_days is not None and compiled.is_excluded_us(at):
                closed += 1
                at = compiled.open_days.stretch_start(at)
            else:
                first, found = at, found + 1
            at = compiled.last_until_us(at - 1)
        return first, found

    def _run(self, at: int, run_at: int, *, caught_up: bool) -> None:
        self._reason, self._alike = None, 0
        self.budget -= 1
        self.rows.append(
            DueInstant(scheduled_for=from_us(at), run_at=from_us(run_at), caught_up=caught_up)
        )

    def _skip(self, at: int, until: int, reason: SkipReason) -> int:
        """Skip the instants in [at, until] for one reason; return the last one decided.

        The first hundred in a row are rows of their own; the rest are counted into one.
        """
        compiled = self.compiled
        if reason != self._reason:
            self._reason, self._alike = reason, 0
        following: int | None = at
        while following is not None and following <= until and self._alike < SINGLE_SKIPS_MAX:
            if self.budget <= 0:
                return following - 1
            self._alike += 1
            self.budget -= 1
            due = from_us(following)
            self.rows.append(DueInstant(scheduled_for=due, run_at=due, skip=reason))
            following = compiled.next_after_us(following)
        if following is None or following > until:
            return until
        if self.budget <= 0:
            return following - 1
        # A stretch costs budget even where it only lengthens a row: each takes a search.
        self.budget -= 1
        last = compiled.last_until_us(until)
        assert last is not None, "there is one at `following`"
        count = compiled.count_us(following - 1, until)
        if self._alike > SINGLE_SKIPS_MAX:
            folded = self.rows.pop()
            first, count = folded.scheduled_for, folded.count + count
        else:
            self._alike += 1
            first = from_us(following)
        self.rows.append(
            DueInstant(
                scheduled_for=first, run_at=first, skip=reason, last=from_us(last), count=count
            )
        )
        return until
