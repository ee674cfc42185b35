"""The passwords of a data directory's roles: made once, kept in one file that only we can read."""

from __future__ import annotations

import secrets
from pathlib import Path

import msgspec

from runtime.postgres.embedded.errors import DataDirUnusableError, unusable
from runtime.postgres.embedded.files import PRIVATE_FILE, write_whole

FILE_NAME = "secrets.json"
# 32 bytes of entropy, in the letters of URLs: needs no quoting in SQL, DSN or shell.
PASSWORD_BYTES = 32


class Credentials(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One password for each role: the owner that migrates, the node, and the API."""

    owner: str
    node: str
    api: str

    def __repr__(self) -> str:
        return "Credentials(owner='***', node='***', api='***')"


def load_or_make(data_dir: Path, *, may_make: bool) -> Credentials:
    """Read `DATA_DIR/secrets.json`; make it, mode 0600, where no cluster knows its passwords yet.

    The file is durable before initdb is given a password from it, so that no crash leaves a
    cluster behind that nobody can enter.

    Args:
        data_dir: the node's data directory.
        may_make: true while there is no cluster yet.

    Raises:
        DataDirUnusableError: the file is missing though a cluster exists, or cannot be read.
    """
    path = data_dir / FILE_NAME
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        if not may_make:
            raise DataDirUnusableError(
                f"{path} is missing, and with it the passwords of the PostgreSQL beside it: "
                "put it back from a copy, or start with another --data-dir"
            ) from None
        fresh = Credentials(**{field: _password() for field in Credentials.__struct_fields__})
        try:
            write_whole(path, msgspec.json.encode(fresh) + b"\n", mode=PRIVATE_FILE)
        except OSError as error:
            raise unusable(path, error) from error
        return fresh
    except OSError as error:
        raise unusable(path, error) from error
    try:
        found = msgspec.json.decode(content, type=Credentials)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # The decoder's own message may quote what it read: it stays out of the chain.
        raise DataDirUnusableError(
            f"{path} does not hold the passwords it should: put it back from a copy"
        ) from None
    try:
        path.chmod(PRIVATE_FILE)  # somebody's `chmod -R` must not leave passwords lying open
    except OSError as error:
        raise unusable(path, error) from error
    return found


def _password() -> str:
    return secrets.token_urlsafe(PASSWORD_BYTES)
