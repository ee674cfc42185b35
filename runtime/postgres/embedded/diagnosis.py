"""What PostgreSQL meant: its last words, put into one sentence with a way out."""

from __future__ import annotations

import re
from pathlib import Path

# The first that matches is the cause; what follows it in a log is consequence.
_CAUSES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), sentence)
    for pattern, sentence in (
        (
            r"no space left on device|disk quota exceeded",
            "the disk is full: free some room, start again",
        ),
        (
            r"cannot allocate memory|out of memory",
            (
                "the machine has too little memory left: free some, or lower shared_buffers "
                "in local.conf"
            ),
        ),
        (
            r"could not look up effective user id",
            (
                "the user who runs the node has no entry in the user database, "
                "which PostgreSQL asks for: add one"
            ),
        ),
        (
            r"initialized by PostgreSQL version|CATALOG_VERSION_NO|BLCKSZ",
            "the data was made by another release of PostgreSQL: use that one by database.url",
        ),
        (
            r"wrong ownership|invalid permissions|permission denied",
            (
                "the modes or the owner of its folders were changed: they must belong to the user "
                "who runs PostgreSQL, with mode 0700"
            ),
        ),
        (
            (
                r"unrecognized configuration parameter|configuration file( .*)? contains errors"
                r"|invalid value for parameter|syntax error in file"
            ),
            "a setting is wrong: mend or remove local.conf",
        ),
        (
            (
                r"could not locate a valid checkpoint|could not locate required checkpoint"
                r"|incompatible with server|could not access status of transaction"
                r"|invalid (primary )?checkpoint record|checkpoint record is at"
                r"|could not open file \"?[^\"]*(pg_control|pg_wal|global/|PG_VERSION)"
                r"|could not read file|calculated CRC checksum does not match"
                r"|incorrect checksum in control file|invalid page in block|invalid magic number"
                r"|is not a valid data directory|could not open directory"
                r"|could not find the database system|PANIC:"
            ),
            "its files are damaged: put a copy back; the files are left as they are",
        ),
    )
)
_FATAL = re.compile(r"(?:FATAL|PANIC|ERROR|error):\s+(.*)")
_WORDS_MAX = 300


def explain(said: str, *, log: Path) -> str:
    """Explain why PostgreSQL did not do what it was asked.

    Args:
        said: what it wrote since it was asked.
        log: where all of it can be read.
    """
    found = _FATAL.findall(said)
    words = f"; it said {found[-1].strip()[:_WORDS_MAX]!r}" if found else ""
    for pattern, sentence in _CAUSES:
        if pattern.search(said):
            return f"{sentence} ({log}{words})"
    return f"the reason is in {log}{words}"
