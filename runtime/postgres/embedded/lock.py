"""One node for one data directory: a lock the kernel frees, in a file that names its holder."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import psutil

from runtime.postgres.embedded.errors import DataDirHeldError, unusable
from runtime.postgres.embedded.files import PRIVATE_FILE

FILE_NAME = "node.lock"
# A holder writes its name right after it has the lock; a reader that comes between waits this.
UNNAMED_PATIENCE_S = 1.0
_UNNAMED_PAUSE_S = 0.02
_NAME_BYTES_MAX = 4096


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds a data directory."""

    node: str
    incarnation: str
    pid: int
    host: str

    @classmethod
    def this_process(cls, *, node: str, incarnation: str) -> Holder:
        """Name the calling process."""
        return cls(node=node, incarnation=incarnation, pid=os.getpid(), host=socket.gethostname())


class DataDirLock:
    """An exclusive `flock` on `FOLDER/node.lock`, freed by the kernel however its holder ends.

    The descriptor is closed on exec, so that a child process never holds it for a dead node.
    """

    def __init__(self, folder: Path, holder: Holder) -> None:
        self._path = folder / FILE_NAME
        self._holder = holder
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def acquire(self) -> None:
        """Take the lock, or say who has it.

        Raises:
            DataDirHeldError: a living process holds it; the message names node, pid, host,
                incarnation and since when.
            DataDirUnusableError: the file cannot be opened.
        """
        if self._descriptor is not None:
            return
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(self._path, flags, PRIVATE_FILE)
        except OSError as error:
            raise unusable(self._path, error) from error
        try:
            self._take(descriptor)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, msgspec.json.encode(self._holder), 0)
        except OSError as error:
            os.close(descriptor)
            raise unusable(self._path, error) from error
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back; the file stays, since removing it would race with the next holder."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        try:
            os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)

    def _take(self, descriptor: int) -> None:
        deadline = time.monotonic() + UNNAMED_PATIENCE_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = _read(descriptor)
                if holder is not None and holder.host == socket.gethostname():
                    holder = holder if psutil.pid_exists(holder.pid) else None  # its predecessor's
                if holder is None and time.monotonic() < deadline:
                    time.sleep(_UNNAMED_PAUSE_S)
                    continue
                raise DataDirHeldError(self._refusal(descriptor, holder)) from None
            return

    def _refusal(self, descriptor: int, holder: Holder | None) -> str:
        way_out = "stop it, or give this node a --data-dir of its own"
        folder = self._path.parent
        if holder is None:
            return f"the data directory {folder} is held by a process that left no name: {way_out}"
        since = datetime.fromtimestamp(int(os.fstat(descriptor).st_mtime), tz=UTC)
        return (
            f"the data directory {folder} is held by node {holder.node!r} (pid {holder.pid} "
            f"on {holder.host}, incarnation {holder.incarnation}, "
            f"since {since.isoformat()}): {way_out}"
        )


def _read(descriptor: int) -> Holder | None:
    try:
        return msgspec.json.decode(os.pread(descriptor, _NAME_BYTES_MAX, 0), type=Holder)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
