"""Brings a database to this build's schema: numbered files, each once, each whole or not at all."""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from typing import TYPE_CHECKING, Final

import asyncpg
import msgspec

from protocols.errors import TickwrightError
from runtime.postgres.pool import API_ROLE, NODE_ROLE

if TYPE_CHECKING:
    from runtime.postgres.pool import Session

_LOCK: Final = 0x7469636B  # "tick": one migration at a time in a database
_NAME: Final = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")

# The table that remembers. It must never need a migration itself.
_REMEMBER: Final = f"""
CREATE TABLE IF NOT EXISTS schema_migrations (
    number integer PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
GRANT SELECT ON schema_migrations TO {NODE_ROLE}, {API_ROLE};
"""
_HAS_TABLE: Final = "SELECT to_regclass('public.schema_migrations') IS NOT NULL"
_APPLIED: Final = "SELECT number, name, checksum FROM public.schema_migrations ORDER BY number"
_RECORD: Final = "INSERT INTO schema_migrations (number, name, checksum) VALUES ($1, $2, $3)"


class SchemaError(TickwrightError):
    """The database's schema and this build do not fit; the message says what to do."""

    code = "schema"
    status = 503


class Migration(msgspec.Struct, frozen=True):
    """One file of the schema, as this build carries it."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the file, in hex."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


class SchemaState(msgspec.Struct, frozen=True, kw_only=True):
    """`current` is 0 for an empty database; `pending` names the files still to be applied."""

    current: int
    latest: int
    pending: tuple[str, ...]

    @property
    def ready(self) -> bool:
        """Whether this build can work on the database as it is."""
        return not self.pending


def migrations() -> tuple[Migration, ...]:
    """The schema files of this build, in order."""
    found = []
    for entry in resources.files("runtime.postgres").joinpath("schema").iterdir():
        match = _NAME.fullmatch(entry.name)
        if match is not None:
            found.append(Migration(int(match[1]), entry.name, entry.read_text(encoding="utf-8")))
    return tuple(sorted(found, key=lambda migration: migration.number))


async def schema_state(
    connection: Session, *, files: tuple[Migration, ...] | None = None
) -> SchemaState:
    """Compare a database with this build, changing nothing.

    Raises:
        SchemaError: a file that was applied has changed since, or the database is newer.
    """
    known = migrations() if files is None else files
    applied = (
        {row["number"]: row for row in await connection.fetch(_APPLIED)}
        if await connection.fetchval(_HAS_TABLE)
        else {}
    )
    for migration in known:
        row = applied.get(migration.number)
        if row is not None and row["checksum"] != migration.checksum:
            raise SchemaError(
                f"migration {row['name']} was applied with other contents than this build carries "
                f"({row['checksum'][:12]}, not {migration.checksum[:12]}): use the build that "
                "applied it, or restore a copy of the database"
            )
    latest = known[-1].number
    current = max(applied, default=0)
    if current > latest:
        raise SchemaError(
            f"the database has migration {applied[current]['name']}, this build knows only "
            f"{latest}: upgrade tickwright on this node"
        )
    pending = tuple(migration.name for migration in known if migration.number not in applied)
    return SchemaState(current=current, latest=latest, pending=pending)


async def migrate(
    connection: Session, *, files: tuple[Migration, ...] | None = None
) -> tuple[str, ...]:
    """Apply what is pending, each file in a transaction of its own, and return their names.

    `connection` is the owner's, outside a transaction. Whoever else migrates this database at
    the same time waits, and then finds nothing to do.

    Raises:
        SchemaError: as in `schema_state`, or the owner lacks a privilege.
    """
    known = migrations() if files is None else files
    await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
    try:
        pending = (await schema_state(connection, files=known)).pending
        for migration in known:
            if migration.name in pending:
                await _apply(connection, migration)
        return pending
    finally:
        if not connection.is_closed():
            await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK)


async def _apply(connection: Session, migration: Migration) -> None:
    try:
        async with connection.transaction():
            await connection.execute("SET LOCAL search_path TO public")
            await connection.execute(migration.sql)
            await connection.execute(_REMEMBER)
            await connection.execute(_RECORD, migration.number, migration.name, migration.checksum)
    except asyncpg.InsufficientPrivilegeError as error:
        user = await connection.fetchval("SELECT quote_ident(current_user)")
        database = await connection.fetchval("SELECT quote_ident(current_database())")
        raise SchemaError(
            f"{migration.name} needs a privilege that {user} lacks ({error}). As a superuser run: "
            f"ALTER DATABASE {database} OWNER TO {user}; GRANT CREATE ON SCHEMA public TO {user}; "
            f"CREATE ROLE {NODE_ROLE} NOLOGIN; CREATE ROLE {API_ROLE} NOLOGIN; "
            f"GRANT {NODE_ROLE}, {API_ROLE} TO {user}; (leave out what exists already), "
            "then `runtime migrate` again"
        ) from error


async def set_role_passwords(connection: Session, *, node: str, api: str) -> None:
    """Let the two roles log in, each with its password; for a server that is the node's own."""
    async with connection.transaction():
        await connection.execute("SET LOCAL log_statement TO none")
        for role, password in ((NODE_ROLE, node), (API_ROLE, api)):
            # A utility statement takes no parameters: the server itself quotes what goes in.
            statement = await connection.fetchval(
                "SELECT format('ALTER ROLE %I LOGIN PASSWORD %L', $1::text, $2::text)",
                role,
                password,
            )
            await connection.execute(statement)
