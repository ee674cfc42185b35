"""Connections to one database by one role: few, kept, and mended by themselves after an outage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self, TypeAlias, TypeVar
from weakref import WeakSet

import asyncpg
import msgspec

from protocols.errors import TickwrightError, UnavailableError
from runtime.postgres.errors import SAID, raced, refusal, unavailable
from runtime.postgres.hosts import Hosts

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

Session: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"

Answer = TypeVar("Answer")

NODE_ROLE: Final = "tickwright_node"
API_ROLE: Final = "tickwright_api"

_TRIES: Final = 5
_CONNECT_S: Final = 5.0
# A little past the server's own timeout: it answers for a server that is gone without a word.
_COMMAND_S: Final = 40.0
_RELEASE_S: Final = 2.0
_BACKOFF_FIRST_S: Final = 0.05
_BACKOFF_MAX_S: Final = 2.0

LIMITS: Final = {
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "10s",
    "timezone": "UTC",
    "jit": "off",
    # A node that lost its power says no farewell, and what it had locked must not stay locked.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "20s",
}
"""What every session of ours sets."""

PINNED: Final = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_material": "off",
    "enable_sort": "off",
    "enable_incremental_sort": "off",
}
"""What the node's sessions add: each hot statement is written so that index probes driven by its
arrays are the only plan left, whatever the statistics of an emptying and filling table say. Where
two indexes could serve a probe, an ORDER BY that only the right one gives decides (a sort that
nothing can replace still happens)."""

FRESH: Final = {"plan_cache_mode": "force_custom_plan"}
"""What other sessions add: lists and forms are planned by the statistics of the moment."""


class PoolHealth(msgspec.Struct, frozen=True, kw_only=True):
    """`degraded_for_s`: since when no statement came through, None while they do."""

    degraded_for_s: float | None
    error: str | None
    connections: int
    idle: int


class Pool:
    """Up to `size` connections to the primary, made when they are needed and kept.

    Where another host has become the primary, all connections are replaced, those with a
    statement under way at once: whoever waits for one is told that it may have committed or not.

    Args:
        arguments: of `asyncpg.connect`: `dsn`, or `host`, `port`, `user`, `password`, `database`;
            or the `Hosts` of them, which several pools share.
        name: shown by PostgreSQL as the session's `application_name`.
        size: the most connections that are open at once.
        role: a role to act as, for a login that is only a member of it.
        pinned: whether plans are pinned (`PINNED`), for statements of the hot path.
    """

    def __init__(
        self,
        arguments: Mapping[str, Any] | Hosts,
        *,
        name: str,
        size: int,
        role: str | None = None,
        pinned: bool = False,
    ) -> None:
        settings = {**LIMITS, **(PINNED if pinned else FRESH), "application_name": name}
        if role is not None:
            settings["role"] = role
        self._hosts = arguments if isinstance(arguments, Hosts) else Hosts(arguments)
        self._options: dict[str, Any] = {
            "connect": self._connect,
            "min_size": 0,
            "max_size": size,
            "max_queries": 1 << 40,
            "max_inactive_connection_lifetime": 0.0,
            "timeout": _CONNECT_S,
            "command_timeout": _COMMAND_S,
            "server_settings": settings,
            "reset": _keep,
        }
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._in_hand: dict[PoolConnectionProxy[asyncpg.Record], float] = {}
        """Sessions that are given out, and since when."""
        self._made: WeakSet[asyncpg.Connection[asyncpg.Record]] = WeakSet()
        self._down_since: float | None = None
        self._error: str | None = None

    async def open(self, *, within_s: float) -> None:
        """Connect, trying again with growing pauses for `within_s` seconds.

        Raises:
            UnavailableError: the database could not be reached in that time.
            DatabaseRefusedError: it answers, and refuses us.
        """
        if self._pool is None:
            self._pool = await asyncpg.create_pool(**self._options)
            self._hosts.subscribe(self.renew)
        pause = _BACKOFF_FIRST_S
        until = asyncio.get_running_loop().time() + within_s
        while True:
            try:
                await self.fetch("SELECT 1")
            except UnavailableError:
                if asyncio.get_running_loop().time() + pause > until:
                    raise
                await asyncio.sleep(pause)
                pause = min(pause * 2, _BACKOFF_MAX_S)
            else:
                return

    async def close(self) -> None:
        """End all connections: at once those that are idle, the others after their statement."""
        if self._pool is None:
            return
        self._hosts.unsubscribe(self.renew)
        try:
            async with asyncio.timeout(_CONNECT_S):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()
        finally:
            self._pool = None

    async def __aenter__(self) -> Self:
        await self.open(within_s=_CONNECT_S)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def connections(self) -> asyncpg.Pool[asyncpg.Record]:
        """The pool underneath, for transactions of several statements."""
        if self._pool is None:
            raise UnavailableError("the database cannot be reached now: the pool is closed")
        return self._pool

    async def renew(self, *, older_than_s: float = 0.0) -> None:
        """Make every connection anew; those given out for longer end now, whatever they wait for.

        A statement on a connection that is dead on its way would else be waited for until its
        own time is up.
        """
        if self._pool is None:
            return
        now = asyncio.get_running_loop().time()
        kept = {
            session._con  # type: ignore[attr-defined]  # noqa: SLF001 - what is given out is a proxy
            for session, since in self._in_hand.items()
            if now - since < older_than_s
        }
        await self._pool.expire_connections()
        for session in set(self._made) - kept:
            session.terminate()  # to be told good-bye, the other side would have to answer

    async def fetch(
        self, query: str, *args: object, within_s: float | None = None
    ) -> list[asyncpg.Record]:
        """Run one statement in a transaction of its own, again where it lost a race.

        Args:
            query: one statement.
            args: its parameters.
            within_s: how long a connection, and then the answer, is waited for; where it does not
                come, the connection is given up. By default as long as any statement may take.

        Raises:
            UnavailableError: the database is away; the statement may or may not have committed.
        """
        for left in range(_TRIES, 0, -1):
            session = await self._acquire(within_s)
            try:
                rows = await session.fetch(query, *args, timeout=within_s)
            except asyncpg.InternalClientError as error:
                # The server's farewell has come, the end of the stream has not: nothing was sent.
                session.terminate()
                if left == 1 or "in progress" not in str(error):
                    await self._raise(error, unavailable(error))
            except SAID as error:
                if isinstance(error, TimeoutError):
                    session.terminate()  # the other side may be gone: nobody is to wait there next
                if not raced(error):
                    await self._raise(error, unavailable(error))
                if left == 1:
                    raise UnavailableError(f"others change the same rows: {error}") from error
            else:
                self._down_since = self._error = None
                return rows
            finally:
                await self._release(session)
        raise AssertionError

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Session]:
        """A transaction on one connection, with errors told as `fetch` tells them."""
        session = await self._acquire()
        try:
            async with session.transaction():
                yield session
        except SAID as error:
            if isinstance(error, TimeoutError):
                session.terminate()
            await self._raise(error, unavailable(error))
        finally:
            await self._release(session)
        self._down_since = self._error = None

    async def transact(
        self,
        work: Callable[[Session], Awaitable[Answer]],
        *,
        also: tuple[type[asyncpg.PostgresError], ...] = (),
    ) -> Answer:
        """Run `work` in one transaction, again where it lost a race; only its last run is durable.

        Args:
            work: may run several times.
            also: what else means that another was quicker.

        Raises:
            UnavailableError: the database is away, or the races have no end.
        """
        for left in range(_TRIES, 0, -1):
            try:
                async with self.transaction() as session:
                    return await work(session)
            except asyncpg.PostgresError as error:
                if not raced(error) and not isinstance(error, also):
                    raise
                if left == 1:
                    raise UnavailableError(f"others change the same rows: {error}") from error
        raise AssertionError

    def health(self) -> PoolHealth:
        """How this pool does; never blocks."""
        now = asyncio.get_running_loop().time()
        return PoolHealth(
            degraded_for_s=None if self._down_since is None else now - self._down_since,
            error=self._error,
            connections=self._pool.get_size() if self._pool is not None else 0,
            idle=self._pool.get_idle_size() if self._pool is not None else 0,
        )

    async def _connect(
        self, *arguments: object, **options: Any
    ) -> asyncpg.Connection[asyncpg.Record]:
        session = await self._hosts.connect(*arguments, **options)
        self._made.add(session)
        return session

    async def _acquire(self, within_s: float | None = None) -> PoolConnectionProxy[asyncpg.Record]:
        pool = self.connections
        try:
            session = await pool.acquire(timeout=within_s)
        except SAID as error:
            await self._raise(error, refusal(error) or unavailable(error))
        self._in_hand[session] = asyncio.get_running_loop().time()
        return session

    async def _release(self, session: PoolConnectionProxy[asyncpg.Record]) -> None:
        """Give a session back; one that broke is replaced at its next use."""
        self._in_hand.pop(session, None)
        if self._pool is None:
            return
        try:
            await self._pool.release(session, timeout=_RELEASE_S)
        except SAID as error:
            await self._note(error, unavailable(error))

    async def _raise(self, error: Exception, told: TickwrightError | None) -> NoReturn:
        """Raise `told`, where `error` is an outage or a refusal, else `error` itself."""
        await self._note(error, told)
        if told is None:
            raise error
        raise told from error

    async def _note(self, error: Exception, told: TickwrightError | None) -> None:
        if told is None:
            return
        if self._down_since is None:
            self._down_since = asyncio.get_running_loop().time()
        self._error = str(told)
        if isinstance(error, asyncpg.ReadOnlySQLTransactionError) and self._pool is not None:
            # These sessions lead to a standby for good: new ones ask anew who is the primary.
            await self._pool.expire_connections()


async def _keep(_: Session) -> None:
    """Nothing to reset: no statement of ours leaves a trace in its session."""
