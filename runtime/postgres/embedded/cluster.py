"""A cluster that is whole or not there, and the settings it is run with."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from runtime.postgres.embedded.binaries import MAJOR
from runtime.postgres.embedded.connection import ConnectionSettings
from runtime.postgres.embedded.diagnosis import explain
from runtime.postgres.embedded.errors import DataDirUnusableError, unusable
from runtime.postgres.embedded.files import (
    PRIVATE_FILE,
    PRIVATE_FOLDER,
    PUBLIC_FILE,
    sync_folder,
    write_whole,
)
from runtime.postgres.embedded.place import Place
from runtime.postgres.embedded.process import kill_session, spawn, wait_exit

# The bootstrap superuser and its database; the roles that a node works with come by migration.
OWNER = "tickwright"
DATABASE = "tickwright"
# Part of the socket's file name only: no port is opened.
PORT = 5432
MAX_CONNECTIONS = 40
_MAKING = "data.making-"
_SYNCFS_REPORTS_ERRORS = (5, 8)

# For one node on a laptop: modest memory, few processes, quiet when idle, and nothing taken from
# durability.
SETTINGS: Mapping[str, str] = {
    "port": str(PORT),
    "unix_socket_directories": "'../run'",  # from data/: short, wherever the data directory is
    "unix_socket_permissions": "0700",
    "password_encryption": "'scram-sha-256'",
    "max_connections": str(MAX_CONNECTIONS),
    "shared_buffers": "'128MB'",
    "effective_cache_size": "'512MB'",
    "work_mem": "'8MB'",
    "maintenance_work_mem": "'64MB'",
    "min_dynamic_shared_memory": "'8MB'",  # else segments in /dev/shm, outside the data directory
    "dynamic_shared_memory_type": "mmap",  # what overflows; systemd removes POSIX ones at log-out
    "max_worker_processes": "4",
    "max_parallel_workers_per_gather": "0",  # short statements only; a worker costs more
    "max_locks_per_transaction": "128",  # partitions, each with its indexes
    "io_method": "sync",  # three worker processes less; nothing here scans from disk
    "jit": "off",
    "wal_level": "replica",
    "max_wal_senders": "0",  # pg_hba.conf lets no replica in
    "max_logical_replication_workers": "0",
    "wal_buffers": "'16MB'",  # batches of a thousand rows commit without waiting for a flush
    "max_wal_size": "'1GB'",
    "min_wal_size": "'80MB'",
    "checkpoint_timeout": "'5min'",  # bounds recovery after a kill
    "random_page_cost": "1.1",
    "autovacuum_naptime": "'15s'",  # queues make dead rows by the minute; the default is 1 min
    "autovacuum_max_workers": "2",
    "autovacuum_vacuum_cost_limit": "2000",
    "idle_in_transaction_session_timeout": "'60s'",
    "timezone": "'UTC'",
    "log_timezone": "'UTC'",
    "lc_messages": "'C'",  # the diagnosis reads the log
    "logging_collector": "off",  # the node bounds the log: a process less
    "log_destination": "'stderr'",
    "log_line_prefix": "'%m [%p] '",
    "log_startup_progress_interval": "'1s'",  # a long recovery shows that it advances
    "log_checkpoints": "off",
}
# Given on the command line, where neither local.conf nor ALTER SYSTEM can take them back.
PINNED: Mapping[str, str] = {
    "listen_addresses": "",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
}


async def ensure(place: Place, installation: Path, *, password: str) -> bool:
    """Make the cluster where there is none.

    It is made under another name and renamed when complete, so that a kill at any point leaves
    either no cluster or a whole one.

    Returns:
        True when it was made now.

    Raises:
        DataDirUnusableError: what is there is foreign or of another release, or initdb failed.
    """
    for leftover in place.home.glob(f"{_MAKING}*"):  # of a start that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    if place.data.exists():
        _check(place)
        return False
    # A name of its own: the initdb of a node killed a moment ago may still be writing.
    making = place.home / f"{_MAKING}{secrets.token_hex(4)}"
    password_file = place.home / "data.password"
    try:
        making.mkdir(mode=PRIVATE_FOLDER)
        write_whole(password_file, password.encode() + b"\n", mode=PRIVATE_FILE)
        if place.account is not None:
            os.chown(making, place.account.uid, place.account.gid)
            os.chown(password_file, place.account.uid, place.account.gid)
        try:
            await _initdb(place, installation, making=making, password_file=password_file)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise
        finally:
            password_file.unlink(missing_ok=True)
        making.rename(place.data)
        sync_folder(place.home)
    except OSError as error:
        raise unusable(place.home, error) from error
    return True


def configure(place: Place) -> None:
    """Write the settings and the access rules; local.conf, where a user made one, comes last.

    Raises:
        DataDirUnusableError: they cannot be written.
    """
    lines = [
        "# Written at every start of the node. Your own settings belong in local.conf beside it.",
        *(f"{name} = {value}" for name, value in SETTINGS.items()),
        f"recovery_init_sync_method = {sync_method(sys.platform, os.uname().release)}",
    ]
    if place.own_config.exists():
        lines.append(f"include = '{place.own_config.name}'")
    rules = ["# Written at every start of the node.", "local all all scram-sha-256"]
    try:
        write_whole(place.config, "\n".join([*lines, ""]).encode(), mode=PUBLIC_FILE)
        write_whole(place.access, "\n".join([*rules, ""]).encode(), mode=PUBLIC_FILE)
    except OSError as error:
        raise unusable(place.home, error) from error


def sync_method(system: str, kernel: str) -> str:
    """Choose how recovery makes sure of every file before it begins.

    A thousand fsyncs took 3 s beside a busy disk, one syncfs 0.1 s. Linux reports the errors of
    syncfs since 5.8 only (PostgreSQL's manual, recovery_init_sync_method).
    """
    version = re.match(r"(\d+)\.(\d+)", kernel)
    if system != "linux" or version is None:
        return "fsync"
    return "syncfs" if (int(version[1]), int(version[2])) >= _SYNCFS_REPORTS_ERRORS else "fsync"


def command(place: Place, installation: Path) -> list[str]:
    """Spell the command that runs the server."""
    pinned = {
        "config_file": str(place.config),
        "hba_file": str(place.access),
        **PINNED,
    }
    options = [part for name, value in pinned.items() for part in ("-c", f"{name}={value}")]
    return [str(installation / "bin" / "postgres"), "-D", str(place.data), *options]


def settings(*, host: str, password: str) -> ConnectionSettings:
    """Say how the bootstrap superuser connects."""
    return ConnectionSettings(
        host=host, port=PORT, user=OWNER, password=password, database=DATABASE
    )


def _check(place: Place) -> None:
    version = place.data / "PG_VERSION"
    try:
        content = version.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        raise DataDirUnusableError(
            f"{place.data} is not a PostgreSQL data directory (no PG_VERSION): "
            "move it away, put a copy of yours there, or choose another --data-dir"
        ) from None
    except OSError as error:
        raise unusable(version, error) from error
    if content != str(MAJOR):
        raise DataDirUnusableError(
            f"{place.data} was made by PostgreSQL {content[:20]!r}, and this node brings {MAJOR}: "
            "dump it with the release that made it, or run that one and set database.url"
        )


async def _initdb(place: Place, installation: Path, *, making: Path, password_file: Path) -> None:
    log = place.home / "initdb.log"
    arguments = [
        str(installation / "bin" / "initdb"),
        f"--pgdata={making}",
        f"--username={OWNER}",
        f"--pwfile={password_file}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C",
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
        "--data-checksums",
        "--no-instructions",
    ]
    log.unlink(missing_ok=True)
    with log.open("xb") as output:
        process = spawn(arguments, account=place.account, output=output.fileno())
    try:
        code = await wait_exit(process)
    except BaseException:
        kill_session(process)
        raise
    if code != 0:
        said = log.read_text(encoding="utf-8", errors="replace")
        raise DataDirUnusableError(
            f"a new PostgreSQL cannot be made in {place.home}: {explain(said, log=log)}"
        )
    log.unlink()
