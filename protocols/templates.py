"""Where `${{ ... }}` stands in what people write, and what stands there once it is worked out.

Texts are only ever filled in as data: an argument, a variable, a value of JSON. What a shell reads
is not filled in at all (`protocols.shell_references`).
"""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

import msgspec

from protocols.expressions import ExpressionError, parse, paths

OPEN: Final = "${{"
CLOSE: Final = "}}"
# Up to the braces that close it, but for those in a string of the expression.
_INSIDE: Final = re.compile(
    r"""(?:[^'"}]|\}(?!\})|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")*+""", re.DOTALL
)


class Piece(msgspec.Struct, frozen=True):
    """A part of a text: as it stands, or what stands inside one `${{ ... }}`."""

    text: str
    is_expression: bool
    at: int
    """Where it begins, braces not counted, from 0."""


@lru_cache(maxsize=4096)
def pieces(text: str) -> tuple[Piece, ...]:
    """A text, cut at its references.

    Raises:
        ExpressionError: One of them has no end; `at` is its place in the text.
    """
    found: list[Piece] = []
    at = 0
    while (start := text.find(OPEN, at)) >= 0:
        if start > at:
            found.append(Piece(text[at:start], is_expression=False, at=at))
        inside = _INSIDE.match(text, start + len(OPEN))
        assert inside is not None, "it matches nothing, too"
        if not text.startswith(CLOSE, inside.end()):
            raise ExpressionError("`${{` has no `}}`", start)
        raw = inside[0]
        begin = inside.start() + len(raw) - len(raw.lstrip())
        found.append(Piece(raw.strip(), is_expression=True, at=begin))
        at = inside.end() + len(CLOSE)
    if at < len(text):
        found.append(Piece(text[at:], is_expression=False, at=at))
    return tuple(found)


def expressions_in(value: Any) -> tuple[str, ...]:
    """What stands inside each `${{ ... }}` of the texts in a JSON value, each once, in order.

    Raises:
        ExpressionError: One of them has no end.
    """
    found: dict[str, None] = {}
    for text in _texts(value):
        found |= dict.fromkeys(piece.text for piece in pieces(text) if piece.is_expression)
    return tuple(found)


def only_expression(text: str) -> str | None:
    """What stands inside, where a text is one `${{ ... }}` and nothing else."""
    found = pieces(text.strip())
    return found[0].text if len(found) == 1 and found[0].is_expression else None


def task_ids(expression: str) -> frozenset[str]:
    """The tasks that an expression names.

    Raises:
        ExpressionError: It is no expression.
    """
    return frozenset(
        str(path.keys[1])
        for path in paths(parse(expression))
        if path.keys[0] == "tasks" and len(path.keys) > 1
    )


def render(value: Any, values: Mapping[str, Any]) -> Any:
    """A JSON value with its references filled in.

    A text that is one reference and nothing else becomes its value, of whatever kind; in a longer
    text each becomes text. Keys of objects stay.

    Args:
        value: as it stands in the definition.
        values: by what stands inside the braces (`expressions_in`).
    """
    if isinstance(value, str):
        only = only_expression(value)
        return values[only] if only is not None else render_text(value, values)
    if isinstance(value, Mapping):
        return {key: render(item, values) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [render(item, values) for item in value]
    return value


def render_text(text: str, values: Mapping[str, Any]) -> str:
    """A text that stays one: an argument of a command, a variable, a header."""
    return "".join(
        as_text(values[piece.text]) if piece.is_expression else piece.text for piece in pieces(text)
    )


def render_url(text: str, values: Mapping[str, Any]) -> str:
    """A URL: what is filled in is quoted, and so stays one part of it, unless it is the whole."""
    if only_expression(text) is not None:
        return render_text(text, values)
    return "".join(
        quote(as_text(values[piece.text]), safe="") if piece.is_expression else piece.text
        for piece in pieces(text)
    )


def as_text(value: Any) -> str:
    """A JSON value as text: text as it stands, null as nothing, anything else as JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else msgspec.json.encode(value).decode()


def blanked(text: str) -> str:
    """A text with an `x` for each reference, so that its form can be looked at."""
    try:
        return "".join("x" if piece.is_expression else piece.text for piece in pieces(text))
    except ExpressionError:
        return text


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
