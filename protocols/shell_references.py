"""Takes `${{ ... }}` out of what a shell reads: each becomes a variable, quoted, and never text.

The shell expands a variable after it has read its line, so whatever a result holds is data to it.
That holds where a word stands. Where the shell, or one that it starts, would read the value once
more, or where no variable is expanded, a reference is refused, and the error says how to do it.
"""

import re
from typing import Final, Literal

from protocols.expressions import ExpressionError
from protocols.templates import Piece, pieces

VARIABLE: Final = "RUNTIME_REF_"
COMMAND_CHARS_MAX: Final = 20_000
_WORD_CHARS_MAX: Final = 100
"""Of a word so much is looked at."""
_AGAIN: Final = re.compile(r"-[A-Za-z]*c|--command")
_ATTACHED: Final = re.compile(r"(-[A-Za-z]*c|--command)(=.*)?")
_SUBSCRIPT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\[[^]]*")
_ASSIGNED: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\+?=.*", re.DOTALL)
_CODE: Final = frozenset({"eval", "trap", "alias"})
_NAMES: Final = frozenset(
    {"let", "declare", "typeset", "local", "read", "unset", "mapfile", "readarray", "compgen"}
)
"""Builtins that take a variable's name, and so a subscript, which bash works out: `a[$(rm x)]`."""
_NAMES_BY_V: Final = frozenset({"printf", "test", "["})
"""The same of what follows their `-v`."""
_BEFORE_COMMANDS: Final = frozenset(
    {"if", "then", "elif", "else", "while", "until", "do", "!", "{", "time", "command", "builtin"}
)
_WHY: Final = {
    "single": "in single quotes a shell fills nothing in: use double quotes, or none",
    "backquote": "in backquotes a reference cannot be quoted: use $(...)",
    "arithmetic": "a shell would work the value out, commands in it too: "
    "hand it to a program, or use `when:`",
    "brace": "it cannot stand in ${...}: give it to a variable first, as in day=${{ input.day }}",
    "test": "in [[ ]] a shell may work the value out: use [ ]",
    "heredoc": "it cannot stand after <<: give it to a variable first, and write that below",
    "case": "it cannot stand after a `case` in $(...): give it to a variable before that",
    "quotes": "it cannot stand after quotes in ${...}, or a backslash in $'...': give it to a "
    "variable before that",
    "name": "a shell takes this for a variable's name, and may work it out, commands in it too: "
    "write day=${{ input.day }}",
    "stream": "after >& a shell may work the value out, commands in it too: use >",
    "again": "the text would be read by a shell once more, commands in the value too: "
    "hand the value over as an argument, as in sh -c '... \"$1\"' sh ${{ input.day }}",
}

_Kind = Literal[
    "root",
    "sub",
    "group",
    "backquote",
    "double",
    "single",
    "dollar",
    "arithmetic",
    "paren",
    "bracket",
    "brace",
]
_COMMANDS: Final = frozenset({"root", "sub", "group", "backquote"})
"""What holds commands; anything else is a part of a word of one."""


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


class _Frame:
    """Something that is open; where it holds commands, what was read of the current one."""

    __slots__ = ("code", "first", "in_word", "kind", "last", "name", "stream", "test", "word")

    def __init__(self, kind: _Kind) -> None:
        self.kind = kind
        self.test = False
        self.begin_command()

    def begin_command(self) -> None:
        """Another command begins."""
        self.in_word, self.word = False, ""
        self.first, self.last = "", ""
        self.code = self.name = False
        """Whether the command reads its words as commands; as names of variables."""
        self.stream = False
        """Whether this is the word after `>&`."""

    def add(self, text: str) -> None:
        """A part of a word, without what quotes it."""
        self.in_word = True
        if len(self.word) < _WORD_CHARS_MAX:
            self.word += text

    def end_word(self) -> None:
        """A blank, or an operator."""
        if not self.in_word:
            return
        word, self.word, self.in_word, self.stream = self.word, "", False, False
        if word in {"[[", "]]"}:
            self.test = word == "[["
        self.code = self.code or word in _CODE
        if not self.first and word not in _BEFORE_COMMANDS and not _ASSIGNED.fullmatch(word):
            self.first = word
            self.name = word in _NAMES
        # What stands between `-c` and its text are options.
        option = word[:1] in {"-", "+"}
        if not (option and _AGAIN.fullmatch(self.last)) or _AGAIN.fullmatch(word):
            self.last = word

    def why(self) -> str | None:
        """Why no value can stand here, as far as this command goes."""
        if self.test:
            return "test"
        if self.stream:
            return "stream"
        if self.code or _AGAIN.fullmatch(self.last) or _ATTACHED.fullmatch(self.word):
            return "again"
        if self.name or (self.last == "-v" and self.first in _NAMES_BY_V):
            return "name"
        return "arithmetic" if _SUBSCRIPT.fullmatch(self.word) else None


