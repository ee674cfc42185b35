"""PostgreSQL's own log: one file of bounded size with one predecessor, written without a pipe.

PostgreSQL holds the file itself, so its last words are kept when the node is gone; a pipe to the
node would break. Only the node makes room, by copying and truncating what is opened to append.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from runtime.postgres.embedded.files import PRIVATE_FILE

SIZE_BYTES_MAX = 8 * 1024 * 1024
_TAIL_BYTES = 64 * 1024


class ServerLog:
    """`postgres.log` and, once that has been full, `postgres.log.1`."""

    def __init__(self, path: Path, *, size_bytes_max: int = SIZE_BYTES_MAX) -> None:
        self.path = path
        self._size_bytes_max = size_bytes_max

    def open(self) -> int:
        """Open it for a server to append to, mode 0600; the caller closes the descriptor."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self.path, flags, PRIVATE_FILE)

    def size(self) -> int:
        """Count its bytes; 0 where there is none."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def bound(self) -> bool:
        """Make room where it has grown past its limit.

        Lines written between the copy and the cut are lost; they are log lines.

        Returns:
            Whether it was cut.
        """
        if self.size() <= self._size_bytes_max:
            return False
        shutil.copyfile(self.path, self.path.with_name(f"{self.path.name}.1"))
        os.truncate(self.path, 0)
        return True

    def since(self, offset: int) -> str:
        """Read what was written after `offset`, at most its last 64 KiB."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(offset if offset <= size else 0, size - _TAIL_BYTES))
                return file.read(_TAIL_BYTES).decode("utf-8", errors="replace")
        except FileNotFoundError:
            return ""
