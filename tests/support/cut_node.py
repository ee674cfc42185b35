"""`runtime` in a process that is killed by its own hand before or after one of its statements.

    python -m tests.support.cut_node 17 start --data-dir ...

From SIGUSR2 on it counts, twice each, the statements that have to do with executions and DAGs, and
all that begin and end transactions. At the given count it is killed as by kill -9; at 0 it never
is, and says on stderr, when it ends in good order, how far it counted.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from typing import Any

import asyncpg

from runtime.cli.main import main

COUNTED = "counted to "
_COUNTS = re.compile(r"execution|dag_|^(BEGIN|COMMIT|ROLLBACK)")


class Fuse:
    """Burns from the moment it is lit, and ends the process when it has burnt down."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.burnt = 0
        self.lit = False

    def light(self, *_: object) -> None:
        """Count from now on."""
        self.lit = True

    def burn(self, query: str) -> None:
        """Count a statement, where it counts."""
        if self.lit and _COUNTS.search(query):
            self.burnt += 1
            if self.burnt == self.length:
                os.kill(os.getpid(), signal.SIGKILL)


def cut(name: str, fuse: Fuse) -> None:
    """Burn the fuse before and after each call of a method of connections."""
    method = getattr(asyncpg.Connection, name)

    async def burning(self: Any, query: str, *args: Any, **options: Any) -> Any:
        fuse.burn(query)
        answer = await method(self, query, *args, **options)
        fuse.burn(query)
        return answer

    setattr(asyncpg.Connection, name, burning)


if __name__ == "__main__":
    fuse = Fuse(int(sys.argv.pop(1)))
    for name in ("execute", "fetch", "fetchrow", "fetchval", "executemany"):
        cut(name, fuse)
    signal.signal(signal.SIGUSR2, fuse.light)
    try:
        main()
    finally:
        print(f"{COUNTED}{fuse.burnt}", file=sys.stderr)  # noqa: T201 - what it is asked for
