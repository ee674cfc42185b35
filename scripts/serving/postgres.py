"""PostgreSQL over TCP on loopback: the embedded wheel's programs, and none of its Python.

Alone, or as a pair: then a commit is acknowledged once both have it, and either may be promoted.
"""

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import anyio

from runtime.postgres.embedded import EmbeddedPostgresError, binaries, cluster, postmaster
from runtime.postgres.embedded.credentials import load_or_make
from runtime.postgres.embedded.files import PRIVATE_FILE, PUBLIC_FILE, write_whole
from runtime.postgres.embedded.place import LINK, OUTSIDE, Place, prepare_data_dir, settle
from runtime.postgres.embedded.process import Account
from runtime.postgres.errors import SAID
from scripts.serving import pairs
from scripts.serving.kinds import Kind, Seat
from scripts.serving.pairs import Roles
from scripts.serving.processes import MissingError, ServiceError, launch
from scripts.serving.teams import LOOPBACK, Member

GET = "pip install 'tickwright[embedded]'"
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


def runnable(account: Account | None) -> Path:
    """An installation of the wheel's that `account` can run: a copy where the wheel is shut away.

    The programs of a clone below /root are out of reach of who runs PostgreSQL there, and their
    libraries with them.

    Raises:
        ServiceError: There is none; the message has the line that gets it.
    """
    try:
        return binaries.reachable(account, outside=OUTSIDE)
    except EmbeddedPostgresError as error:
        raise ServiceError(str(error)) from error


class Postgres(Kind):
    """What is particular to PostgreSQL."""

    setting = "RUNTIME_DATABASE__URL"
    # A fast shutdown; one that a paused standby holds up goes on without it.
    steps = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 10.0))

    def locate(self) -> None:
        """Find the wheel's programs."""
        try:
            binaries.locate()
        except EmbeddedPostgresError:
            raise MissingError(f"no PostgreSQL here; this gets one: {GET}") from None
        self.version = str(binaries.MAJOR)

    def home(self, seat: Seat) -> Path:
        """The folder that its command line names: as root it may be another than the seat's."""
        link = seat.folder / LINK
        return link.readlink() if link.is_symlink() else link

    def start(self, seat: Seat) -> None:
        """Start it on what initdb makes, or as a standby on what pg_basebackup copies."""
        anyio.run(_start, seat)

    def answers(self, seat: Seat) -> bool:
        """Ask for SELECT 1, with the password."""
        return anyio.run(_answers, seat)

    def order(self, seats: Sequence[Seat]) -> list[Seat]:
        """The primary first: a new standby is a copy of it."""
        return sorted(
            seats,
            key=lambda seat: seat.member.name != _roles(seat).primary,
        )

    def complete(self, seats: Sequence[Seat]) -> None:
        """Make the database, end a promotion that was cut short, and let a pair be a pair."""
        anyio.run(_complete, self.order(seats))

    def export(self, seats: Sequence[Seat]) -> str:
        """A URL with its password; of a pair it names both hosts, and the primary is found."""
        team = seats[0].team
        password = load_or_make(seats[0].set_folder, may_make=False).owner
        which = "?target_session_attrs=primary" if len(team.members) > 1 else ""
        return (
            f"postgresql://{cluster.OWNER}:{password}@{team.addresses()}/{cluster.DATABASE}{which}"
        )

    def successor(self, seats: Sequence[Seat]) -> Seat | None:
        """Whom to promote; None where a promotion has only to be ended.

        Raises:
            ServiceError: There is nobody, or nobody who has all that was acknowledged.
        """
        primary, *others = self.order(seats)
        if not others:
            raise ServiceError("there is no standby: `up --postgres 2` in a new folder makes one")
        if pairs.is_standby(_place(primary)):
            return None
        standby = others[0]
        if _roles(standby).synchronous != standby.member.name:
            raise ServiceError(
                f"{standby.member.name} may lack what {primary.member.name} has acknowledged since "
                f"its own promotion: `restart {standby.member.name}` while both can run"
            )
        if not self.answers(standby):
            raise ServiceError(
                f"{standby.member.name} does not answer: `restart {standby.member.name}` first"
            )
        return standby

    def succeed(self, seat: Seat) -> None:
        """Make a standby the primary; the old one has ended, and will start as a standby only."""
        pairs.save_roles(seat.set_folder, Roles(primary=seat.member.name))
        configure(seat)
        anyio.run(pairs.reload, seat.set_folder, seat.member)


