"""Every way in which the embedded PostgreSQL can refuse, each one sentence with its way out."""

from __future__ import annotations

import errno
from pathlib import Path


class EmbeddedPostgresError(Exception):
    """The embedded PostgreSQL cannot serve; the message is for the user, as it stands."""


class BinariesMissingError(EmbeddedPostgresError):
    """The wheel that brings PostgreSQL is not installed, or does not fit this machine."""


class DataDirHeldError(EmbeddedPostgresError):
    """Another living node holds the data directory; the message names it."""


class DataDirUnusableError(EmbeddedPostgresError):
    """The data directory cannot be used as it is: modes, owner, version, damage, a full disk."""


class StartFailedError(EmbeddedPostgresError):
    """PostgreSQL ended, or stood still, before it took connections."""


def unusable(path: Path, error: OSError) -> DataDirUnusableError:
    """Put a failed system call on `path` into a sentence.

    Returns:
        The error to raise, so that a caller writes `raise unusable(path, error) from error`.
    """
    where = error.filename if isinstance(error.filename, str) else str(path)
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DataDirUnusableError(f"the disk of {where} is full: free some room, start again")
    if error.errno == errno.EROFS:
        return DataDirUnusableError(f"{where} is on a read-only disk: choose another --data-dir")
    if error.errno in {errno.EACCES, errno.EPERM}:
        return DataDirUnusableError(
            f"{where} cannot be used by this user (permission denied): "
            "give it the rights, or choose another --data-dir"
        )
    if error.errno in {errno.ENOTDIR, errno.EEXIST}:
        return DataDirUnusableError(f"{where} is not a folder: choose another --data-dir")
    return DataDirUnusableError(f"{where} cannot be used: {error.strerror or error}")
