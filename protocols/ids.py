"""What users see as an execution's id: a UUIDv7 made of the row's key and its birth.

RFC 9562, section 5.7, with a counter in `rand_b`: 48 bits of Unix milliseconds, 12 bits of the
fraction of that millisecond, and the row's 62-bit key. Nothing is stored and nothing is indexed
beside the key: the id is derived from the row, and the row is found from the id.
"""

from datetime import datetime
from functools import lru_cache
from typing import Final
from uuid import UUID

from protocols.instants import epoch_us

_KEY_BITS: Final = 62
_KEY_MASK: Final = (1 << _KEY_BITS) - 1
_VERSION: Final = 0x7 << 12
_VARIANT: Final = 0x2 << _KEY_BITS


def execution_id(key: int, created_at: datetime) -> str:
    """The public id of the execution whose row is `key`, created at `created_at` (aware)."""
    low = f"{_VARIANT | key:016x}"
    return f"{_birth(created_at)}-{low[:4]}-{low[4:]}"


@lru_cache(maxsize=1024)  # what was made in one statement was born at one instant
def _birth(created_at: datetime) -> str:
    ms, us = divmod(epoch_us(created_at), 1000)
    text = f"{(ms << 16) | _VERSION | ((us << 12) // 1000):016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:]}"


def execution_key(text: str) -> int | None:
    """The row's key in a public id, or None where `text` is no such id.

    The caller compares `execution_id` of the row it finds, so that a made-up id finds nothing.
    """
    try:
        value = UUID(text)
    except ValueError:
        return None
    return value.int & _KEY_MASK if value.version == 7 else None  # noqa: PLR2004
