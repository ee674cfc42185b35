"""The jobs that a run is held to, and the module of tasks that write the ledger.

A task appends a line when it starts and one when it ends, each on disk before it goes on:

    WORD EXECUTION TOKEN ATTEMPT JOB SCHEDULED_US AT_US
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

LEDGER: Final = "ledger"
TASKS: Final = '''
"""Tasks that write down when they start and end, each line on disk before they go on."""

import asyncio
import os
import time
from pathlib import Path

LEDGER = Path(__file__).with_name("ledger")
_waiting, _flushing = [], False


def line(word, ctx):
    due_us = round(ctx.scheduled_for.timestamp() * 1e6)
    return (
        f"{word} {ctx.execution_id} {ctx.fencing_token} {ctx.attempt} {ctx.job_id} {due_us} "
        f"{time.time_ns() // 1000}\\n"
    )


def write(lines):
    fd = os.open(LEDGER, os.O_APPEND | os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        os.write(fd, "".join(lines).encode())
        os.fsync(fd)
    finally:
        os.close(fd)


async def note(word, ctx):
    """One fsync for all that is noted while the one before it is under way."""
    global _flushing
    written = asyncio.get_running_loop().create_future()
    _waiting.append((line(word, ctx), written))
    if not _flushing:
        _flushing = True
        try:
            while _waiting:
                batch = _waiting[:]
                _waiting.clear()
                await asyncio.shield(asyncio.to_thread(write, [text for text, _ in batch]))
                for _, one in batch:
                    one.done() or one.set_result(None)
        finally:
            _flushing = False
    await written


async def brief(ctx, for_s=0.02):
    await note("start", ctx)
    await asyncio.sleep(for_s)
    await note("end", ctx)


async def unlucky(ctx):
    """Fails by itself the first time that it gets so far."""
    await note("start", ctx)
    if ctx.attempt == 1:
        raise RuntimeError("the first attempt fails")
    await note("end", ctx)


async def hopeless(ctx):
    await note("start", ctx)
    raise RuntimeError("every attempt fails")


def process(ctx, for_s=0.05):
    write([line("start", ctx)])
    time.sleep(for_s)
    write([line("end", ctx)])
'''

_NOTE: Final = (
    'echo "{word} $RUNTIME_EXECUTION_ID $RUNTIME_FENCING_TOKEN $RUNTIME_ATTEMPT $RUNTIME_JOB_ID '
    '$(date -d "$RUNTIME_SCHEDULED_FOR" +%s%6N) $(date +%s%6N)" >> ledger && sync ledger'
)
_COMMAND: Final = f"{_NOTE.format(word='start')}; {_NOTE.format(word='end')}"
_CATCH_UP: Final = {"misfire": {"policy": "catch_up", "grace": "10m"}}
_EACH: Final[dict[str, Any]] = {"overlap": "allow", "timeout": "2m", "max_lost": 100}

MIX: Final = (*("brief",) * 24, *("once",) * 6, *("long",) * 3, *("unlucky",) * 3,
              "hopeless", "command", "process", "long-once")  # fmt: skip
"""What is asked for, one after another; so many of forty are of each kind."""
ONCE: Final = frozenset({"once", "long-once", "every-once"})
"""Jobs that may run at most once."""
HOPELESS: Final = frozenset({"hopeless"})
"""Jobs that end dead by themselves."""
HINTED: Final = "hinted"
"""The job that only one node has a slot for, in a pool of the same name."""
FILLED: Final = "filled"
"""The job whose past the harness fills, by two asking at once."""


class Work(msgspec.Struct, frozen=True):
    """The job files of a run, and what is known of them."""

    folder: Path
    files: tuple[Path, ...]
    schedules: dict[str, str]
    """Of every job that has one."""
    ours: frozenset[str]
    """The harness's own: each instant of them is to run, soon."""


def write_work(folder: Path, *, periodics: Path | None, every_second: int) -> Work:
    """Write the module and the job files into a folder, which tasks run in.

    `periodics`: a list of periodic jobs (JSON) to convert and to run beside ours.
    """
    (folder / "chaos_tasks.py").write_text(TASKS.lstrip())
    (folder / LEDGER).touch()
    own = harness_jobs(every_second)
    mine = folder / "harness.yaml"
    mine.write_text(yaml.safe_dump({"jobs": own}, sort_keys=False))
    files = [mine]
    schedules = {job["job_id"]: cron_of(job) for job in own if "schedule" in job}
    ours = frozenset(job["job_id"] for job in own)
    if periodics is not None:
        theirs = folder / "periodics.yaml"
        script = Path(__file__).parents[1] / "import-periodics"
        with theirs.open("wb") as out:
            subprocess.run([sys.executable, script, periodics], stdout=out, check=True)
        files.append(theirs)
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        jobs = yaml.load(theirs.read_text(), Loader=loader)["jobs"]
        schedules |= {job["job_id"]: job["schedule"] for job in jobs}
    return Work(folder, tuple(files), schedules, ours)


def harness_jobs(every_second: int) -> list[dict[str, Any]]:
    """The harness's own jobs, as a job file has them."""
    asked: dict[str, dict[str, Any]] = {
        "brief": {"python": "chaos_tasks:brief"},
        "once": {"python": "chaos_tasks:brief", "guarantee": "at_most_once"},
        "long": {"python": "chaos_tasks:brief", "kwargs": {"for_s": 3.0}},
        "long-once": {
            "python": "chaos_tasks:brief", "kwargs": {"for_s": 3.0}, "guarantee": "at_most_once",
        },
        "unlucky": {
            "python": "chaos_tasks:unlucky", "max_retries": 5,
            "retry": {"backoff": "fixed", "base": "200ms"},
        },
        "hopeless": {"python": "chaos_tasks:hopeless"},
        "command": {"command": _COMMAND},
        "process": {"python": "chaos_tasks:process"},
        HINTED: {"python": "chaos_tasks:brief", "pool": HINTED},
    }  # fmt: skip
    jobs = [{"job_id": name, **fields, **_EACH} for name, fields in asked.items()]
    fired = {
        **{f"every-{n:03}": "* * * * * *" for n in range(every_second)},
        "every-once": "* * * * * *",
        "even": "*/2 * * * * *",
        "thirds": "@every 3s",
        FILLED: "*/5 * * * * *",
    }
    for name, schedule in fired.items():
        mode = "every" if schedule.startswith("@every") else "cron"
        given = {mode: schedule.removeprefix("@every "), **_CATCH_UP}
        job = {"job_id": name, "schedule": given, "python": "chaos_tasks:brief", **_EACH}
        if name in ONCE:
            job["guarantee"] = "at_most_once"
        jobs.append(job)
    return jobs


def cron_of(job: dict[str, Any]) -> str:
    """The schedule of a harness job in one string."""
    given = job["schedule"]
    return given["cron"] if "cron" in given else f"@every {given['every']}"


def key_of(given: bytes | None) -> str:
    """The idempotency key that an execution carries as its input, if the harness asked for it."""
    if given is None:
        return ""
    value = json.loads(given)
    return str(value.get("key", "")) if isinstance(value, dict) else ""
