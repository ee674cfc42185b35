"""Small files that are either whole or not there, and never readable for longer than meant."""

from __future__ import annotations

import os
from pathlib import Path

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700
PUBLIC_FILE = 0o644
PUBLIC_FOLDER = 0o755
# Its name can be walked through, its list cannot be read: what root's own folder allows the
# unprivileged user that runs PostgreSQL.
PASSAGE_FOLDER = 0o711


def write_whole(path: Path, content: bytes, *, mode: int) -> None:
    """Replace `path` by `content` in one step that survives a power cut.

    The bytes are on disk before the name is, and a symbolic link in the way is replaced, never
    followed: as root we write beside folders that others own.

    Args:
        path: the file to make or replace.
        content: all of it.
        mode: its permission bits, whatever the umask says.

    Raises:
        OSError: where the file system refuses.
    """
    making = path.with_name(f".{path.name}.{os.getpid()}.part")
    making.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(making, flags, PRIVATE_FILE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        making.replace(path)
    except BaseException:
        making.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
