"""The primary among the hosts of a database: found at every connection, wherever it has gone.

A host that takes a connection and never answers holds nobody up: the next is asked beside it.
"""

import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qs, urlsplit

import anyio
import asyncpg
import structlog

from runtime.postgres.errors import SAID, refusal

log = structlog.get_logger("tickwright.database")

NEXT_S: Final = 0.5
"""So long is a host asked alone; then the next is asked as well."""

_PORT: Final = 5432
_KEPT: Final = (
    ("SO_KEEPALIVE", socket.SOL_SOCKET, 1),
    ("TCP_KEEPIDLE", socket.IPPROTO_TCP, 5),
    ("TCP_KEEPINTVL", socket.IPPROTO_TCP, 3),
    ("TCP_KEEPCNT", socket.IPPROTO_TCP, 3),
    ("TCP_USER_TIMEOUT", socket.IPPROTO_TCP, 15_000),
)
"""What ends a connection whose other side has gone without a word, in seconds and milliseconds;
an option that this system does not have is left out."""

Session: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Moved: TypeAlias = Callable[[], Awaitable[None]]


class NoPrimaryError(OSError):
    """The database answers, and no host of it takes writes."""


class Hosts:
    """The hosts that one set of asyncpg's arguments names.

    Args:
        arguments: of `asyncpg.connect`: `dsn`, or `host`, `port` and the rest.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self.arguments = dict(arguments)
        self.addresses = addresses_of(self.arguments)
        self._primary = 0
        self._moved: list[Moved] = []

    @property
    def primary(self) -> str:
        """The host that was the primary last; the first one until it is known."""
        return name_of(self.addresses[self._primary])

    def subscribe(self, moved: Moved) -> None:
        """Call `moved` whenever another host was found to be the primary."""
        self._moved.append(moved)

    def unsubscribe(self, moved: Moved) -> None:
        """No more of that."""
        self._moved.remove(moved)

    async def connect(self, *_: object, **options: Any) -> Session:
        """A session at the primary; asyncpg's `timeout` holds for each host by itself.

        Raises:
            OSError, asyncpg.PostgresError: As the most hopeful host said.
            NoPrimaryError: Each host that answered is a standby, or takes no writes.
        """
        search = _Search({**self.arguments, **options})
        order = sorted(range(len(self.addresses)), key=lambda at: at != self._primary)
        async with anyio.create_task_group() as group:
            for at in order:
                told = anyio.Event()
                group.start_soon(search.ask, at, self.addresses[at], told, group.cancel_scope)
                with anyio.move_on_after(NEXT_S if at != order[-1] else None):
                    await told.wait()
        if search.found is None:
            raise self._why(search.errors)
        at, session = search.found
        if at != self._primary:
            self._primary = at
            log.info("the database's primary was found", host=self.primary)
            for moved in tuple(self._moved):
                await moved()
        return session

    def _why(self, errors: Mapping[int, Exception]) -> Exception:
        """One refusal counts only where no host is merely away: that one may be the primary."""
        if len(errors) == 1:
            return next(iter(errors.values()))
        away = {at: error for at, error in errors.items() if refusal(error) is None}
        if not away:
            return next(iter(errors.values()))
        told = "; ".join(f"{name_of(self.addresses[at])}: {_said(away[at])}" for at in sorted(away))
        return NoPrimaryError(f"no host of it takes writes: {told}")


class _Search:
    """One look for the primary; `found` is the host's index and the session."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self.found: tuple[int, Session] | None = None
        self.errors: dict[int, Exception] = {}

    async def ask(
        self, at: int, address: Mapping[str, Any], told: anyio.Event, scope: anyio.CancelScope
    ) -> None:
        """Ask one host; the first that is the primary ends the search."""
        try:
            options = {**self._options, **address, "target_session_attrs": "any"}
            session = await asyncpg.connect(**options)
            if self.found is not None:
                session.terminate()
            elif (why := takes_no_writes(session)) is not None:
                session.terminate()
                self.errors[at] = NoPrimaryError(why)
            else:
                keep_looked_after(session)
                self.found = (at, session)
                scope.cancel()
        except (*SAID, ValueError) as error:
            self.errors[at] = error
        finally:
            told.set()


def takes_no_writes(session: Session) -> str | None:
    """Why a server is not the one to write to, by what it reports to every session."""
    settings = session.get_settings()
    if getattr(settings, "in_hot_standby", "off") == "on":
        return "it is a standby"
    if getattr(settings, "default_transaction_read_only", "off") == "on":
        return "it is set to default_transaction_read_only"
    return None


def keep_looked_after(session: Session) -> None:
    """Let the system end the connection when the network has lost the other side."""
    transport = session._transport  # type: ignore[attr-defined] # noqa: SLF001 - no public way
    wire = transport.get_extra_info("socket")
    if wire is None or wire.family not in (socket.AF_INET, socket.AF_INET6):
        return
    for name, level, value in _KEPT:
        option = getattr(socket, name, None)
        if option is not None:
            wire.setsockopt(level, option, value)


def addresses_of(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """What each host adds to the arguments; nothing, where asyncpg is to find the one host."""
    dsn = arguments.get("dsn")
    if dsn is None or "host" in arguments:
        return ({},)
    parts = urlsplit(dsn)
    spelled = parts.netloc.rpartition("@")[2]
    if "," not in spelled or {"host", "port"} & parse_qs(parts.query).keys():
        return ({},)
    return tuple(_address(one) for one in spelled.split(","))


def _address(spelled: str) -> dict[str, Any]:
    if spelled.startswith("["):
        host, _, port = spelled[1:].partition("]")
        port = port.removeprefix(":")
    else:
        host, _, port = spelled.partition(":")
    return {"host": host or "localhost", "port": int(port or _PORT)}


def name_of(address: Mapping[str, Any]) -> str:
    """A host as a person writes it."""
    if not address:
        return "its host"
    host = address["host"]
    return f"[{host}]:{address['port']}" if ":" in host else f"{host}:{address['port']}"


def _said(error: Exception) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else str(error)
