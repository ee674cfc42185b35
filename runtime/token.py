"""The API's token: from the settings, else made once and kept in the data directory, mode 0600."""

import os
import secrets
from pathlib import Path
from typing import Final

FILE_NAME: Final = "token"


def load_or_make_token(data_dir: Path, given: str | None) -> str:
    """The token of this node."""
    if given is not None:
        return given
    path = data_dir / FILE_NAME
    kept = read_token(data_dir)
    if kept is not None:
        return kept
    data_dir.mkdir(parents=True, exist_ok=True)
    token = secrets.token_urlsafe(32)
    new = path.with_name(f".{FILE_NAME}.{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(token + "\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    return token


def read_token(data_dir: Path) -> str | None:
    """The kept token, None where there is none that can be read."""
    try:
        return (data_dir / FILE_NAME).read_text().strip() or None
    except (OSError, UnicodeDecodeError):
        return None
