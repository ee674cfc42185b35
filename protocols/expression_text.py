"""Cuts the text of an expression into its words, numbers, strings and signs."""

import re
from typing import Any, Final, Literal

import msgspec

from protocols.expression_values import INT_MAX, ExpressionError

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NAME: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?")
"""After a dot: an id of a task, or a name in a result."""
_NUMBER: Final = re.compile(r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")
_SIGN: Final = re.compile(r"==|!=|<=|>=|[<>+\-*/%()\[\].,]")
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"'}
_DIGITS_MAX: Final = 40

Kind = Literal["word", "value", "sign", "end"]


class Token(msgspec.Struct, frozen=True):
    """A piece of the text; `value` is that of a number or a string."""

    kind: Kind
    text: str
    at: int
    value: Any = None

    def is_sign(self, sign: str) -> bool:
        """Whether this is that sign."""
        return self.kind == "sign" and self.text == sign

    def is_word(self, word: str) -> bool:
        """Whether this is that word."""
        return self.kind == "word" and self.text == word

    @property
    def shown(self) -> str:
        """As an error tells it."""
        return f"`{self.text[:40]}`"


class Lexer:
    """Walks through a text once."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def token(self) -> Token:
        """The next piece.

        Raises:
            ExpressionError: What stands here is none.
        """
        space = _SPACE.match(self._text, self._at)
        assert space is not None, "it matches nothing, too"
        at = self._at = space.end()
        if at == len(self._text):
            return Token("end", "", at)
        if self._text[at] in "'\"":
            return self._string(at)
        for kind, pattern in (("word", _WORD), ("number", _NUMBER), ("sign", _SIGN)):
            found = pattern.match(self._text, at)
            if found is None:
                continue
            self._at = found.end()
            if kind == "number":
                return Token("value", found[0], at, _number(found[0], at))
            return Token("word" if kind == "word" else "sign", found[0], at)
        raise ExpressionError(f"{self._text[at]!a} has no place here", at)

    def name(self) -> str:
        """The name that stands right after a dot."""
        found = _NAME.match(self._text, self._at)
        if found is None:
            raise ExpressionError("after a dot stands a name", self._at)
        self._at = found.end()
        return found[0]

    def _string(self, start: int) -> Token:
        quote = self._text[start]
        parts: list[str] = []
        at = start + 1
        while at < len(self._text):
            char = self._text[at]
            if char == quote:
                self._at = at + 1
                return Token("value", self._text[start : at + 1], start, "".join(parts))
            if char == "\\":
                escaped = self._text[at + 1 : at + 2]
                if escaped not in _ESCAPES:
                    known = "\\n \\t \\r \\\\ \\' \\\""
                    raise ExpressionError(f"of escapes there are {known}", at)
                parts.append(_ESCAPES[escaped])
                at += 2
                continue
            parts.append(char)
            at += 1
        raise ExpressionError("this string has no end", start)


def _number(text: str, at: int) -> int | float:
    if len(text) > _DIGITS_MAX:
        raise ExpressionError("this number is too long", at)
    if text.isdigit():
        value = int(text)
        if value > INT_MAX:
            raise ExpressionError("this number is beyond 64 bits", at)
        return value
    number = float(text)
    if number == float("inf"):
        raise ExpressionError("this number is too large", at)
    return number
