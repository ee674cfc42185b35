"""`ctx.lock` inside a host: a block that runs while its attempt holds a lock by name."""

import asyncio
from concurrent.futures import Future
from itertools import count
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from protocols.durations import parse_duration, shown
from protocols.ports.locks import LOCK_TTL_S_MAX, LOCK_TTL_S_MIN
from runtime.hosts.child.attempt import Attempt
from runtime.hosts.wire import BOARD_PULSE

BEAT_S: Final = 0.1

_requests: Final = count(1)


class Pulse:
    """Counts up on the board, by a thread of its own, while an attempt here has to do with locks.

    A task that holds its host's loop, or waits in a blocking call, keeps its locks by it; a
    process that is stopped does not.
    """

    def __init__(self, board: memoryview) -> None:
        self._board = board
        self._lock = Lock()
        self._tokens: dict[int, int] = {}
        self._over = Event()
        self._thread: Thread | None = None

    def begin(self, token: int) -> None:
        """An attempt asks for a lock; from any thread."""
        with self._lock:
            self._tokens[token] = self._tokens.get(token, 0) + 1
            if self._thread is None:
                self._over = Event()
                self._thread = Thread(
                    target=self._beat, args=(self._over,), name="locks", daemon=True
                )
                self._thread.start()

    def end(self, token: int) -> None:
        """It has one lock less."""
        with self._lock:
            left = self._tokens.get(token, 0) - 1
            if left > 0:
                self._tokens[token] = left
            else:
                self._tokens.pop(token, None)
            self._rest()

    def forget(self, token: int) -> None:
        """The attempt has ended."""
        if token in self._tokens:
            with self._lock:
                self._tokens.pop(token, None)
                self._rest()

    def _rest(self) -> None:
        thread = self._thread
        if thread is not None and not self._tokens:
            self._thread = None
            self._over.set()
            thread.join()

    def _beat(self, over: Event) -> None:
        while not over.wait(BEAT_S):
            self._board[BOARD_PULSE] += 1


class HeldLock:
    """What both kinds of lock are; made by `ctx.lock`.

    Raises:
        DurationError: `ttl` or `wait` is none.
    """

    __slots__ = ("_attempt", "_request", "_token", "_ttl_s", "_wait_s", "name")

    def __init__(
        self, attempt: Attempt, name: str, ttl: float | str, wait: float | str | None
    ) -> None:
        self.name = name
        self._attempt = attempt
        self._ttl_s = parse_duration(ttl, minimum_s=LOCK_TTL_S_MIN)
        if self._ttl_s > LOCK_TTL_S_MAX:
            raise ValueError(f"{shown(ttl)} is too long for a lock: 24h is the longest")
        # A try without any wait is a duration here only.
        self._wait_s = wait if wait is None or wait == 0 else parse_duration(wait)
        self._request = 0
        self._token = 0

    @property
    def token(self) -> int:
        """Grows with every holder of any lock: a resource can refuse a late one by it.

        Raises:
            RuntimeError: the lock is not held.
        """
        if not self._token:
            raise RuntimeError(f"the lock {shown(self.name)} is not held")
        return self._token

    def _ask(self) -> "Future[Any]":
        if self._request:
            raise RuntimeError(f"the lock {shown(self.name)} is in use: make another `ctx.lock`")
        self._request = next(_requests)
        wanted = {
            "request": self._request,
            "name": self.name,
            "ttl_s": self._ttl_s,
            "wait_s": self._wait_s,
        }
        value = msgspec.json.encode(wanted)
        self._attempt.asks.begin_pulse(self._attempt.run.token)
        return self._attempt.ask("lock", value)

    def _take(self, token: int | None) -> Self:
        if token is None:
            self._forget()
            raise TimeoutError(f"the lock {shown(self.name)} was not free within {self._wait_s:g}s")
        self._token = token
        return self

    def _free(self) -> "Future[Any]":
        request = self._request
        self._forget()
        return self._attempt.ask("unlock", msgspec.json.encode({"request": request}))

    def _forget(self) -> None:
        self._request = self._token = 0
        self._attempt.asks.end_pulse(self._attempt.run.token)


class AsyncLock(HeldLock):
    """A lock for `async with`."""

    __slots__ = ()

    async def __aenter__(self) -> Self:
        """Wait for the lock.

        Raises:
            TimeoutError: it was not free within `wait`.
            RuntimeError: this attempt has it already, or its name is none.
        """
        asked = self._ask()
        try:
            token = await asyncio.wrap_future(asked)
        except BaseException:
            self._free()  # a grant may be on its way
            raise
        return self._take(token)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Free the lock; a block that ended well fails where its lock had been lost."""
        try:
            await asyncio.wrap_future(self._free())
        except RuntimeError:
            if error is None:
                raise


class SyncLock(HeldLock):
    """A lock for `with`, in a plain `def` task."""

    __slots__ = ()

    def __enter__(self) -> Self:
        """Wait for the lock; raises as `AsyncLock` does."""
        asked = self._ask()
        try:
            token = asked.result()
        except BaseException:
            self._free()
            raise
        return self._take(token)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Free the lock; a block that ended well fails where its lock had been lost."""
        try:
            self._free().result()
        except RuntimeError:
            if error is None:
                raise
