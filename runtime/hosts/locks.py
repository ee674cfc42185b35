"""Keeps the locks of a node's attempts: asks for them in turn, renews them, says when one is lost.

A lock is renewed at a third of its TTL while its holder shows signs of life, and trusted until the
start of its last renewal plus the TTL, less a margin. Past that its holder is ended, whether or
not the database can be reached: what stood still, or was cut off, learns of it before others may
hold the lock. What is lost is never released early, since its holder may still run.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final, Protocol, TypeVar

import anyio
import msgspec

from protocols.durations import format_duration, shown
from protocols.errors import UnavailableError
from protocols.ports.locks import LOCKS_MAX, LockClaim, LockStore
from runtime.clock import monotonic_ns
from runtime.hosts.lock_figures import LockFigures
from runtime.hosts.wanted_locks import (
    NS,
    Asker,
    Holder,
    Lose,
    Unwanted,
    Wanted,
    WantedLock,
    check,
)
from runtime.hosts.work import Work

Answer = TypeVar("Answer")

POLL_S: Final = 0.25
"""Between two looks at a lock that others hold; only the first to ask on this node looks."""
LOOK_S: Final = 1.0
"""Between two looks whether the locks held here are in force: somebody may release one by hand."""
_STATEMENT_S: Final = 3.0
_AWAY_S: Final = 0.5
_TICK_S: Final = 0.1


class LockDesk(Protocol):
    """What executors tell the keeper of locks."""

    def ask(
        self, work: Work, host: Asker, number: int, kind: str, value: bytes | None, lose: Lose
    ) -> None:
        """An attempt wants a lock, or wants it no more."""

    def ending(self, token: int) -> None:
        """The attempt was told to end."""

    def ended(self, token: int) -> None:
        """The attempt has ended, and nothing of it lives on."""


class LockKeeper:
    """All locks of one node's life; `run` must be under way. For the loop's own thread.

    Args:
        store: the books.
        now: the Clock port's now, by which those who wait are ordered over all nodes.
    """

    def __init__(self, *, store: LockStore, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now
        self._holders: dict[int, Holder] = {}
        self._queues: dict[tuple[str, str], deque[WantedLock]] = {}
        self._held: dict[int, WantedLock] = {}
        self._releases: list[tuple[WantedLock, int | None]] = []
        self._leaves: list[LockClaim] = []
        self._asked = anyio.Event()
        self._holds = anyio.Event()
        self._figures = LockFigures()

    async def run(self) -> None:
        """Ask, renew and watch, until cancelled."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._ask_books)
            group.start_soon(self._renew)
            group.start_soon(self._watch)

    async def close(self) -> None:
        """Free what ended attempts held, as far as the database can be reached now."""
        with anyio.move_on_after(_STATEMENT_S, shield=True):
            try:
                await self._let_go()
            except UnavailableError:
                return  # free by their TTL

    def figures(self) -> LockFigures:
        """Counters for metrics."""
        self._figures.held = len(self._held)
        self._figures.waiting = sum(len(queue) for queue in self._queues.values())
        return self._figures

    # What the executors call.

    def ask(
        self, work: Work, host: Asker, number: int, kind: str, value: bytes | None, lose: Lose
    ) -> None:
        """An attempt wants a lock, or wants it no more."""
        try:
            if kind == "lock":
                self._want(work, host, number, value or b"", lose)
            else:
                self._unwant(work, host, number, value or b"")
        except (msgspec.MsgspecError, ValueError) as error:
            host.answer(number, None, str(error))

    def ending(self, token: int) -> None:
        """The attempt was told to end: it need not wait for a lock any more."""
        holder = self._holders.get(token)
        for lock in list(holder.locks.values()) if holder is not None else ():
            if lock.waits():
                self._drop(lock)
                lock.answer(error="the attempt is being ended")

    def ended(self, token: int) -> None:
        """The attempt has ended, and nothing of it lives on: its locks are free."""
        holder = self._holders.pop(token, None)
        for lock in list(holder.locks.values()) if holder is not None else ():
            if lock.waits():
                self._drop(lock)
            elif lock.state == "held":
                self._release(lock, None)

    # Wishes.

    def _want(self, work: Work, host: Asker, number: int, value: bytes, lose: Lose) -> None:
        wanted = msgspec.json.decode(value, type=Wanted)
        check(wanted)
        if work.is_ending():
            raise ValueError("the attempt is being ended")
        holder = self._holders.get(work.token)
        if holder is None:
            holder = self._holders[work.token] = Holder(work, host, lose)
        alive = [lock for lock in holder.locks.values() if lock.state in {"waiting", "held"}]
        if any(lock.claim.name == wanted.name for lock in alive):
            raise ValueError(
                f"this attempt holds the lock {shown(wanted.name)} or waits for it already: a lock "
                "cannot be taken twice"
            )
        if len(alive) >= LOCKS_MAX:
            raise ValueError(f"an attempt has at most {LOCKS_MAX} locks")
        claim = LockClaim(
            id=work.assignment.id,
            tenant=work.assignment.tenant,
            fencing_token=work.token,
            name=wanted.name,
            ttl_s=wanted.ttl_s,
            asked_at=self._now(),
            queues=wanted.wait_s != 0,
        )
        over_ns = None if wanted.wait_s is None else monotonic_ns() + int(wanted.wait_s * NS)
        lock = WantedLock(holder, claim, request=wanted.request, number=number, over_ns=over_ns)
        holder.locks[wanted.request] = lock
        queue = self._queues.setdefault(lock.key, deque())
        if queue and not claim.queues:
            self._give_up(lock)
            return
        queue.append(lock)
        self._asked.set()

    def _unwant(self, work: Work, host: Asker, number: int, value: bytes) -> None:
        request = msgspec.json.decode(value, type=Unwanted).request
        holder = self._holders.get(work.token)
        lock = holder.locks.pop(request, None) if holder is not None else None
        if lock is None or lock.state == "over":
            host.answer(number, True, None)
        elif lock.state == "lost":
            host.answer(number, None, lock.trouble)
        elif lock.waits():
            self._drop(lock)
            host.answer(number, True, None)
        else:
            self._release(lock, number)

    def _give_up(self, lock: WantedLock) -> None:
        """It has waited as long as it wanted to."""
        self._drop(lock)
        lock.answer(None)

    def _drop(self, lock: WantedLock) -> None:
        lock.state = "over"
        lock.holder.locks.pop(lock.request, None)
        queue = self._queues.get(lock.key)
        if queue is not None:
            first = bool(queue) and queue[0] is lock
            if lock in queue:
                queue.remove(lock)
            if not queue:
                del self._queues[lock.key]
            elif first:
                queue[0].next_ns = 0
        if lock.claim.queues:
            self._leaves.append(lock.claim)
        self._asked.set()

    def _release(self, lock: WantedLock, number: int | None) -> None:
        lock.state = "over"
        self._held.pop(lock.token, None)
        self._releases.append((lock, number))
        self._asked.set()

    # Asking the books: one statement at a time, whatever the number of those who wait.

    async def _ask_books(self) -> None:
        while True:
            self._asked = anyio.Event()
            away = False
            try:
                await self._let_go()
                for lock in self._due():
                    await self._take(lock)
                    await self._let_go()
            except UnavailableError:
                away = True
                self._overdue()
            if away:
                await anyio.sleep(_AWAY_S)
                continue
            nearest = min((queue[0].next_ns for queue in self._queues.values()), default=None)
            left_s = None if nearest is None else max(0.0, (nearest - monotonic_ns()) / NS)
            with anyio.move_on_after(left_s):
                await self._asked.wait()

    def _due(self) -> list[WantedLock]:
        """The first of each queue whose time has come, the longest due first."""
        self._overdue()
        now = monotonic_ns()
        due = [queue[0] for queue in self._queues.values() if queue[0].next_ns <= now]
        return sorted(due, key=lambda lock: lock.next_ns)

    def _overdue(self) -> None:
        """Give up for those whose wait is over, but for one that was never tried."""
        now = monotonic_ns()
        for queue in list(self._queues.values()):
            for place, lock in enumerate(list(queue)):
                fresh = place == 0 and lock.next_ns == lock.asked_ns
                if lock.over_ns is not None and now >= lock.over_ns and not fresh:
                    self._give_up(lock)

    async def _take(self, lock: WantedLock) -> None:
        if not lock.waits():
            return
        since_ns = monotonic_ns()
        lock.next_ns = since_ns + int(POLL_S * NS)
        try:
            token = await _within(self._store.take(lock.claim))
        except UnavailableError:
            if not lock.waits():
                self._release(lock, None)  # it may have been taken all the same
            raise
        if token is None:
            if lock.waits():
                self._drop(lock)
                lock.answer(error="this attempt was given up: its fencing token is spent")
            return
        lock.token = token
        if not lock.waits():
            if token:
                self._release(lock, None)
            return
        if not token:
            return
        lock.trust(since_ns)
        if monotonic_ns() >= lock.trusted_ns:
            return  # the answer came too late to rely on: the next take draws a new token
        self._granted(lock)

    def _granted(self, lock: WantedLock) -> None:
        queue = self._queues[lock.key]
        queue.remove(lock)
        if not queue:
            del self._queues[lock.key]
        lock.state = "held"
        lock.pulse = lock.holder.host.pulse()
        self._held[lock.token] = lock
        self._figures.waited((monotonic_ns() - lock.asked_ns) / NS)
        self._holds.set()
        lock.answer(lock.token)

    async def _let_go(self) -> None:
        """Tell the books of what is over, then let the next one ask."""
        if self._leaves:
            leaves = self._leaves
            await _within(self._store.leave(leaves[:]))
            del leaves[: len(leaves)]
        while self._releases:
            given = self._releases[:LOCKS_MAX]
            try:
                freed = set(await _within(self._store.release([lock.hold for lock, _ in given])))
            except UnavailableError:
                # Nobody need wait for it: the lock was in force to the end of its block.
                for place, (lock, number) in enumerate(given):
                    self._answer_freed(lock, number)
                    self._releases[place] = (lock, None)
                raise
            del self._releases[: len(given)]
            for lock, number in given:
                if number is not None and lock.token not in freed:
                    self._lose(lock, "somebody released it, or it had expired")
                    lock.holder.host.answer(number, None, lock.trouble)
                else:
                    self._answer_freed(lock, number)
                if lock.key in self._queues:
                    self._queues[lock.key][0].next_ns = 0

    def _answer_freed(self, lock: WantedLock, number: int | None) -> None:
        if number is not None:
            lock.holder.host.answer(number, True, None)

    # Holding.

    async def _renew(self) -> None:
        while True:
            await self._some_held()
            now = monotonic_ns()
            given = [(lock, self._is_due(lock, now)) for lock in self._held.values()]
            try:
                known = set(
                    await _within(self._store.renew([(lock.hold, due) for lock, due in given]))
                )
            except UnavailableError as error:
                for lock, _ in given:
                    lock.trouble = str(error)
            else:
                for lock, due in given:
                    if lock.state != "held":
                        continue
                    if lock.token not in known:
                        self._lose(lock, "somebody released it, or it had expired")
                    elif due:
                        lock.pulse = lock.holder.host.pulse()
                        lock.trust(now)
            nearest = min((lock.renew_ns for lock in self._held.values()), default=now)
            left_s = (nearest - monotonic_ns()) / NS
            await anyio.sleep(min(LOOK_S, max(_TICK_S, left_s)))

    def _is_due(self, lock: WantedLock, now: int) -> bool:
        if now < lock.renew_ns:
            return False
        if lock.holder.host.pulse() == lock.pulse:
            lock.trouble = "its process stands still"
            return False
        return True

    async def _watch(self) -> None:
        while True:
            await self._some_held()
            now = monotonic_ns()
            for lock in list(self._held.values()):
                if now >= lock.trusted_ns:
                    ttl = format_duration(lock.claim.ttl_s)
                    self._lose(lock, f"not renewed within its TTL of {ttl}: {lock.trouble}")
            await anyio.sleep(_TICK_S)

    async def _some_held(self) -> None:
        while not self._held:
            if self._holds.is_set():  # else somebody waits for this very one
                self._holds = anyio.Event()
            await self._holds.wait()

    def _lose(self, lock: WantedLock, why: str) -> None:
        self._held.pop(lock.token, None)
        lock.state = "lost"
        lock.trouble = f"the lock {shown(lock.claim.name)} was lost: {why}"
        self._figures.lost += 1
        lock.holder.lose(lock.holder.work, lock.trouble)


async def _within(statement: Awaitable[Answer]) -> Answer:
    """What the books answer, where they do so in time."""
    try:
        with anyio.fail_after(_STATEMENT_S):
            return await statement
    except TimeoutError as error:
        raise UnavailableError("the database does not answer") from error
