"""Takes `${{ ... }}` out of what a shell reads: each becomes a variable, quoted, and never text.

The shell expands a variable after it has read its line, so whatever a result holds is data to it.
That holds where a word stands. Where the shell, or one that it starts, would read the value once
more, or where no variable is expanded, a reference is refused, and the error says how to do it.
"""

import re
from typing import Final

from protocols.expressions import ExpressionError
from protocols.templates import Piece, pieces

VARIABLE: Final = "RUNTIME_REF_"
COMMAND_CHARS_MAX: Final = 20_000
_AGAIN: Final = re.compile(r"(?:^|[\s;&|({])(?:-[A-Za-z]*c|eval|trap|--command)[\s=]+$")
_EVAL: Final = re.compile(r"(?:^|[\s;&|({`])(?:eval|trap)\s[^;&|\n]*$")
_WORD_ENDS: Final = frozenset(" \t\n;&|()<>")
_WHY: Final = {
    "single": "in single quotes a shell fills nothing in: use double quotes, or none",
    "backquote": "in backquotes a reference cannot be quoted: use $(...)",
    "arithmetic": "a shell would work the value out, commands in it too: "
    "hand it to a program, or use `when:`",
    "brace": "it cannot stand in ${...}: give it to a variable first, as in day=${{ input.day }}",
    "test": "in [[ ]] a shell may work the value out: use [ ]",
    "heredoc": "it cannot stand after <<: give it to a variable first, and write that below",
    "again": "the text would be read by a shell once more, commands in the value too: "
    "hand the value over as an argument, as in sh -c '... \"$1\"' sh ${{ input.day }}",
}


def for_shell(command: str) -> tuple[str, tuple[str, ...]]:
    """A command whose references are variables, and what stood inside each.

    Raises:
        ExpressionError: A reference stands where it cannot; `at` is its place in the text.
    """
    found = pieces(command)
    if not any(piece.is_expression for piece in found):
        return command, ()
    if len(command) > COMMAND_CHARS_MAX:
        text = f"a command with references has at most {COMMAND_CHARS_MAX:,} characters"
        raise ExpressionError(f"{text}: put the rest into a script", COMMAND_CHARS_MAX)
    reader = _Reader()
    parts: list[str] = []
    expressions: list[str] = []
    for piece in found:
        if not piece.is_expression:
            reader.read(piece.text)
            parts.append(piece.text)
            continue
        parts.append(reader.variable(piece, len(expressions)))
        expressions.append(piece.text)
    return "".join(parts), tuple(expressions)


class _Reader:
    """Follows a shell through its text as far as quoting goes (POSIX.1-2024, XCU 2.2 and 2.6)."""

    def __init__(self) -> None:
        self._stack = ["plain"]
        self._said = ""
        """What has been read of the current command, references as blanks."""
        self._heredoc = False
        self._quote_at = 0
        """Where in it the double quotes that are open were opened."""
        self._escaped = False
        self._comment = False

    def variable(self, piece: Piece, number: int) -> str:
        """What stands for a reference here."""
        if self._escaped:
            raise ExpressionError("a backslash cannot stand before a reference", piece.at)
        why = None if self._comment else _WHY.get(self._where())
        if why is not None:
            raise ExpressionError(f"a reference cannot stand here: {why}", piece.at)
        self._said += "x"
        name = f"{VARIABLE}{number}"
        return f"${{{name}}}" if self._stack[-1] == "double" else f'"${name}"'

    def _where(self) -> str:
        """What is worst of where this is."""
        for state in ("backquote", "arithmetic", "brace", "single"):
            if state in self._stack:
                return state
        if self._heredoc:
            return "heredoc"
        test = self._said.rfind("[[ ")
        if test >= 0 and " ]]" not in self._said[test:]:
            return "test"
        quoted = self._stack[-1] == "double"
        before = self._said[: self._quote_at] if quoted else self._said
        again = _AGAIN.search(before) or _EVAL.search(self._said)
        return "again" if again else self._stack[-1]

    def read(self, text: str) -> None:
        """Go on through text that holds no reference."""
        at = 0
        while at < len(text):
            at += self._step(text, at)

    def _step(self, text: str, at: int) -> int:  # noqa: PLR0911 - a rule of quoting each
        """Take what stands at `at`; returns how much that was."""
        char, state = text[at], self._stack[-1]
        self._said += char
        if self._comment:
            self._comment = char != "\n"
            return 1
        if self._escaped:
            self._escaped = False
            return 1
        if state == "single":
            if char == "'":
                self._stack.pop()
            return 1
        if char == "\\":
            self._escaped = True
            return 1
        if text.startswith("$((", at):
            return self._open("arithmetic", text, at, 3)
        if text.startswith("$(", at):
            return self._open("plain", text, at, 2)
        if text.startswith("${", at):
            return self._open("brace", text, at, 2)
        if char == "`":
            self._toggle("backquote")
            return 1
        if char == '"':
            self._quote_at = len(self._said) - 1 if state != "double" else self._quote_at
            self._toggle("double")
            return 1
        if state == "double":
            return 1
        return self._bare(text, at)

    def _bare(self, text: str, at: int) -> int:
        """Outside of quotes."""
        char, state = text[at], self._stack[-1]
        if state == "arithmetic":
            if text.startswith("))", at):
                self._stack.pop()
                self._said += ")"
                return 2
        elif state == "brace":
            if char == "}":
                self._stack.pop()
        elif char == "'":
            self._stack.append("single")
        elif char == "#" and (len(self._said) == 1 or self._said[-2] in _WORD_ENDS):
            self._comment = True
        elif text.startswith("<<<", at):
            self._said += "<<"
            return 3
        elif text.startswith("<<", at):
            self._heredoc = True
        elif text.startswith("((", at):
            return self._open("arithmetic", text, at, 2)
        elif char == "(":
            self._stack.append("plain")
        elif char == ")" and len(self._stack) > 1:
            self._stack.pop()
        return 1

    def _open(self, state: str, text: str, at: int, length: int) -> int:
        self._stack.append(state)
        self._said += text[at + 1 : at + length]
        return length

    def _toggle(self, state: str) -> None:
        if self._stack[-1] == state:
            self._stack.pop()
        else:
            self._stack.append(state)
