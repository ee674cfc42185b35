"""The near future that a TimerActor holds: schedules that fall due soon, ready to fire.

What is due in the next minutes sits in a timing wheel with its on-time firing made in advance, so
that the instant itself costs one statement and no arithmetic.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from actors.timer.misfire import plan_due
from actors.timer.schedule import CompiledSchedule, compile_schedule
from actors.timer.wheel import Timer, TimingWheel
from protocols.instants import to_epoch_ns
from protocols.jobs import JobSpec
from protocols.ports.store import DueInstant, DueSchedule, Firing

_DEFINITIONS_KEPT: Final = 20_000
AHEAD_NS: Final = 1_500_000_000
"""How long before its instant an execution may be inserted where overlap is allowed: time alone
makes it ready, so that a busy second finds its work in the table when the clock strikes."""

Key = tuple[int, int]
"""A job's key and the version of its definition."""


class Definition(msgspec.Struct, frozen=True):
    """A version of a job with its schedule ready to be asked."""

    spec: JobSpec
    compiled: CompiledSchedule


class Definitions:
    """Compiled definitions; a version never changes, so they are kept, the oldest let go."""

    def __init__(self) -> None:
        self._kept: dict[Key, Definition] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._kept

    def __getitem__(self, key: Key) -> Definition:
        return self._kept[key]

    def add(self, key: Key, spec: JobSpec, anchor: datetime) -> None:
        """Compile a version.

        Raises:
            ValueError: Its schedule cannot be read any more, such as a zone that is gone.
        """
        if spec.schedule is None:
            raise ValueError("this version has no schedule")
        salt = f"{spec.tenant}/{spec.job_id}".encode()
        compiled = compile_schedule(
            spec.schedule, anchor=anchor, salt=salt, calendars=spec.calendars
        )
        self._kept[key] = Definition(spec, compiled)
        while len(self._kept) > _DEFINITIONS_KEPT:
            del self._kept[next(iter(self._kept))]


class Held:
    """One schedule in the wheel."""

    __slots__ = ("definition", "due", "on_time", "timer")

    def __init__(self, due: DueSchedule, definition: Definition) -> None:
        self.due = due
        self.definition = definition
        self.on_time: Firing | None = None
        self.timer: Timer | None = None

    def prepare(self) -> None:
        """Make the firing for the case that the instant is met on time, if it is a plain one."""
        due, compiled = self.due, self.definition.compiled
        at = due.next_fire_at
        plain = compiled.schedule.kind != "after" and due.catchup_from is None
        if at is None or not plain or compiled.is_excluded(at):
            return
        self.on_time = Firing(
            job_key=due.job_key,
            version=due.version,
            spec=self.definition.spec,
            seen_cursor=due.cursor,
            cursor=at,
            next_fire_at=compiled.next_after(at),
            instants=(DueInstant(scheduled_for=at, run_at=compiled.run_at(at)),),
        )

    @property
    def ahead(self) -> bool:
        """Whether its next execution may be inserted before the instant.

        Nothing that happens until then, short of a change that withdraws it, decides otherwise.
        """
        spec = self.definition.spec
        return self.on_time is not None and spec.overlap == "allow" and not spec.dependencies

    def plan(self, now: datetime, budget: int) -> tuple[Firing, bool]:
        """Decide what fell due by `now`; whether more is left to decide after that."""
        due, on_time = self.due, self.on_time
        compiled = self.definition.compiled
        if on_time is not None and due.next_fire_at is not None:
            following = on_time.next_fire_at
            grace = timedelta(seconds=compiled.schedule.misfire.grace_s)
            if now - due.next_fire_at <= grace and (following is None or following > now):
                return on_time, False
        pending = None
        if due.catchup_from is not None and due.catchup_until is not None:
            pending = (due.catchup_from, due.catchup_until)
        plan = plan_due(
            compiled,
            cursor=due.cursor,
            now=now,
            next_fire_at=due.next_fire_at,
            catchup=pending,
            budget=budget,
        )
        firing = Firing(
            job_key=due.job_key,
            version=due.version,
            spec=self.definition.spec,
            seen_cursor=due.cursor,
            seen_catchup_from=due.catchup_from,
            cursor=plan.cursor,
            next_fire_at=plan.next_fire_at,
            catchup_from=plan.catchup_from,
            catchup_until=plan.catchup_until,
            instants=plan.instants,
        )
        return firing, plan.more


class NearFuture:
    """The wheel, and what is in it by job."""

    def __init__(self, now_ns: int, on_broken: Callable[[int, Exception], None]) -> None:
        self.definitions = Definitions()
        self._on_broken = on_broken
        self._wheel = TimingWheel(now_ns)
        self._held: dict[int, Held] = {}
        self._punctual: set[int] = set()

    def __len__(self) -> int:
        return len(self._held)

    def lacking(self, rows: Sequence[DueSchedule]) -> list[Key]:
        """The definitions that these rows need and that are not here."""
        wanted = {(row.job_key, row.version) for row in rows}
        return [key for key in wanted if key not in self.definitions]

    def hold(self, row: DueSchedule) -> None:
        """Put a schedule in, in place of what is held of that job; nothing where it is the same."""
        held = self._held.get(row.job_key)
        if held is not None:
            if held.due == row:
                return
            self.drop(row.job_key)
        key = (row.job_key, row.version)
        if key not in self.definitions:
            return
        held = Held(row, self.definitions[key])
        try:
            held.prepare()
        except (ValueError, OverflowError) as error:
            self._on_broken(row.job_key, error)
            return
        at = row.next_fire_at
        when_ns = self._wheel.now_ns if at is None else to_epoch_ns(at)
        if held.ahead and row.job_key not in self._punctual:
            when_ns -= AHEAD_NS
        held.timer = self._wheel.insert(when_ns, row.job_key)
        self._held[row.job_key] = held

    def moved(self, job_key: int) -> None:
        """A firing of this job was applied."""
        self._punctual.discard(job_key)

    def refused(self, job_key: int) -> None:
        """A firing of this job was not: its next one waits for the instant itself."""
        self._punctual.add(job_key)

    def drop(self, job_key: int) -> None:
        """Forget a job."""
        held = self._held.pop(job_key, None)
        if held is not None and held.timer is not None:
            self._wheel.cancel(held.timer)

    def due(self, now_ns: int) -> Iterator[Held]:
        """Take out what is due by now, in the order of its instants."""
        for timer in self._wheel.advance(now_ns):
            held = self._held.pop(timer.item, None)
            if held is not None:
                yield held

    def next_ns(self) -> int | None:
        """When to look again."""
        return self._wheel.next_expiry()
