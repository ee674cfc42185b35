"""What tasks wrote down themselves, and what the books say of it: the two must tell one story.

A task appends `start EXECUTION TOKEN` and `end EXECUTION TOKEN` to one file. What a killed process
has written is the kernel's already, so a line outlives every kill but the machine's.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import asyncpg
import msgspec
import psutil

from protocols.ids import execution_id
from runtime.postgres.embedded import Credentials, cluster, credentials
from tests.support.embedded import wait_until

TASKS = '''
"""Tasks that write down when they start and end."""

import asyncio
import os
import time
from pathlib import Path

LINES = Path(__file__).with_name("lines")


def note(word, ctx):
    fd = os.open(LINES, os.O_APPEND | os.O_WRONLY | os.O_CREAT)
    os.write(fd, f"{word} {ctx.execution_id} {ctx.fencing_token}\\n".encode())
    os.close(fd)


async def shared(ctx, for_s=0.05):
    note("start", ctx)
    await asyncio.sleep(for_s)
    note("end", ctx)


def process(ctx, for_s=0.05):
    note("start", ctx)
    time.sleep(for_s)
    note("end", ctx)
'''
COMMAND = (
    'echo "start $RUNTIME_EXECUTION_ID $RUNTIME_FENCING_TOKEN" >> lines; {work}; '
    'echo "end $RUNTIME_EXECUTION_ID $RUNTIME_FENCING_TOKEN" >> lines'
)


_LINE_BYTES = len("start 019c0000-0000-7000-8000-000000000000 1234\n")


class Line(NamedTuple):
    """One line of a task's: `start` or `end`."""

    word: str
    execution: str
    token: int


class Attempt(NamedTuple):
    """An attempt as the books have it; a first one that succeeded is its execution's row."""

    state: str
    reason: str | None


class Books:
    """What the node's PostgreSQL holds, read by one session behind the node's back."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self._arguments = arguments
        self._runner = asyncio.Runner()
        self._session: asyncpg.Connection | None = None

    @classmethod
    def of(cls, data_dir: Path) -> Books:
        """The books of a node with a PostgreSQL of its own."""
        kept = msgspec.json.decode(
            (data_dir / credentials.FILE_NAME).read_bytes(), type=Credentials
        )
        host = str(data_dir / "postgres" / "run")
        return cls(cluster.settings(host=host, password=kept.owner).arguments())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._session is not None:
            self._session.terminate()
        self._runner.close()

    def rows(self, question: str, *values: Any) -> list[asyncpg.Record]:
        """Ask one question."""
        return self._runner.run(self._ask(question, values))

    def value(self, question: str, *values: Any) -> Any:
        """Ask for one value."""
        return self.rows(question, *values)[0][0]

    async def _ask(self, question: str, values: Sequence[Any]) -> list[asyncpg.Record]:
        if self._session is None or self._session.is_closed():
            self._session = await asyncpg.connect(**self._arguments)
        return await self._session.fetch(question, *values)

    def states(self) -> dict[str, tuple[str, str | None, str]]:
        """Of every execution: its state, the state's reason, and its job."""
        rows = self.rows(
            "SELECT id, created_at, state, reason, job_id FROM executions "
            "UNION ALL SELECT id, created_at, state, reason, job_id FROM execution_history"
        )
        return {
            execution_id(row["id"], row["created_at"]): (row["state"], row["reason"], row["job_id"])
            for row in rows
        }

    def attempts(self) -> dict[tuple[str, int], Attempt]:
        """Every attempt that has ended, by execution and token."""
        found = {}
        for row in self.rows(
            "SELECT id, created_at, fencing_token, state, reason FROM execution_history "
            "WHERE state = 'succeeded' AND attempt = 1 "
            "UNION ALL SELECT a.id, h.created_at, a.fencing_token, a.state, a.reason "
            "FROM attempts a JOIN (SELECT id, created_at FROM executions "
            "UNION ALL SELECT id, created_at FROM execution_history) AS h USING (id)"
        ):
            key = (execution_id(row["id"], row["created_at"]), row["fencing_token"])
            found[key] = Attempt(row["state"], row["reason"])
        return found

    def gaps(self) -> list[str]:
        """The jobs of every second that have not exactly one row for each second of their span."""
        rows = self.rows(
            "SELECT job_id FROM execution_history WHERE origin = 0 GROUP BY job_id "
            "HAVING sum(instants) <> 1 + extract(epoch FROM "
            "max(coalesce(last_scheduled_for, scheduled_for)) - min(scheduled_for))"
        )
        return [row["job_id"] for row in rows]

    def unfinished(self) -> int:
        """How many executions are not final."""
        return int(self.value("SELECT count(*) FROM executions"))


