"""A throw-away PostgreSQL 18 for benchmarks: durable settings, a temp folder, gone at the end."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from runtime.postgres.embedded import binaries, owner
from runtime.postgres.embedded.process import spawn
from scripts.serving.postgres import runnable

# fsync and synchronous_commit stay on: a figure without them says nothing about durable work.
SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "listen_addresses": "",
    "max_connections": "40",
    "autovacuum_naptime": "5s",
    "autovacuum_vacuum_cost_delay": "0",
    "maintenance_work_mem": "512MB",
    "logging_collector": "off",
}


@contextlib.contextmanager
def postgres(settings: dict[str, str] | None = None) -> Iterator[str]:
    """Run a server in a temp folder and yield the folder of its socket, user `postgres`.

    The server and its folder are gone when the block ends, however it ends.
    """
    folder = Path(tempfile.mkdtemp(prefix="tickwright-bench-"))
    try:
        account = owner.choose(folder / "data", folder)
        if account is not None:  # PostgreSQL refuses to run as root
            os.chown(folder, account.uid, account.gid)
        programs = runnable(account) / "bin"
        data = str(folder / "data")
        make = [str(programs / "initdb"), "-D", data, "-U", "postgres", "-A", "trust"]
        make += ["--no-sync", "-E", "UTF8", "--locale=C"]
        options = [f"-c{key}={value}" for key, value in {**SETTINGS, **(settings or {})}.items()]
        run = [str(programs / "postgres"), "-D", data, "-k", str(folder), *options]
        with (folder / "log").open("wb") as log:
            if spawn(make, account=account, output=log.fileno()).wait() != 0:
                raise RuntimeError((folder / "log").read_text(errors="replace"))
            server = spawn(run, account=account, output=log.fileno())
        try:
            _wait_ready(server, folder)
            yield str(folder)
        finally:
            server.send_signal(signal.SIGINT)  # a fast shutdown: sessions end, nothing is awaited
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                server.send_signal(signal.SIGQUIT)
                server.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait_ready(server: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait until the server answers; a server that ended tells why in its log."""
    program = binaries.locate() / "bin" / "pg_isready"
    probe = [str(program), "-q", "-h", str(folder), "-U", "postgres", "-t", "1"]
    while subprocess.run(probe, check=False).returncode != 0:
        if server.poll() is not None:
            raise RuntimeError((folder / "log").read_text(errors="replace"))
