"""Follows one PostgreSQL connection just far enough to know when a statement has committed.

It reads the frames of protocol 3.0 (PostgreSQL's documentation, chapter "Frontend/Backend
Protocol"), never changes them, and gives up on a connection that turns to TLS.
"""

from __future__ import annotations

import struct
from typing import Final

_SSL: Final = 80877103
_GSS: Final = 80877104
_STARTUP: Final = 196608
_SHOWN: Final = 60


class _Frames:
    """Cuts a stream into frames: a byte of kind (none at the beginning), a length, a body."""

    def __init__(self) -> None:
        self._left = b""

    def cut(self, data: bytes, *, kind_bytes: int) -> tuple[bytes, bytes] | None:
        """The next frame; None where it has not come whole. Feed with b"" to go on."""
        self._left += data
        if len(self._left) < kind_bytes + 4:
            return None
        (length,) = struct.unpack_from("!i", self._left, kind_bytes)
        whole = kind_bytes + length
        if length < 4 or len(self._left) < whole:
            return None
        kind, body = self._left[:kind_bytes], self._left[kind_bytes + 4 : whole]
        self._left = self._left[whole:]
        return kind, body

    def take_byte(self) -> bytes:
        """The next byte by itself, if it has come."""
        first, self._left = self._left[:1], self._left[1:]
        return first

    def add(self, data: bytes) -> None:
        """Keep what has come."""
        self._left += data


class Conversation:
    """What is being asked on one connection, and whether it has been answered."""

    def __init__(self) -> None:
        self.doomed = ""
        """The statement whose answer must not arrive; empty while there is none."""
        self.done = False
        """Whether the server has answered the doomed one: it has committed, or failed."""
        self._opaque = False
        self._started = False
        self._tls_answers = 0
        self._up = _Frames()
        self._down = _Frames()
        self._statements: dict[bytes, str] = {}
        self._running = ""
        self._waiting = 0

    def asked(self, data: bytes, *, armed: str | None) -> None:
        """The client says something; `armed`: a word that dooms the statement that has it."""
        if self._opaque:
            return
        self._up.add(data)
        while not self._started:
            frame = self._up.cut(b"", kind_bytes=0)
            if frame is None:
                return
            (code,) = struct.unpack_from("!i", frame[1])
            if code in {_SSL, _GSS}:
                self._tls_answers += 1
            else:
                self._started = True
                self._opaque = code != _STARTUP
                # The log-on is not followed: its ReadyForQuery answers no question.
                self._waiting += 1
        while (frame := self._up.cut(b"", kind_bytes=1)) is not None:
            self._ask(*frame, armed=armed)

    def _ask(self, kind: bytes, body: bytes, *, armed: str | None) -> None:
        match kind:
            case b"P":
                name, _, rest = body.partition(b"\0")
                self._statements[name] = rest.partition(b"\0")[0].decode(errors="replace")
            case b"B":
                _, _, rest = body.partition(b"\0")
                self._running = self._statements.get(rest.partition(b"\0")[0], "")
            case b"Q":
                self._running = body.rstrip(b"\0").decode(errors="replace")
                self._sync(armed)
            case b"S":
                self._sync(armed)

    def _sync(self, armed: str | None) -> None:
        self._waiting += 1
        if armed and not self.doomed and armed in self._running:
            self.doomed = " ".join(self._running.split())[:_SHOWN] or armed
        self._running = ""

    def answered(self, data: bytes) -> None:
        """The server says something."""
        if self._opaque:
            return
        self._down.add(data)
        while self._tls_answers and (answer := self._down.take_byte()):
            self._tls_answers -= 1
            if answer != b"N":
                self._opaque = True
                return
        while (frame := self._down.cut(b"", kind_bytes=1)) is not None:
            if frame[0] == b"Z":
                self._waiting -= 1
                if self.doomed and self._waiting == 0:
                    self.done = True
