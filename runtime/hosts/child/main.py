"""A job host's entry: warm before it knows what it is to be, then shared or for one at a time."""

import ctypes
import faulthandler
import mmap
import os
import signal
import socket
import sys

import msgspec

from runtime.hosts.child.process import ProcessHost
from runtime.hosts.child.shared import SharedHost
from runtime.hosts.frames import FrameBuffer
from runtime.hosts.wire import BOARD_BYTES, Hello

PR_SET_PDEATHSIG = 1


def main() -> None:
    """The numbers of the socket and of the board are the last two arguments."""
    node = socket.socket(fileno=int(sys.argv[-2]))
    board_fd = int(sys.argv[-1])
    node.set_inheritable(False)
    board = memoryview(mmap.mmap(board_fd, BOARD_BYTES)).cast("Q")
    os.close(board_fd)
    sys.argv = sys.argv[:1]
    if sys.platform == "linux":
        # A guardian killed by -9 ends no child by itself, and a held loop reads no socket.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # A service manager signals every process of the service; this one ends when the node says so.
    # Handlers, not SIG_IGN: what is ignored stays ignored in every child.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    faulthandler.enable()
    frames = FrameBuffer()
    bodies: list[bytes] = []
    while not bodies:
        piece = node.recv(256 * 1024)
        if not piece:
            return
        bodies = frames.feed(piece)
    hello = msgspec.msgpack.decode(bodies[0], type=Hello)
    _settle(hello)
    if hello.mode == "shared":
        SharedHost(node, frames, board, hello).run(bodies[1:])
    else:
        ProcessHost(node, frames, board, hello).run(bodies[1:])


def _settle(hello: Hello) -> None:
    """The tasks' folder first on the path, then what the node's own PYTHONPATH names."""
    try:
        os.chdir(hello.cwd)
    except OSError as error:
        # What cannot be imported for this is told attempt by attempt.
        sys.stderr.write(f"the tasks' folder {hello.cwd!r} cannot be used: {error.strerror}\n")
    sys.path[:0] = [hello.cwd, *(path for path in hello.python_path if path not in sys.path)]
    os.environ["RUNTIME_URL"] = hello.url
