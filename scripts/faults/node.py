"""`runtime start` with a witness in its fire statement, and, asked for, one guard less.

    python -m scripts.faults.node [--without fence|token|renewal] start --config ...

No setting of the product turns a guard off, so the harness replaces a constant or a class in the
node's process. A text that is not found where it is to be replaced ends the process with 70.
SIGUSR2 writes how many tasks the loop has to the file RUNTIME names no setting for:
`CHAOS_TASKS`. When the harness is gone, stdin ends, and so does the node.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any, Final

from runtime.cli.main import main as runtime_main
from runtime.postgres import finish, schedules

TASKS: Final = "CHAOS_TASKS"
NOT_FOUND: Final = 70
GUARDS: Final = ("fence", "instant", "token", "renewal")
_TERM: Final = re.compile(r"number = (\$\d+) AND epoch = (\$\d+) FOR SHARE")
_ANSWER: Final = "\nSELECT EXISTS (SELECT FROM term) AS led"
_PROOFS: Final = {
    "_LOCKED": " AND x.fencing_token = d.token AND x.incarnation = $1",
    "_DELETED": " AND e.fencing_token = d.token AND e.incarnation = $1",
    "GIVE_BACK": " AND x.fencing_token = d.token AND x.incarnation = $1",
}


class NotFoundError(Exception):
    """The product has changed, and the harness no longer knows what to replace."""


def replace(module: Any, name: str, old: str, new: str) -> None:
    """Replace a text that stands exactly once in a constant of a module."""
    text: str = getattr(module, name)
    if text.count(old) != 1:
        raise NotFoundError(f"{module.__name__}.{name} has {text.count(old)} times {old!r}")
    setattr(module, name, text.replace(old, new))


def witness() -> None:
    """Let every fire say by which epoch it moved schedules, in its own transaction."""
    found = _TERM.search(schedules._FIRE)  # noqa: SLF001 - see the module's docstring
    if found is None:
        raise NotFoundError("the fire statement does not lock its leadership any more")
    number, epoch = found.groups()
    replace(
        schedules,
        "_FIRE",
        _ANSWER,
        ", witnessed AS (\n    INSERT INTO chaos.fires (number, epoch, moved)\n"
        f"    SELECT {number}, {epoch}, count(*) FROM moved HAVING count(*) > 0\n){_ANSWER}",
    )


def remove(guard: str) -> None:
    """Take one guard out of this process; the name of an instant is the database's."""
    match guard:
        case "fence":
            found = _TERM.search(schedules._FIRE)  # noqa: SLF001 - see the module's docstring
            assert found is not None
            number, epoch = found.groups()
            replace(
                schedules,
                "_FIRE",
                found.group(),
                f"number = {number} AND {epoch}::bigint IS NOT NULL",
            )
            replace(schedules, "_DUE", " AND l.epoch = $5", " AND $5::bigint IS NOT NULL")
        case "token":
            for name, proof in _PROOFS.items():
                unproven = " AND $1::bigint IS NOT NULL" if name != "GIVE_BACK" else ""
                replace(finish, name, proof, unproven)
        case "renewal":
            _trust_for_ever()
        case _:
            pass


def _trust_for_ever() -> None:
    """Let no lease end by the clock: what a leader without the renewal's margin would do."""
    from runtime.etcd.session import Session  # noqa: PLC0415 - a node alone has no etcd

    for name in ("trusted", "_end", "_trust"):
        if not callable(getattr(Session, name, None)):
            raise NotFoundError(f"runtime.etcd.session.Session has no {name} any more")
    Session.trusted = lambda _: True  # type: ignore[method-assign]
    Session._end = lambda _: None  # type: ignore[method-assign]  # noqa: SLF001


def count_tasks(number: int, frame: FrameType | None) -> None:
    """Write how many tasks there are."""
    del number, frame
    try:
        count = len(asyncio.all_tasks(asyncio.get_running_loop()))
    except RuntimeError:
        count = 0
    place = Path(os.environ[TASKS])
    new = place.with_suffix(".new")
    new.write_text(str(count))
    new.replace(place)


def _end_with_the_harness() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Replace what is to be replaced, then be `runtime`."""
    arguments = sys.argv[1:]
    guard = ""
    if arguments[:1] == ["--without"]:
        guard, arguments = arguments[1], arguments[2:]
    try:
        witness()
        remove(guard)
    except NotFoundError as error:
        print(f"the harness does not fit this build: {error}", file=sys.stderr)
        sys.exit(NOT_FOUND)
    if os.environ.get(TASKS):
        signal.signal(signal.SIGUSR2, count_tasks)
    threading.Thread(target=_end_with_the_harness, daemon=True).start()
    sys.argv[1:] = arguments
    runtime_main()


if __name__ == "__main__":
    main()
