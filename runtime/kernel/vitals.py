"""What a cell is, was asked to become, and lets go of: state, goals, grace, and the final end.

The half of a cell that others call; the other half, its task, is in `cell`.
"""

import asyncio
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Literal

from protocols.actor import Actor, ActorDead, DeadReason, EndReason, Props, Terminated
from runtime.kernel.items import Ask, Death, Outcome, Tick, Watched, Watcher, bare
from runtime.kernel.mailbox import DEAD, UNUSED, Lanes

if TYPE_CHECKING:
    from runtime.kernel.context import CellContext
    from runtime.kernel.pipes import Pipes
    from runtime.kernel.refs import LocalRef
    from runtime.kernel.supervisor import Family
    from runtime.kernel.system import ActorSystem
    from runtime.kernel.timers import Handle

State = Literal["new", "starting", "running", "stopping", "backoff", "suspended", "dead"]
Goal = Literal["run", "finish", "suspend", "stop"]
"""What a cell is asked to become; `suspend` ends the instance and keeps the mailbox."""

SLOW_NS = 100_000
"""A message below this is not kept among the slowest."""


class Vitals(Lanes):
    """State and end of one actor. Everything on it happens on the loop's thread."""

    __slots__ = (
        "actor",
        "aliases",
        "began",
        "ctx",
        "current",
        "dynamic",
        "end_reason",
        "ending",
        "failing",
        "family",
        "forced",
        "goal",
        "grace",
        "handled",
        "kept",
        "last_error",
        "name",
        "owed",
        "parent",
        "pause",
        "pipes",
        "props",
        "ref",
        "restarts",
        "signal",
        "slow_ns",
        "slowest",
        "stashed",
        "state",
        "system",
        "task",
        "ticks",
        "watchers",
        "watching",
    )

    def __init__(
        self, system: "ActorSystem", parent: "Vitals | None", name: str, props: Props
    ) -> None:
        super().__init__(props.mailbox)
        self.system = system
        self.parent = parent
        self.name = name
        self.props = props
        self.ref: LocalRef = system.ref_class(self, system.next_incarnation())
        self.state: State = "new"
        self.goal: Goal = "run"
        self.signal = False
        """Something but a message wants the loop's attention: a stop, or a failure to raise."""
        self.task: asyncio.Task[None] | None = None
        self.actor: Actor | None = None
        self.ctx: CellContext | None = None
        self.began = False
        self.ending = False
        self.dynamic = False
        self.current: Any = None
        self.kept = False
        """The message in hand was stashed, or its answer deferred."""
        self.failing: Exception | None = None
        self.forced = 0
        """Cancels of ours that the task has not taken back."""
        self.restarts = 0
        self.handled = 0
        self.slow_ns = SLOW_NS
        self.slowest: list[tuple[int, str]] | None = None
        self.last_error: str | None = None
        self.end_reason: EndReason | None = None
        self.family: Family | None = None
        self.grace: Handle | None = None
        self.pause: Handle | None = None
        self.pipes: Pipes | None = None
        self.ticks: dict[Tick, None] | None = None
        self.stashed: list[Any] | None = None
        self.owed: dict[Ask, None] | None = None
        self.watchers: dict[Watcher, None] | None = None
        self.watching: dict[Watched, None] | None = None
        self.aliases: list[str] | None = None

    # What Lanes asks of it.

    @property
    def path(self) -> str:
        """Where it is in its tree."""
        if self.parent is None:
            return "/"
        above = self.parent.path
        return f"{above}{self.name}" if above == "/" else f"{above}/{self.name}"

    @property
    def closed(self) -> bool:
        """Whether the actor has ended for good."""
        return self.state == "dead"

    def now_s(self) -> float:
        """Seconds on the scale of the system's timers."""
        return self.system.timers.time()

    def bury(self, item: Any, reason: DeadReason, error: BaseException | None = None) -> None:
        """Make a dead letter of it; an asker is told by `error`."""
        if isinstance(item, Ask) and not item.future.done():
            if isinstance(error, Exception):
                item.future.set_exception(error)
            self.system.deadlines.drop(item)
        self.system.dead_letters.bury(bare(item), self.path, reason, error)

    # Start.

    def start(self) -> None:
        """Start an instance; after the first time it is a restart."""
        self._end_pause()
        if self.state != "new":
            self.restarts += 1
            if self.family is not None:
                self.family.renew()
        self.goal = "run"
        self.signal = self.ending = False
        self.set_state("starting")
        self.task = self.system.nursery.start(self.run(), self)

    def start_in(self, delay_s: float) -> None:
        """Start after a wait; messages gather meanwhile."""
        if delay_s <= 0:
            self.start()
            return
        self.set_state("backoff")
        self.pause = self.system.timers.call_later(delay_s, self.start)

    def _end_pause(self) -> None:
        if self.pause is not None:
            self.pause.cancel()
            self.pause = None

    def set_state(self, state: State) -> None:
        """Change state, and let those who wait for it look; the dead stay dead."""
        if self.state != "dead":
            self.state = state
        family = self.family if self.parent is None else self.parent.family
        if family is not None:
            family.notify()

    @abstractmethod
    async def run(self) -> None:
        """Live one instance from start to end."""

    # What others ask of it.

    def request(self, goal: Goal) -> None:
        """Ask for an end: of the instance (`finish`, `suspend`) or of the actor (`stop`)."""
        if self.closed or self.goal == "stop":
            return
        if goal != "finish" or self.goal == "run":
            self.goal = goal
        if self.task is not None:
            self._interrupt()
            return
        self._end_pause()
        if goal == "stop":
            self.terminate("stopped")
        else:
            self.set_state("suspended")

    def fail(self, error: Exception) -> None:
        """Raise `error` in this actor, after the message in hand; for its own supervision."""
        if self.task is not None and not self.ending and self.failing is None:
            self.failing = error
            self._interrupt()

    def _interrupt(self) -> None:
        self.signal = True
        if not self.ending and self.grace is None and self.waiter is None:
            self.begin_grace()  # it is busy; one that is parked needs no timer to come at once
        self.wake()
        if self.family is not None:
            self.family.notify()

    def begin_grace(self) -> None:
        """From here on it has its grace, then it is cancelled."""
        self.grace = self.system.timers.call_later(self.props.stop_grace_s, self._force)

    def end_grace(self) -> None:
        """It ended in time."""
        if self.grace is not None:
            self.grace.cancel()
            self.grace = None

    def _force(self) -> None:
        """The grace is over: cancel, and again each grace, for one that swallows it."""
        if self.task is not None:
            self.forced += 1
            self.task.cancel()
            again_s = max(0.05, self.props.stop_grace_s)
            self.grace = self.system.timers.call_later(again_s, self._force)

    def terminate(self, reason: EndReason) -> None:
        """End for good: nothing more is accepted, and all who wait or watch are told."""
        if self.closed:
            return
        self.end_reason = reason
        self.room = 0
        self._end_pause()
        if self.family is not None:
            for child in reversed(list(self.family.children.values())):
                child.terminate(reason)
        self.state = "dead"
        dead = ActorDead(f"{self.path} has ended")
        for lane in (self.urgent, self.normal):
            while lane:
                item = lane.popleft()
                if not isinstance(item, Tick):
                    self.bury(item, "dead", dead)
        for future, _ in self.putters or ():
            if not future.done():
                future.set_result(DEAD)
        self.putters = self.slots = None
        self.normal = self.urgent = self.system_lane = UNUSED
        note = Terminated(self.ref, reason)
        watchers, self.watchers = self.watchers, None
        for watcher in watchers or ():
            watcher.push_system(Death(note, self))
        self.system.forget(self)
        if self.parent is not None and self.parent.family is not None:
            self.parent.family.forget(self)

    def watched_by(self, watcher: Watcher) -> None:
        """From here on, tell `watcher` of the end."""
        if self.watchers is None:
            self.watchers = {}
        self.watchers[watcher] = None

    def unwatched_by(self, watcher: Watcher) -> None:
        """No more."""
        if self.watchers is not None:
            self.watchers.pop(watcher, None)

    def get_family(self) -> "Family":
        """Its children, and how they are supervised; made at the first child."""
        if self.family is None:
            self.family = self.system.family_class(self)
        return self.family

    def release(self, failure: BaseException | None) -> None:
        """Let go of all that was this instance's."""
        self.end_grace()
        for tick in list(self.ticks or ()):
            tick.cancel()
        for target in self.watching or ():
            target.unwatched_by(self)
        owed, self.owed = self.owed, None
        for ask in owed or ():
            if not ask.future.done():
                error = ActorDead(f"{self.path} ended before it answered")
                error.__cause__ = failure
                ask.future.set_exception(error)
                self.system.deadlines.drop(ask)
        for item in [item for item in self.system_lane if isinstance(item, Outcome)]:
            self.system_lane.remove(item)
        stashed, self.stashed = self.stashed, None
        if self.closed:  # a killed parent has ended it already
            for item in stashed or ():
                self.bury(item, "dead", ActorDead(f"{self.path} has ended"))
        elif stashed:
            self.push_front(stashed)
        self.ticks = self.watching = self.pipes = self.actor = self.ctx = None
        self.current = self.waiter = self.task = self.failing = None
        self.began = self.signal = self.kept = False

    def abort(self) -> None:
        """The whole system is being cancelled: no more awaiting, everyone who waits is told."""
        item, self.current = self.current, None
        if item is not None and not isinstance(item, Tick | Outcome):
            self.bury(item, "cancelled", ActorDead(f"{self.path} was killed"))
        self.release(None)
        self.terminate("killed")
