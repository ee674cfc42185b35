"""A sheet of characters: text with styles, and lines that join where they are said to."""

from typing import Final

_UP, _RIGHT, _DOWN, _LEFT = 1, 2, 4, 8
_ACROSS: Final = _LEFT | _RIGHT
_ALONG: Final = _UP | _DOWN
_LINES: Final = " ╵╶╰╷│╭├╴╯─┴╮┤┬┼"
_ASCII: Final = " |-+||++-+-++++++"

Piece = tuple[str, str]
"""A text and its style."""


class Canvas:
    """Grows as it is drawn on; rows and columns count from 0."""

    def __init__(self, *, plain: bool) -> None:
        self._plain = plain
        self._lines: dict[tuple[int, int], int] = {}
        self._text: dict[tuple[int, int], Piece] = {}

    def text(self, row: int, column: int, text: str, style: str = "") -> None:
        """Write over whatever is there."""
        for n, character in enumerate(text):
            self._text[row, column + n] = (character, style)

    def across(self, row: int, first: int, last: int) -> None:
        """Draw a line from column `first` to `last`, both included."""
        for column in range(first, last + 1):
            bits = (_LEFT if column > first else 0) | (_RIGHT if column < last else 0)
            self._join(row, column, bits)

    def along(self, column: int, first: int, last: int, *, joins: frozenset[int]) -> None:
        """Draw a line down from row `first` to `last`, both included.

        It joins the lines that it meets in the rows of `joins`, and passes over all others.
        """
        for row in range(first, last + 1):
            bits = (_UP if row > first else 0) | (_DOWN if row < last else 0)
            if row in joins:
                self._join(row, column, bits)
            else:
                self._lines[row, column] = bits or _ALONG

    def stub(self, row: int, column: int, *, up: bool = False, down: bool = False) -> None:
        """Let the line in a cell lead on up or down."""
        self._join(row, column, (_UP if up else 0) | (_DOWN if down else 0))

    def lines(self) -> list[list[Piece]]:
        """The rows, each as pieces of one style, without blanks at its end."""
        cells = {
            place: (self._drawn(bits), "dim" if not self._plain else "")
            for place, bits in self._lines.items()
        }
        cells |= self._text
        rows: dict[int, dict[int, Piece]] = {}
        for (row, column), piece in cells.items():
            rows.setdefault(row, {})[column] = piece
        return [_pieces(rows.get(row, {})) for row in range(1 + max(rows, default=-1))]

    def _join(self, row: int, column: int, bits: int) -> None:
        self._lines[row, column] = self._lines.get((row, column), 0) | bits

    def _drawn(self, bits: int) -> str:
        return (_ASCII if self._plain else _LINES)[bits]


def _pieces(cells: dict[int, Piece]) -> list[Piece]:
    found: list[Piece] = []
    for column in range(1 + max(cells, default=-1)):
        character, style = cells.get(column, (" ", ""))
        if found and found[-1][1] == style:
            found[-1] = (found[-1][0] + character, style)
        else:
            found.append((character, style))
    return found
