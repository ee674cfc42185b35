"""The doctor's look at this machine: Python, zones, the data directory, the tasks' folder."""

import os
import platform
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec
import psutil

from runtime.cli.checks import Check, State
from runtime.postgres.embedded.lock import FILE_NAME, Holder
from runtime.settings import Settings

_LOW_BYTES: Final = 1 << 30
_FULL_BYTES: Final = 100 << 20


def check_tools() -> Check:
    """The versions that a report of a fault should name."""
    said = (
        f"tickwright {version('tickwright')}, Python {platform.python_version()}, "
        f"time zones {version('tzdata')}, {platform.system()} {platform.machine()}"
    )
    return Check(name="version", state="ok", said=said)


def check_data_dir(settings: Settings) -> list[Check]:
    """Whether the data directory can be used, how much room it has, and who holds it."""
    folder = settings.data_dir
    elsewhere = "choose another with --data-dir or RUNTIME_DATA_DIR"
    if folder.exists() and not folder.is_dir():
        return [
            Check(name="data dir", state="wrong", said=f"{folder} is not a folder", mend=elsewhere)
        ]
    standing = _nearest(folder)
    if not os.access(standing, os.W_OK | os.X_OK):
        said = f"{standing} cannot be written by this user"
        return [
            Check(name="data dir", state="wrong", said=said, mend=f"give rights, or {elsewhere}")
        ]
    said = f"{folder}" if folder.exists() else f"{folder} (made at the first start)"
    holder = _holder(folder)
    if holder is not None:
        said += f", held by node {holder.node} (pid {holder.pid} on {holder.host})"
    return [Check(name="data dir", state="ok", said=said), _room(standing)]


def _nearest(folder: Path) -> Path:
    """The folder itself, or the nearest above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _room(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    said = f"{free / (1 << 30):.1f} GiB free"
    if free > _LOW_BYTES:
        return Check(name="disk", state="ok", said=said)
    mend = "free some room: a full disk stops the database; `history.keep` says how long is kept"
    state: State = "warning" if free > _FULL_BYTES else "wrong"
    return Check(name="disk", state=state, said=said, mend=mend)


def _holder(folder: Path) -> Holder | None:
    """Who holds the data directory now, as far as its lock file and this machine tell."""
    try:
        holder = msgspec.json.decode((folder / FILE_NAME).read_bytes(), type=Holder)
    except (OSError, msgspec.DecodeError):
        return None
    return holder if psutil.pid_exists(holder.pid) else None


def check_tasks(settings: Settings) -> Check:
    """Whether the folder that tasks run in is there."""
    folder = settings.tasks_cwd
    if folder.is_dir() and os.access(folder, os.R_OK | os.X_OK):
        return Check(name="tasks", state="ok", said=f"run in {folder}")
    said = f"{folder}, where tasks run, is not a folder that this user can enter"
    return Check(name="tasks", state="wrong", said=said, mend="make it, or set `tasks.cwd`")
