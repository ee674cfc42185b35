"""Folders for tests: walkable by every user, and gone afterwards."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def walkable_folder() -> Iterator[Path]:
    """Make a folder whose way every user can walk: pytest's own are closed to all but one."""
    folder = Path(tempfile.mkdtemp(prefix="tw-test-")).resolve()
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
