"""A TCP proxy in this process whose connections can be held, slowed, reset or cut at a COMMIT.

What is held is not lost: TCP would send it again after the cut, so a held direction is merely not
read, and goes on where it stopped. A connection made while the link is held is accepted and
reaches nobody, which is what a peer behind a dead switch looks like.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Final, Literal

from scripts.faults.wire import Conversation

Direction = Literal["up", "down"]
"""`up`: from the node to the server; `down`: back."""
BOTH: Final[frozenset[Direction]] = frozenset({"up", "down"})
_LINGER_OFF: Final = struct.pack("ii", 1, 0)
_BACKLOG_BYTES: Final = 1 << 20


class Link:
    """One node's way to one server: a port to give to the node, and the faults of that way."""

    def __init__(self, host: str, port: int, *, postgres: bool = False) -> None:
        self.target = (host, port)
        self.port = 0
        self.postgres = postgres
        self.held: frozenset[Direction] = frozenset()
        self.refusing = False
        self.delay_s = 0.0
        self.cut_at: str | None = None
        """A word of the statement at whose COMMIT the next connection is cut, once."""
        self.opened = asyncio.Event()
        """Set while nothing is held."""
        self.opened.set()
        self._was_cut = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._pairs: set[_Pair] = set()

    async def open(self) -> None:
        """Listen on a free loopback port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Pair(self).near, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and reset what is open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.reset()

    def hold(self, directions: frozenset[Direction] = BOTH) -> None:
        """Let nothing through in these directions, and tell nobody."""
        self.held = directions
        (self.opened.clear if directions else self.opened.set)()
        for pair in tuple(self._pairs):
            pair.regulate()

    def arm(self, word: str) -> None:
        """Cut the next connection that asks a statement with this word, once it has committed."""
        self._was_cut.clear()
        self.cut_at = word

    async def cut(self) -> None:
        """Return when a connection was cut so."""
        await self._was_cut.wait()

    def has_cut(self) -> None:
        """It is done, and done once."""
        self.cut_at = None
        self._was_cut.set()

    def refuse(self) -> None:
        """Reset what is open, and all that is opened, until `heal`."""
        self.refusing = True
        self.reset()

    def heal(self) -> None:
        """Let everything through again; what was armed and did not come is disarmed."""
        self.refusing, self.delay_s, self.cut_at = False, 0.0, None
        self.hold(frozenset())

    def reset(self) -> None:
        """End every open connection with an RST."""
        for pair in tuple(self._pairs):
            pair.reset()

    @property
    def open_connections(self) -> int:
        """How many there are now."""
        return len(self._pairs)

    def entered(self, pair: _Pair) -> None:
        """Count a connection in."""
        self._pairs.add(pair)

    def left(self, pair: _Pair) -> None:
        """Count a connection out."""
        self._pairs.discard(pair)


class _Pair:
    """A connection from the node, and the one to the server that stands behind it."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.near = _End(self, "up")
        self.far = _End(self, "down")
        self.talk = Conversation() if link.postgres else None
        self._dial: asyncio.Task[None] | None = None
        self._early: list[bytes] = []
        self._over = False

    def begin(self) -> None:
        """The node has called: call the server, unless the way is closed."""
        if self.link.refusing:
            self.reset()
            return
        self.link.entered(self)
        self._dial = asyncio.get_running_loop().create_task(self._connect())  # owned by the pair

    async def _connect(self) -> None:
        await self.link.opened.wait()
        if self._over:
            return
        try:
            await asyncio.get_running_loop().create_connection(lambda: self.far, *self.link.target)
        except OSError:
            self.reset()
            return
        for data in self._early:
            self._pass_on(self.far, data)
        self._early.clear()
        self.regulate()

    def took(self, direction: Direction, data: bytes) -> None:
        """One side has said something."""
        if direction == "up":
            if self.talk is not None:
                self.talk.asked(data, armed=self.link.cut_at)
            if self.far.transport is None:
                self._early.append(data)
                return
            self._pass_on(self.far, data)
            return
        if self.talk is not None:
            self.talk.answered(data)
            if self.talk.doomed:
                if self.talk.done:  # it is durable there, and here nobody will hear of it
                    self.link.has_cut()
                    self.reset()
                return
        self._pass_on(self.near, data)

    def _pass_on(self, end: _End, data: bytes) -> None:
        if self.link.delay_s:
            asyncio.get_running_loop().call_later(self.link.delay_s, end.write, data)
        else:
            end.write(data)

    def regulate(self) -> None:
        """Read from a side only what may pass and what the other side has room for."""
        for end, other in ((self.near, self.far), (self.far, self.near)):
            end.read_while(end.direction not in self.link.held and not other.full)

    def closed(self, by: _End) -> None:
        """One side has ended: so does the other, once it has heard all, and the way is open."""
        other = self.far if by is self.near else self.near
        if other.transport is not None and by.direction not in self.link.held:
            other.transport.close()
        if by is self.near:
            self._over = True
        if self.near.gone and (self.far.gone or self.far.transport is None):
            self.link.left(self)

    def reset(self) -> None:
        """End both sides at once."""
        self._over = True
        for end in (self.near, self.far):
            end.reset()
        self.link.left(self)


class _End(asyncio.Protocol):
    """One side of a pair."""

    def __init__(self, pair: _Pair, direction: Direction) -> None:
        self._pair = pair
        self.direction = direction
        self.transport: asyncio.Transport | None = None
        self.full = False
        self.gone = False
        self._reading = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=_BACKLOG_BYTES)
        if self.direction == "up":
            self._pair.begin()
            self._pair.regulate()

    def data_received(self, data: bytes) -> None:
        self._pair.took(self.direction, data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.gone = True
        self._pair.closed(self)

    def pause_writing(self) -> None:
        self.full = True
        self._pair.regulate()

    def resume_writing(self) -> None:
        self.full = False
        self._pair.regulate()

    def write(self, data: bytes) -> None:
        """Send, if there is anybody left to send to."""
        if self.transport is not None and not self.gone and not self.transport.is_closing():
            self.transport.write(data)

    def read_while(self, may: bool) -> None:  # noqa: FBT001 - the whole of what it says
        """Read on, or stop reading."""
        if self.transport is None or self.gone or may == self._reading:
            return
        change: Callable[[], None] = (
            self.transport.resume_reading if may else self.transport.pause_reading
        )
        if not self.transport.is_closing():
            change()
            self._reading = may

    def reset(self) -> None:
        """Close with an RST, as a machine that was switched off and on answers."""
        if self.transport is None or self.gone:
            return
        opened = self.transport.get_extra_info("socket")
        if opened is not None:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_OFF)
        self.transport.abort()