async def _start(seat: Seat) -> None:
    folder, team, member = seat.set_folder, seat.team, seat.member
    try:
        place = settle(prepare_data_dir(seat.folder), outside=OUTSIDE)
        installation = runnable(place.account)
        password = load_or_make(folder, may_make=not _any_data(seat)).owner
        if member.name == _roles(seat).primary:
            await cluster.ensure(place, installation, password=password)
        elif not pairs.is_standby(place):
            await pairs.clone(folder, team, member, place, seat.log)
        configure(seat)
        await postmaster.stop_orphan(place.data)
        # Where nobody reaps orphans at once (a container's first process), a killed server's pid
        # still answers kill(2), and PostgreSQL takes it for a server that runs.
        (place.data / "postmaster.pid").unlink(missing_ok=True)
    except EmbeddedPostgresError as error:
        raise ServiceError(str(error)) from error
    command = [
        *(str(installation / "bin" / "postgres"), "-D", str(place.data)),
        *("-c", f"config_file={place.config}", "-c", f"hba_file={place.access}"),
    ]
    launch(command, log=seat.log, account=place.account)


def configure(seat: Seat, roles: Roles | None = None) -> None:
    """Write a server's settings, which may hold a password, and its access rules."""
    place = _place(seat)
    settings = {
        "port": str(seat.member.port),
        **SETTINGS,
        "recovery_init_sync_method": cluster.sync_method(sys.platform, os.uname().release),
        **pairs.settings(seat.set_folder, seat.team, seat.member, roles or _roles(seat)),
    }
    lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
    write_whole(place.config, lines.encode(), mode=PRIVATE_FILE)
    if place.account is not None:
        os.chown(place.config, place.account.uid, place.account.gid)
    rules = f"host all,replication all {LOOPBACK}/32 scram-sha-256\n"
    write_whole(place.access, rules.encode(), mode=PUBLIC_FILE)


async def _complete(seats: Sequence[Seat]) -> None:
    primary, *others = seats
    folder = primary.set_folder
    if not await _answers(primary):
        return  # what is left is done when it is back
    try:
        await pairs.promote(folder, primary.member)
        await _make_database(folder, primary.member)
        for standby in others:
            if _roles(primary).synchronous is None and await _answers(standby):
                strict = Roles(primary=primary.member.name, synchronous=standby.member.name)
                configure(primary, strict)
                await pairs.reload(folder, primary.member)
                await pairs.tighten(folder, primary.team, standby.member)
    except SAID as error:
        name = primary.member.name
        raise ServiceError(
            f"{name} does not answer any more: {type(error).__name__} {error}"
        ) from error


async def _answers(seat: Seat) -> bool:
    try:
        return await pairs.ask(seat.set_folder, seat.member, "SELECT 1") == 1
    except SAID:
        return False


async def _make_database(folder: Path, member: Member) -> None:
    found = "SELECT 1 FROM pg_database WHERE datname = $1"
    if await pairs.ask(folder, member, found, cluster.DATABASE) is None:
        await pairs.ask(folder, member, f"CREATE DATABASE {cluster.DATABASE}", within_s=30)


def _roles(seat: Seat) -> Roles:
    return pairs.load_roles(seat.set_folder, seat.team)


def _place(seat: Seat) -> Place:
    return settle(prepare_data_dir(seat.folder), outside=OUTSIDE)


def _any_data(seat: Seat) -> bool:
    """Whether any cluster of the team knows its passwords already."""
    homes = (seat.set_folder / member.name / LINK for member in seat.team.members)
    return any((home / "data").exists() for home in homes)
