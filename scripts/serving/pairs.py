"""Two PostgreSQL of which each acknowledged commit is on both, and which trade places by `promote`.

    roles.json      who is the primary; whether the other has all that was acknowledged

The record is written before what it says is done where that may lose something (a promotion), and
after it where it promises something (that the standby has everything). So a kill at any line
leaves at most one server that takes writes, and no standby that is promoted with a hole in it.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import asyncpg
import msgspec

from runtime.postgres.embedded import binaries, cluster
from runtime.postgres.embedded.credentials import load_or_make
from runtime.postgres.embedded.files import PRIVATE_FILE, write_whole
from runtime.postgres.embedded.place import Place
from runtime.postgres.errors import SAID
from scripts.serving.processes import ServiceError, finish
from scripts.serving.teams import LOOPBACK, Member, Team

PATIENCE_S = 60.0
ANSWER_S = 2.0
# What the standby has flushed, against all that any session was told is committed.
_WHOLE = """
SELECT coalesce(bool_or(sync_state IN ('sync', 'quorum') AND flush_lsn >= $2::text::pg_lsn), false)
  FROM pg_stat_replication
 WHERE application_name = $1
"""
_SLOT = """
SELECT pg_create_physical_replication_slot($1, true)
 WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)
"""


class Roles(msgspec.Struct, frozen=True, kw_only=True):
    """Who is what in a team of one or two."""

    primary: str
    # The standby without which the primary acknowledges no commit.
    synchronous: str | None = None


def load_roles(folder: Path, team: Team) -> Roles:
    """Read the roles; the first member is the primary until something else is written."""
    try:
        return msgspec.json.decode((folder / "roles.json").read_bytes(), type=Roles)
    except FileNotFoundError:
        return Roles(primary=team.members[0].name)


def save_roles(folder: Path, roles: Roles) -> None:
    """Write the roles, durably."""
    write_whole(folder / "roles.json", msgspec.json.encode(roles) + b"\n", mode=PRIVATE_FILE)


def standby_of(team: Team, roles: Roles) -> Member | None:
    """The member that is not the primary, where there are two."""
    return next((one for one in team.members if one.name != roles.primary), None)


def settings(folder: Path, team: Team, member: Member, roles: Roles) -> Mapping[str, str]:
    """What a server's role adds to its settings."""
    if member.name == roles.primary:
        names = "''" if roles.synchronous is None else f"'\"{roles.synchronous}\"'"
        return {"synchronous_standby_names": names}
    primary = team.member(roles.primary)
    return {
        "primary_conninfo": f"'{_conninfo(folder, primary)} application_name={member.name}'",
        "primary_slot_name": f"'{_slot(member)}'",
    }


def is_standby(place: Place) -> bool:
    """Whether the cluster in this place would start as a standby."""
    return (place.data / "standby.signal").exists()


async def clone(folder: Path, team: Team, member: Member, place: Place, log: Path) -> None:
    """Make `member` a copy of the primary, in place of whatever it holds.

    Raises:
        ServiceError: The primary does not answer, or pg_basebackup failed.
    """
    primary = team.member(load_roles(folder, team).primary)
    try:
        await ask(folder, primary, _SLOT, _slot(member))
    except SAID as error:
        raise ServiceError(
            f"{member.name} is to become a copy of {primary.name}, which does not answer "
            f"({error}): `restart {primary.name}` first"
        ) from None
    making = place.home / "data.making-standby"
    shutil.rmtree(making, ignore_errors=True)
    password_file = place.home / "standby.password"
    line = f"{LOOPBACK}:{primary.port}:*:{cluster.OWNER}:{_password(folder)}\n"
    write_whole(password_file, line.encode(), mode=PRIVATE_FILE)
    try:
        conninfo = f"host={LOOPBACK} port={primary.port} user={cluster.OWNER}"
        command = [
            *(str(binaries.locate() / "bin" / "pg_basebackup"), f"--pgdata={making}"),
            *(f"--dbname={conninfo} passfile={password_file}", "--no-password"),
            *("--wal-method=stream", "--checkpoint=fast", f"--slot={_slot(member)}"),
        ]
        finish(command, log=log, what=f"copying {primary.name}")
    finally:
        password_file.unlink(missing_ok=True)
    (making / "standby.signal").touch()
    if place.account is not None:
        for at, folders, files in os.walk(making):
            for name in (*folders, *files, "."):
                os.chown(Path(at) / name, place.account.uid, place.account.gid)
    shutil.rmtree(place.data, ignore_errors=True)
    making.rename(place.data)


async def tighten(folder: Path, team: Team, standby: Member) -> None:
    """Let the primary, which was told so, wait for the standby, and record that it has everything.

    Raises:
        ServiceError: The standby does not catch up.
    """
    roles = load_roles(folder, team)
    primary = team.member(roles.primary)
    # The checkpointer is who tells all sessions to wait; once it has answered, it has been told.
    await ask(folder, primary, "CHECKPOINT", within_s=PATIENCE_S)
    written = await ask(folder, primary, "SELECT pg_current_wal_flush_lsn()::text")
    session = await connect(folder, primary)
    try:
        for _ in range(int(PATIENCE_S / 0.1)):
            if await session.fetchval(_WHOLE, standby.name, written):
                save_roles(folder, msgspec.structs.replace(roles, synchronous=standby.name))
                return
            await session.execute("SELECT pg_sleep(0.1)")
    finally:
        session.terminate()
    raise ServiceError(f"{standby.name} does not catch up with {primary.name} (see their logs)")


async def reload(folder: Path, member: Member) -> None:
    """Let a server read its settings again."""
    await ask(folder, member, "SELECT pg_reload_conf()")


async def promote(folder: Path, member: Member) -> None:
    """Make a server that may still be a standby take writes."""
    if await ask(folder, member, "SELECT pg_is_in_recovery()"):
        patience_s = int(PATIENCE_S)
        asked = "SELECT pg_promote(true, $1)"
        if not await ask(folder, member, asked, patience_s, within_s=PATIENCE_S + ANSWER_S):
            raise ServiceError(f"{member.name} was promoted, and takes no writes (see its log)")


async def connect(
    folder: Path, member: Member, *, database: str = "postgres", within_s: float = ANSWER_S
) -> asyncpg.Connection:
    """Open a connection as the superuser; `folder` is the set's."""
    return await asyncpg.connect(
        host=LOOPBACK,
        port=member.port,
        user=cluster.OWNER,
        password=_password(folder),
        database=database,
        timeout=ANSWER_S,
        command_timeout=within_s,
    )


async def ask(
    folder: Path, member: Member, question: str, *values: object, within_s: float = ANSWER_S
) -> object:
    """Ask one question on a connection of its own."""
    session = await connect(folder, member, within_s=within_s)
    try:
        return await session.fetchval(question, *values)
    finally:
        session.terminate()


def _slot(member: Member) -> str:
    return member.name.replace("-", "_")


def _password(folder: Path) -> str:
    return load_or_make(folder, may_make=False).owner


def _conninfo(folder: Path, member: Member) -> str:
    """Spell how a standby connects; the password's letters need no quoting."""
    return f"host={LOOPBACK} port={member.port} user={cluster.OWNER} password={_password(folder)}"
