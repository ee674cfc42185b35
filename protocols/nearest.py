"""The name that was probably meant, at a bounded cost however much is wrong."""

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice
from typing import Final

HINTS_MAX: Final = 20
"""How often one file, or one mapping, is given a hint: a look costs a comparison with each name."""
NAMES_MAX: Final = 2000
"""Among how many names the nearest is looked for."""
NAME_CHARS_MAX: Final = 200


class Nearest:
    """Looks among some names, as often as `HINTS_MAX`; after that none is near."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = names
        self._listed: list[str] | None = None
        self._left = HINTS_MAX

    def to(self, name: str) -> str | None:
        """The known name that is most like this one, if one is like it."""
        if self._left <= 0 or len(name) > NAME_CHARS_MAX:
            return None
        self._left -= 1
        if self._listed is None:
            self._listed = list(islice(self._names, NAMES_MAX))
        return next(iter(get_close_matches(name, self._listed, n=1)), None)
