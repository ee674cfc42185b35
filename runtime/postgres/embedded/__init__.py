"""A PostgreSQL of the node's own, from a wheel: nothing to install, lost or opened."""

from runtime.postgres.embedded.connection import ConnectionSettings
from runtime.postgres.embedded.credentials import Credentials
from runtime.postgres.embedded.errors import (
    BinariesMissingError,
    DataDirHeldError,
    DataDirUnusableError,
    EmbeddedPostgresError,
    StartFailedError,
)
from runtime.postgres.embedded.lock import DataDirLock, Holder
from runtime.postgres.embedded.place import prepare_data_dir
from runtime.postgres.embedded.server import EmbeddedPostgres

__all__ = [
    "BinariesMissingError",
    "ConnectionSettings",
    "Credentials",
    "DataDirHeldError",
    "DataDirLock",
    "DataDirUnusableError",
    "EmbeddedPostgres",
    "EmbeddedPostgresError",
    "Holder",
    "StartFailedError",
    "prepare_data_dir",
]
