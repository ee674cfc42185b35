"""How to reach a PostgreSQL server, in a form that never prints its password."""

from __future__ import annotations

from typing import TypedDict

import msgspec


class ConnectArguments(TypedDict):
    """The keyword arguments that `asyncpg.connect` and `asyncpg.create_pool` share."""

    host: str
    port: int
    user: str
    password: str
    database: str


class ConnectionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One role on one database of one server.

    `host` is a host name, or the absolute path of the folder that holds the server's socket.
    """

    host: str
    user: str
    password: str
    database: str
    port: int = 5432

    def arguments(self) -> ConnectArguments:
        """Spell the settings for asyncpg: `await asyncpg.connect(**settings.arguments())`."""
        return ConnectArguments(
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password,
            database=self.database,
        )

    def as_role(self, user: str, password: str) -> ConnectionSettings:
        """Return the same database, seen by another role."""
        return msgspec.structs.replace(self, user=user, password=password)

    def on_database(self, database: str) -> ConnectionSettings:
        """Return another database of the same server, for the same role."""
        return msgspec.structs.replace(self, database=database)

    def __repr__(self) -> str:
        return (
            f"ConnectionSettings(host={self.host!r}, port={self.port}, user={self.user!r}, "
            f"password='***', database={self.database!r})"
        )
