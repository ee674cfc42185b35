"""The node's end of a socket to a child: whole frames in, frames and descriptors out, no waiting.

Deliberately not an asyncio transport: those cannot pass descriptors, and a callback for each batch
of frames is all that is needed here.
"""

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence

from runtime.hosts.frames import FrameBuffer, FrameError, frame

READ_BYTES = 1024 * 1024


class Channel:
    """Frames over one end of a socketpair; callbacks come on the loop that made it."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        on_frames: Callable[[list[bytes]], None],
        on_closed: Callable[[], None],
    ) -> None:
        self._sock = sock
        self._on_frames = on_frames
        self._on_closed = on_closed
        self._frames = FrameBuffer()
        self._loop = asyncio.get_running_loop()
        self._unsent: deque[tuple[memoryview, tuple[int, ...]]] = deque()
        self._open = True
        sock.setblocking(False)
        self._loop.add_reader(sock, self._on_readable)

    @property
    def is_open(self) -> bool:
        """Whether frames may still come and go."""
        return self._open

    def send(self, body: bytes, fds: Sequence[int] = ()) -> None:
        """Send one frame, with descriptors that are closed here once they are on their way."""
        if not self._open:
            for fd in fds:
                os.close(fd)
            return
        self._unsent.append((memoryview(frame(body)), tuple(fds)))
        if len(self._unsent) == 1:
            self._flush()

    def drain(self) -> None:
        """Take what a child that has ended left in the socket."""
        while self._open and self._read():
            pass

    def close(self) -> None:
        """Close this end; `on_closed` is not called for it."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        for _, fds in self._unsent:
            for fd in fds:
                os.close(fd)
        self._unsent.clear()

    def _flush(self) -> None:
        try:
            while self._unsent:
                data, fds = self._unsent[0]
                if fds:
                    sent = socket.send_fds(self._sock, [data], fds)
                    for fd in fds:
                        os.close(fd)
                else:
                    sent = self._sock.send(data)
                if sent == len(data):
                    self._unsent.popleft()
                else:
                    self._unsent[0] = (data[sent:], ())
        except (BlockingIOError, InterruptedError):
            self._loop.add_writer(self._sock, self._flush)
            return
        except OSError:
            self._fail()
            return
        self._loop.remove_writer(self._sock)

    def _on_readable(self) -> None:
        self._read()

    def _read(self) -> bool:
        try:
            piece = self._sock.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            piece = b""
        if not piece:
            self._fail()
            return False
        try:
            bodies = self._frames.feed(piece)
        except FrameError:
            self._fail()
            return False
        if bodies:
            self._on_frames(bodies)
        return True

    def _fail(self) -> None:
        if self._open:
            self.close()
            self._on_closed()


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected stream sockets with room for a batch."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, option, READ_BYTES)
    return ours, theirs
