"""Where a page of a list ended, as one opaque word that a client hands back."""

import base64
import binascii
from typing import Final, TypeVar

import msgspec

from protocols.errors import InvalidError, Problem

PAGE_MAX = 1000
"""The most items that one page holds."""

_KEY_MAX: Final = (1 << 63) - 1

Place = TypeVar("Place")


def cursor_of(place: object) -> str:
    """Write a place as a word of URL-safe characters."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).rstrip(b"=").decode("ascii")


def place_of(cursor: str, of: type[Place]) -> Place:
    """Read a word that `cursor_of` wrote.

    Raises:
        InvalidError: it is something else.
    """
    try:
        text = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        return msgspec.json.decode(text, type=of)
    except (UnicodeEncodeError, binascii.Error, msgspec.MsgspecError) as error:
        problem = Problem(
            ("cursor",), "is not a cursor of this list: give one that a page ended by"
        )
        raise InvalidError((problem,)) from error


def number_of(cursor: str | None) -> int:
    """The key below which a page of a list by keys begins; the highest there is without a cursor.

    Raises:
        InvalidError: it is no such cursor.
    """
    key = place_of(cursor, int) if cursor else _KEY_MAX
    return max(0, min(key, _KEY_MAX))


def page_size(limit: int) -> int:
    """The number of items for a page of `limit`, at least one and at most `PAGE_MAX`."""
    return max(1, min(limit, PAGE_MAX))