def kill_postgres(data_dir: Path) -> int:
    """Kill -9 the node's PostgreSQL, its watchdog's child; its former process number."""
    pid = postmaster(data_dir)
    os.kill(pid, signal.SIGKILL)
    return pid


def postmaster(data_dir: Path) -> int:
    """The process number of the node's PostgreSQL."""
    return int((data_dir / "postgres" / "data" / "postmaster.pid").read_text().split()[0])


def read_lines(folder: Path) -> list[Line]:
    """What the tasks of a folder have written; a torn line would be a fault of the test's."""
    try:
        text = (folder / "lines").read_text()
    except FileNotFoundError:
        return []
    return [Line(word, name, int(token)) for word, name, token in map(str.split, text.splitlines())]


def marked(data_dir: Path, *, but: int | None = None) -> Iterator[psutil.Process]:
    """Every living process that a node on this data directory started, save node `but`'s."""
    owner = str(data_dir).replace("/", "_")
    for process in psutil.process_iter():
        try:
            mark = process.environ().get("RUNTIME_GUARDIAN", "")
            alive = process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            continue
        name, _, incarnation = mark.rpartition("/")
        if alive and name.endswith(owner) and incarnation.partition("-")[0] != str(but):
            yield process


def one_story(
    folder: Path, books: Books, acknowledged: Mapping[str, str], *, failing: str, once: str
) -> Counter[str]:
    """Hold the lines to the books, and what was acknowledged to both; how often what happened.

    Args:
        folder: where the tasks wrote.
        books: of a node that has drained.
        acknowledged: of each execution that somebody was promised, its job.
        failing: the one job that fails by itself, and writes no line.
        once: the one job that may run at most once.
    """
    lines, states, attempts = read_lines(folder), books.states(), books.attempts()
    starts = Counter(line.execution for line in lines if line.word == "start")
    ends = Counter((line.execution, line.token) for line in lines if line.word == "end")
    assert max(ends.values(), default=0) <= 1, "an attempt ran twice"
    for name, job in acknowledged.items():
        assert name in states, f"{name} of {job} was acknowledged and is gone"
    for name, (state, reason, job) in states.items():
        if state == "skipped":
            continue
        allowed = {("dead", "failed")} if job == failing else {("succeeded", None)}
        if job == once:
            assert starts[name] <= 1, f"{name} of {job} started twice"
            allowed.add(("dead", "lost"))
        assert (state, reason) in allowed, f"{name} of {job} is {state}: {reason}"
    ended = {name for name, _ in ends}
    for name, (state, _, job) in states.items():
        assert state != "succeeded" or name in ended, f"{name} of {job} left no line"
    by_state: Counter[str] = Counter(state for state, _, _ in states.values())
    for line in set(lines):
        attempt = attempts.get((line.execution, line.token))
        assert attempt is not None, f"the books know nothing of {line}"
        if line.word == "end":
            by_state[f"ended and {attempt.state}"] += 1
    for (name, token), attempt in attempts.items():
        if attempt.state == "succeeded":
            assert (name, token) in ends, f"{name} succeeded by {token}, which wrote no end"
    by_state["lost attempts"] = sum(a.state == "lost" for a in attempts.values())
    return by_state


def wait_for_lines(folder: Path, more: int) -> None:
    """Wait until the tasks have written about that many more lines."""
    file = folder / "lines"

    def size() -> int:
        return file.stat().st_size if file.exists() else 0

    wanted = size() + more * _LINE_BYTES
    wait_until(lambda: size() >= wanted, f"{more} more lines are written")
