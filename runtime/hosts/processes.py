"""Finds every process of a tree, also those that forked twice, changed session, or lost a parent.

A process belongs to a tree when its session or group is the root's, when its environment holds the
tree's marks, or when its parent belongs. What escapes: a process that both cleared its environment
and left the session, once all its ancestors in the tree are gone.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

LINUX = sys.platform == "linux"
if not LINUX:
    import psutil  # 10 ms of start-up that /proc makes needless

Finder = Callable[[], set[int]]


class Process(NamedTuple):
    """One line of the process table."""

    pid: int
    parent: int
    group: int
    session: int


def table() -> list[Process]:
    """All living processes; zombies are left out, they hold nothing but their number."""
    return _linux_table() if LINUX else _portable_table()


def _linux_table() -> list[Process]:
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208 - a Path for each process costs more than it
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb", buffering=0) as stat:  # noqa: PTH123
                # The command's name may hold spaces and brackets: fields begin after the last one.
                fields = stat.read(1024).rpartition(b")")[2].split()
        except OSError:
            continue
        if len(fields) > 3 and fields[0] not in {b"Z", b"X"}:  # noqa: PLR2004 - state..session
            found.append(Process(int(name), int(fields[1]), int(fields[2]), int(fields[3])))
    return found


def _portable_table() -> list[Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE:
                pid = process.pid
                found.append(Process(pid, process.ppid(), os.getpgid(pid), os.getsid(pid)))
    return found


def environment(pid: int) -> frozenset[bytes]:
    """The `NAME=value` strings a process was started with; empty where they cannot be read."""
    if LINUX:
        try:
            return frozenset(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
        except OSError:
            return frozenset()
    try:
        values = psutil.Process(pid).environ()
    except (OSError, psutil.Error):
        return frozenset()
    return frozenset(f"{name}={value}".encode() for name, value in values.items())


def marks_of(values: Mapping[str, str]) -> frozenset[bytes]:
    """The strings that a marked process has in its environment, all of them."""
    return frozenset(f"{name}={value}".encode() for name, value in values.items())


def family(
    root: int | None,
    marked: Callable[[frozenset[bytes]], bool] | None,
    *,
    spare: Iterable[int] = (),
) -> set[int]:
    """The living processes of a tree, never those in `spare` (nor this process itself)."""
    spared = {os.getpid(), *spare}
    rows = [row for row in table() if row.pid not in spared]
    members = {row.pid for row in rows if root in (row.pid, row.session, row.group)}
    if marked is not None:
        members |= {
            row.pid for row in rows if row.pid not in members and marked(environment(row.pid))
        }
    return _with_children(members, rows)


def descendants(pid: int | None = None) -> set[int]:
    """Everything below a process, itself left out; below this one by default."""
    top = os.getpid() if pid is None else pid
    return _with_children({top}, table()) - {top}


def _with_children(members: set[int], rows: Iterable[Process]) -> set[int]:
    grew = True
    while grew:
        more = {row.pid for row in rows if row.parent in members} - members
        members |= more
        grew = bool(more)
    return members


def started(pid: int) -> str:
    """When a process began, by its kernel's own count; empty where there is no such one."""
    if not LINUX:
        try:
            return str(psutil.Process(pid).create_time())
        except (OSError, psutil.Error):
            return ""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return ""
    return fields[19].decode()  # starttime, proc(5): immune to a change of the wall clock


def signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to each; those gone already, or not ours, are passed over."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def group_lives(group: int) -> bool:
    """Whether any process, a zombie too, is in the group."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def children_now() -> set[int] | None:
    """This process's children, by one read; None where the kernel has no such list."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb") as listing:  # noqa: PTH123
            return {int(pid) for pid in listing.read().split()}
    except OSError:
        return None
