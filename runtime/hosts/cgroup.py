"""A control group (cgroup v2) around the guardian and all it starts, where one may be made.

Nothing inside can leave it without privileges, so the node can end everything with one write even
when the guardian was killed and a task cleared its environment and detached.
"""

import contextlib
import os
from pathlib import Path

PREFIX = "tickwright-"


def join() -> str | None:
    """Move this process into a new group of its own; the group's folder, or None."""
    parent = _own_group()
    if parent is None:
        return None
    group = parent / f"{PREFIX}{os.getpid()}"
    try:
        group.mkdir()
        (group / "cgroup.procs").write_text("0")
    except OSError:
        with contextlib.suppress(OSError):
            group.rmdir()
        return None
    return str(group) if (group / "cgroup.kill").exists() else None


def leave(group: str) -> None:
    """Move this process back to the parent group, and take the empty group away."""
    path = Path(group)
    with contextlib.suppress(OSError):
        (path.parent / "cgroup.procs").write_text("0")
        path.rmdir()


def members(group: str) -> set[int]:
    """The processes inside."""
    try:
        return {int(pid) for pid in (Path(group) / "cgroup.procs").read_text().split()}
    except OSError:
        return set()


def kill(group: str) -> None:
    """SIGKILL to everything inside (Linux 5.14 and later)."""
    with contextlib.suppress(OSError):
        (Path(group) / "cgroup.kill").write_text("1")


def remove(group: str) -> bool:
    """Take an empty group away; False while something is in it."""
    try:
        Path(group).rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _own_group() -> Path | None:
    """The folder of the v2 group this process is in."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        mounts = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return None
    name = next((line[3:] for line in lines if line.startswith("0::")), None)
    root = next((line.split()[1] for line in mounts if line.split()[2] == "cgroup2"), None)
    if name is None or root is None:
        return None
    folder = Path(root) / name.lstrip("/")
    return folder if folder.is_dir() else None
