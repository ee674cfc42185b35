"""A node for tests: DATA_DIR OUTSIDE; prints `server PID`, `ack N`."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import asyncpg

from runtime.postgres.embedded import EmbeddedPostgres, binaries

# Where the test session has put the wheel's programs, if it had to.
INSTALLATION = "TICKWRIGHT_TEST_INSTALLATION"


def say(word: str, value: int | None) -> None:
    """Tell the test, in one write, so that a kill leaves no half a line before a whole one."""
    os.write(1, f"{word} {value}\n".encode())


async def main(data_dir: str, outside: str) -> None:
    server = EmbeddedPostgres(
        Path(data_dir), node_name="child", incarnation="c1", outside=Path(outside)
    )
    async with server, asyncio.TaskGroup() as group:
        group.create_task(server.supervise())
        say("server", server.pid)
        session = await asyncpg.connect(**server.connection.arguments())
        await session.execute("CREATE TABLE IF NOT EXISTS numbers (n bigint PRIMARY KEY)")
        number = await session.fetchval("SELECT coalesce(max(n), 0) FROM numbers")
        while True:
            number += 1
            await session.execute("INSERT INTO numbers VALUES ($1)", number)
            say("ack", number)


if __name__ == "__main__":
    if INSTALLATION in os.environ:
        binaries.locate = lambda: Path(os.environ[INSTALLATION])
    asyncio.run(main(sys.argv[1], sys.argv[2]))
