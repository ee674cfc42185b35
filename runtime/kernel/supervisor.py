"""The children of one actor: started in order, restarted by strategy, stopped in reverse order.

Decisions are taken synchronously when a child ends, never in the parent's own messages, so that
a parent that is busy, or that asks its child, cannot hold up its restart.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from protocols.actor import Actor, NameTaken, Props, RestartBudgetExceeded
from runtime.kernel import budget
from runtime.kernel.cell import Cell
from runtime.kernel.vitals import Vitals

if TYPE_CHECKING:
    from runtime.kernel.refs import LocalRef

FORBIDDEN = frozenset("/ \t\r\n")


def kind_of(props: Props) -> str:
    """What a child without a name is named after."""
    return getattr(props.factory, "__name__", "actor").strip("<>").lower()


class Family:
    """One actor's children, oldest first."""

    __slots__ = (
        "_budget",
        "_number",
        "_pending",
        "_sequence",
        "_waiting",
        "cell",
        "children",
    )

    def __init__(self, cell: Vitals) -> None:
        self.cell = cell
        self.children: dict[str, Vitals] = {}
        self._budget = budget.RestartBudget(cell.props.budget)
        self._number = 0
        self._waiting: list[asyncio.Future[None]] = []
        self._pending: list[tuple[Vitals, float]] = []
        """Children whose failure restarts others too, each with its wait."""
        self._sequence: asyncio.Task[None] | None = None

    # Waiting for a change of a child, or for the parent's own end.

    def notify(self) -> None:
        """Something changed: let those who wait look."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for future in waiting:
                if not future.done():
                    future.set_result(None)

    async def wait(self, ready: Callable[[], bool]) -> None:
        """Return once `ready()`; looks at each change."""
        while not ready():
            future: asyncio.Future[None] = self.cell.system.loop.create_future()
            self._waiting.append(future)
            await future

    @property
    def leaving(self) -> bool:
        """The parent's instance ends, so nothing is restarted under it any more."""
        return self.cell.signal or self.cell.ending or self.cell.task is None

    # Start and stop.

    def renew(self) -> None:
        """A new instance of the parent begins with an unspent budget."""
        self._budget = budget.RestartBudget(self.cell.props.budget)

    def spawn(self, props: Props | Callable[[], Actor], name: str | None) -> "LocalRef":
        """Start a child that ends with this instance of its parent.

        Raises:
            NameTaken: A living child has that name.
            ValueError: The name holds a slash or white space.
        """
        if not isinstance(props, Props):
            props = Props(factory=props)
        child = self._adopt(props, name or props.name or self._new_name(props))
        child.dynamic = True
        child.start()
        return child.ref

    def _new_name(self, props: Props) -> str:
        self._number += 1
        return f"{kind_of(props)}-{self._number}"

    def _adopt(self, props: Props, name: str) -> Vitals:
        if name in self.children:
            raise NameTaken(f"{self.cell.path} has a living child named {name}")
        if not FORBIDDEN.isdisjoint(name):
            raise ValueError(f"an actor's name holds no slash and no space: {name!r}")
        child = self.children[name] = Cell(self.cell.system, self.cell, name, props)
        return child

    async def start_all(self, children: tuple[Props, ...]) -> None:
        """Start the declared children in order, each when the one before runs."""
        self._number = max(self._number, len(children))
        for place, props in enumerate(children, 1):
            name = props.name or f"{kind_of(props)}-{place}"
            child = self.children.get(name)
            if child is None:
                child = self._adopt(props, name)
            await self._start_one(child)
            if self.leaving:
                return

    async def _start_one(self, child: Vitals) -> None:
        child.start()
        await self.wait(
            lambda: child.state in ("running", "dead") or self.leaving or bool(self._pending)
        )

    async def stop_all(self) -> None:
        """End all children in reverse order, each when the one after it has ended.

        The declared ones keep their mailboxes, in case the parent is restarted.
        """
        self.notify()
        await self.wait(lambda: self._sequence is None)
        for child in reversed(list(self.children.values())):
            child.request("stop" if child.dynamic else "suspend")
            await self.wait(lambda child=child: child.task is None)  # type: ignore[misc]

    def forget(self, child: Vitals) -> None:
        """It has ended for good: its name is free."""
        if self.children.get(child.name) is child:
            del self.children[child.name]
        self.notify()

    # Failure.

    def child_ended(self, child: Vitals, failure: Exception | None) -> None:
        """Decide what becomes of a child whose instance has ended."""
        if child.goal == "stop":
            child.terminate("stopped")
        if child.closed:
            return
        if child.goal == "suspend" or self.leaving:
            child.set_state("suspended")
            return
        failed = failure is not None
        if not budget.restarts(child.props.restart, failed=failed):
            child.terminate("failed" if failed else "finished")
            return
        props, system = self.cell.props, self.cell.system
        number = self._budget.spend(system.timers.time())
        if number is None:
            child.set_state("suspended")
            error = RestartBudgetExceeded(
                f"{child.path} would be restart {props.budget.restarts + 1} "
                f"in {props.budget.within_s:g} s under {self.cell.path}"
            )
            error.__cause__ = failure
            self.cell.fail(error)
            return
        wait_s = budget.delay_s(props.backoff, number, system.backoff_random)
        if props.strategy == "one_for_one":
            child.start_in(wait_s)
            return
        child.set_state("suspended")
        self._pending.append((child, wait_s))
        if self._sequence is None:
            self._sequence = system.nursery.start(self._restart_groups(), self.cell, " restarts")
        self.notify()

    async def _restart_groups(self) -> None:
        """Restart those that a failure takes with it, until no failure is left.

        A child that fails meanwhile begins a new round, of the oldest that failed.
        """
        try:
            while self._pending and not self.leaving:
                pending, self._pending = self._pending, []
                order = list(self.children.values())
                alive = [child for child, _ in pending if child in order]
                if not alive:
                    continue
                first = min(alive, key=order.index)
                group = budget.affected(self.cell.props.strategy, order, first)
                await self._stop_group(group)
                await self._pause(max(wait_s for _, wait_s in pending))
                for child in group:
                    if self._pending or self.leaving:
                        break
                    if child.state == "suspended":
                        await self._start_one(child)
        finally:
            self._sequence = None
            self._pending.clear()
            self.notify()

    async def _stop_group(self, group: list[Vitals]) -> None:
        for child in reversed(group):
            if self.leaving:
                return
            child.request("stop" if child.props.restart == "temporary" else "suspend")
            await self.wait(lambda child=child: child.task is None or self.leaving)  # type: ignore[misc]

    async def _pause(self, wait_s: float) -> None:
        if wait_s <= 0:
            return
        over = False

        def ring() -> None:
            nonlocal over
            over = True
            self.notify()

        timer = self.cell.system.timers.call_later(wait_s, ring)
        try:
            await self.wait(lambda: over or self.leaving)
        finally:
            timer.cancel()
