"""PostgreSQL over TCP on loopback: the embedded wheel's programs, and none of its Python.

Alone, or as a pair: then a commit is acknowledged once both have it, and either may be promoted.
"""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import anyio
import asyncpg

from runtime.postgres.embedded import EmbeddedPostgresError, binaries, cluster, postmaster
from runtime.postgres.embedded.credentials import load_or_make
from runtime.postgres.embedded.files import PRIVATE_FILE, PUBLIC_FILE, write_whole
from runtime.postgres.embedded.place import LINK, OUTSIDE, Place, prepare_data_dir, settle
from scripts.serving.processes import ServiceError, launch
from scripts.serving.teams import LOOPBACK, Member, Team

# A fast shutdown; one that a paused standby holds up goes on without it.
STEPS = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 10.0))
_ANSWER_S = 2.0
SETTINGS: Mapping[str, str] = {
    "listen_addresses": f"'{LOOPBACK}'",
    "unix_socket_directories": "''",
    "password_encryption": "'scram-sha-256'",
    "max_connections": "200",
    "shared_buffers": "'128MB'",
    "dynamic_shared_memory_type": "mmap",
    "max_locks_per_transaction": "128",
    "max_parallel_workers_per_gather": "0",
    "io_method": "sync",
    "jit": "off",
    "wal_level": "replica",
    "max_wal_senders": "8",
    "max_replication_slots": "8",
    "max_slot_wal_keep_size": "'4GB'",  # a standby that is away for long does not fill the disk
    "wal_sender_timeout": "'10s'",
    "wal_receiver_timeout": "'10s'",
    "wal_retrieve_retry_interval": "'500ms'",
    "max_wal_size": "'1GB'",
    "random_page_cost": "1.1",
    "autovacuum_naptime": "'15s'",
    "timezone": "'UTC'",
    "log_timezone": "'UTC'",
    "lc_messages": "'C'",
    "logging_collector": "off",
    "log_line_prefix": "'%m [%p] '",
    "log_checkpoints": "off",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
}


class Postgres:
    """What is particular to PostgreSQL."""

    kind = "postgres"
    setting = "RUNTIME_DATABASE__URL"
    steps = STEPS

    def __init__(self) -> None:
        self.version = ""

    def locate(self) -> None:
        """Find the programs.

        Raises:
            ServiceError: There are none; the message has the line that gets them.
        """
        try:
            binaries.locate()
        except EmbeddedPostgresError:
            raise ServiceError(
                "no PostgreSQL here; this gets one: pip install 'tickwright[embedded]'"
            ) from None
        self.version = str(binaries.MAJOR)

    def advice(self) -> str | None:
        """Nothing is known against this version."""
        return None

    def home(self, folder: Path) -> Path:
        """The folder that its command line names: as root it may be outside of `folder`."""
        link = folder / LINK
        return link.readlink() if link.is_symlink() else link

    def start(self, folder: Path, team: Team, member: Member) -> None:
        """Start a server, on a cluster made by initdb where there is none."""
        try:
            place = settle(prepare_data_dir(folder), outside=OUTSIDE)
            installation = binaries.reachable(place.account, outside=OUTSIDE)
            password = load_or_make(folder.parent, may_make=not place.data.exists()).owner
            anyio.run(_make, place, installation, password)
            configure(place, member, {})
            anyio.run(postmaster.stop_orphan, place.data)
        except EmbeddedPostgresError as error:
            raise ServiceError(str(error)) from error
        launch(command(place, installation), log=folder / "log", account=place.account)

    def answers(self, folder: Path, team: Team, member: Member) -> bool:
        """Ask for SELECT 1, with the password."""
        try:
            return anyio.run(ask, folder.parent, member, "SELECT 1") == 1
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False

    def complete(self, folder: Path, team: Team) -> None:
        """Make the database, once the server answers."""
        anyio.run(_make_database, folder, team.members[0])

    def export(self, folder: Path, team: Team) -> str:
        """What the setting is to be: a URL with its password."""
        return url(folder, team)


def url(folder: Path, team: Team) -> str:
    """Spell the URL of the team's database, of all its hosts."""
    password = load_or_make(folder, may_make=False).owner
    which = "?target_session_attrs=primary" if len(team.members) > 1 else ""
    base = f"postgresql://{cluster.OWNER}:{password}@{team.addresses()}"
    return f"{base}/{cluster.DATABASE}{which}"


def command(place: Place, installation: Path) -> list[str]:
    """Spell the command that runs the server."""
    return [
        *(str(installation / "bin" / "postgres"), "-D", str(place.data)),
        *("-c", f"config_file={place.config}", "-c", f"hba_file={place.access}"),
    ]


def configure(place: Place, member: Member, more: Mapping[str, str]) -> None:
    """Write a server's settings, which may hold a password, and its access rules."""
    settings = {
        "port": str(member.port),
        **SETTINGS,
        "recovery_init_sync_method": cluster.sync_method(sys.platform, os.uname().release),
        **more,
    }
    lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
    write_whole(place.config, lines.encode(), mode=PRIVATE_FILE)
    if place.account is not None:
        os.chown(place.config, place.account.uid, place.account.gid)
    rules = f"host all,replication all {LOOPBACK}/32 scram-sha-256\n"
    write_whole(place.access, rules.encode(), mode=PUBLIC_FILE)


async def ask(
    folder: Path, member: Member, question: str, *values: object, database: str = "postgres"
) -> object:
    """Ask one question on a connection of its own; `folder` is the set's."""
    session = await asyncpg.connect(
        host=LOOPBACK,
        port=member.port,
        user=cluster.OWNER,
        password=load_or_make(folder, may_make=False).owner,
        database=database,
        timeout=_ANSWER_S,
        command_timeout=_ANSWER_S,
    )
    try:
        return await session.fetchval(question, *values)
    finally:
        session.terminate()


async def _make(place: Place, installation: Path, password: str) -> None:
    await cluster.ensure(place, installation, password=password)


async def _make_database(folder: Path, member: Member) -> None:
    found = "SELECT 1 FROM pg_database WHERE datname = $1"
    if await ask(folder, member, found, cluster.DATABASE) is None:
        await ask(folder, member, f"CREATE DATABASE {cluster.DATABASE}")