class _Reader:
    """Follows a shell through its text as far as quoting goes (POSIX.1-2024, XCU 2.2 and 2.6).

    What cannot be followed, since shells differ or it would take a whole shell to, refuses all
    references after it.
    """

    def __init__(self) -> None:
        self._stack = [_Frame("root")]
        self._lost: str | None = None
        """Why no reference can stand from here on."""
        self._before = ""
        """The character before, outside of quotes."""
        self._escaped = False
        self._comment = False

    def variable(self, piece: Piece, number: int) -> str:
        """What stands for a reference here."""
        name = f"{VARIABLE}{number}"
        if self._comment:
            return name  # a bare word: were this no comment to some shell, nothing is filled in
        if self._escaped:
            raise ExpressionError("a backslash cannot stand before a reference", piece.at)
        why = self._where()
        if why is not None:
            raise ExpressionError(f"a reference cannot stand here: {_WHY[why]}", piece.at)
        self._command().add("x")
        self._before = ""
        return f"${{{name}}}" if self._stack[-1].kind == "double" else f'"${name}"'

    def _where(self) -> str | None:
        """What is worst of where this is."""
        if self._lost is not None:
            return self._lost
        kinds = {frame.kind for frame in self._stack}
        for kind, why in (
            ("backquote", "backquote"),
            ("arithmetic", "arithmetic"),
            ("bracket", "arithmetic"),
            ("brace", "brace"),
            ("single", "single"),
            ("dollar", "single"),
        ):
            if kind in kinds:
                return why
        commands = (frame.why() for frame in self._stack if frame.kind in _COMMANDS)
        return next((why for why in commands if why is not None), None)

    def _command(self) -> _Frame:
        return next(frame for frame in reversed(self._stack) if frame.kind in _COMMANDS)

    def read(self, text: str) -> None:
        """Go on through text that holds no reference."""
        at = 0
        while at < len(text):
            step = self._step(text, at)
            self._before = text[at + step - 1]
            at += step

    def _step(self, text: str, at: int) -> int:  # noqa: PLR0911 - a rule of quoting each
        """Take what stands at `at`; returns how much that was."""
        char, kind = text[at], self._stack[-1].kind
        if self._comment:
            if char == "\n" or (char == "`" and kind == "backquote"):
                self._comment = False
            else:
                return 1
        if self._escaped:
            self._escaped = False
            if char != "\n":
                self._command().add(char)
            return 1
        if kind in {"single", "dollar"}:
            return self._quoted(char)
        if char == "\\":
            self._escaped = True
            return 1
        if text.startswith("$((", at):
            return self._open("arithmetic", 3)
        if text.startswith("$(", at):
            return self._open("sub", 2)
        if text.startswith("$[", at):
            return self._open("bracket", 2)
        if text.startswith("${", at):
            return self._open("brace", 2)
        if char == "`":
            return self._toggle("backquote")
        if char == '"':
            return self._toggle("double")
        if kind == "double":
            if char == "}" and any(frame.kind == "brace" for frame in self._stack):
                self._lost = self._lost or "quotes"
            self._command().add(char)
            return 1
        if kind in _COMMANDS:
            return self._bare(text, at)
        return self._inner(text, at)

    def _quoted(self, char: str) -> int:
        if char == "'":
            self._stack.pop()
            return 1
        if char == "\\" and self._stack[-1].kind == "dollar":
            self._lost = self._lost or "quotes"
        self._command().add(char)
        return 1

    def _inner(self, text: str, at: int) -> int:
        """Within an arithmetic expression or `${...}`, outside of quotes."""
        char, kind = text[at], self._stack[-1].kind
        if kind == "brace":
            if char == "'":
                self._lost = self._lost or "quotes"
            elif char == "}":
                self._stack.pop()
        elif kind == "bracket":
            if char == "]":
                self._stack.pop()
        elif char == "(":
            self._stack.append(_Frame("paren"))
        elif kind == "paren":
            if char == ")":
                self._stack.pop()
        elif text.startswith("))", at):
            self._stack.pop()
            return 2
        return 1

    def _bare(self, text: str, at: int) -> int:
        """Among the words of a command."""
        char, frame = text[at], self._stack[-1]
        if char == "'":
            frame.in_word = True
            self._stack.append(_Frame("dollar" if self._before == "$" else "single"))
        elif char == "#" and not frame.in_word:
            self._comment = True
        elif text.startswith("<<<", at):
            frame.end_word()
            return 3
        elif text.startswith("<<", at):
            self._lost = self._lost or "heredoc"
        elif not frame.in_word and text.startswith("((", at):
            return self._open("arithmetic", 2)
        elif char == "(":
            frame.end_word()
            self._stack.append(_Frame("group"))
        elif char == ")":
            frame.end_word()
            if len(self._stack) > 1 and frame.kind != "backquote":
                self._stack.pop()
        elif char in " \t<>":
            self._end_word(frame)
        elif char in ";\n|&":
            self._end_word(frame)
            redirects = self._before in {"<", ">"} or text.startswith("&>", at)
            if char in ";\n" or not redirects:
                frame.begin_command()
            frame.stream = char == "&" and self._before in {"<", ">"}
        else:
            frame.add(char)
        return 1

    def _end_word(self, frame: _Frame) -> None:
        in_sub = any(one.kind == "sub" for one in self._stack)
        if frame.word == "case" and in_sub:
            self._lost = self._lost or "case"
        frame.end_word()

    def _open(self, kind: _Kind, length: int) -> int:
        self._command().in_word = True
        self._stack.append(_Frame(kind))
        return length

    def _toggle(self, kind: _Kind) -> int:
        if self._stack[-1].kind == kind:
            self._stack.pop()
        else:
            self._command().in_word = True
            self._stack.append(_Frame(kind))
        return 1
