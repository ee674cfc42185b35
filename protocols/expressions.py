"""The language of `${{ ... }}`: small, total, and without a way to anything but its data.

An expression is read by `parse` and worked out by `evaluate`, which end with a JSON value or with
an `ExpressionError`, whatever they are given. Nothing in it repeats, names a Python object or
grows without a bound: its text, the depth of its brackets, the work it costs and the size of what
it makes are limited. The grammar, loosest first:

    or, and, not, comparison (== != < <= > >= in, not in), + -, * / %, unary -, path, literal

A path is a root, then names: `tasks.extract.result.rows[0]['a key']`. A name after a dot may hold
hyphens, so that a minus wants a space before it. What is not there is an error, but for
`default(a, b)`, which is `b` where `a` is null or not there.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec

from protocols.expression_text import Lexer, Token
from protocols.expression_values import (
    NOT_THERE,
    STEPS_MAX,
    ExpressionError,
    Work,
    call,
    compare,
    compute,
    holds,
    truth,
)

__all__ = ["ARITY", "Expression", "ExpressionError", "PathNode", "evaluate", "parse", "paths"]

TEXT_CHARS_MAX: Final = 4096
DEPTH_MAX: Final = 20
"""How deep brackets, lists, calls, `not` and minus signs nest."""
ROOTS: Final = ("input", "item", "run", "tasks")
ARITY: Final[Mapping[str, int]] = {
    "contains": 2,
    "default": 2,
    "endswith": 2,
    "fromjson": 1,
    "length": 1,
    "lower": 1,
    "startswith": 2,
    "tojson": 1,
    "upper": 1,
}
_COMPARISONS: Final = frozenset({"==", "!=", "<", "<=", ">", ">=", "in", "not in"})
_WORDS: Final[Mapping[str, Any]] = {"true": True, "false": False, "null": None}


class Literal(msgspec.Struct, frozen=True):
    """A value that stands in the text."""

    value: str | int | float | bool | None


class PathNode(msgspec.Struct, frozen=True):
    """A root, and the names and places after it."""

    keys: tuple[str | int, ...]
    at: int


class ListNode(msgspec.Struct, frozen=True):
    """`[a, b]`."""

    items: tuple["Expression", ...]


class CallNode(msgspec.Struct, frozen=True):
    """A function of the language."""

    name: str
    arguments: tuple["Expression", ...]
    at: int


class UnaryNode(msgspec.Struct, frozen=True):
    """`not` or a minus."""

    operator: str
    operand: "Expression"
    at: int


class ChainNode(msgspec.Struct, frozen=True):
    """Operators of one strength, from left to right: a long sum is no deep tree."""

    first: "Expression"
    rest: tuple[tuple[str, "Expression", int], ...]


Expression = Literal | PathNode | ListNode | CallNode | UnaryNode | ChainNode


@lru_cache(maxsize=4096)
def parse(text: str) -> Expression:
    """Read an expression: what stands between the braces.

    Raises:
        ExpressionError: It is none; `at` is the place in `text`, counted from 0.
    """
    if len(text) > TEXT_CHARS_MAX:
        raise ExpressionError(f"an expression has at most {TEXT_CHARS_MAX:,} characters")
    return _Parser(text).whole()


def evaluate(
    expression: str | Expression, scope: Mapping[str, Any], *, within: Work | None = None
) -> Any:
    """Work an expression out.

    Args:
        expression: its text, or what `parse` made of it.
        scope: the values of the roots, as JSON has them; a root that is not here is not there.
        within: what this and others may cost together.

    Raises:
        ExpressionError: It has no value, or it costs too much.
    """
    parsed = parse(expression) if isinstance(expression, str) else expression
    work = Work(STEPS_MAX, within=within)
    value = _value(parsed, scope, work)
    return work.measured(value)


def paths(expression: Expression) -> Iterator[PathNode]:
    """Every path in an expression, in the order of the text."""
    match expression:
        case PathNode():
            yield expression
        case ListNode(items=parts) | CallNode(arguments=parts):
            for part in parts:
                yield from paths(part)
        case UnaryNode(operand=operand):
            yield from paths(operand)
        case ChainNode(first=first, rest=rest):
            yield from paths(first)
            for _, part, _ in rest:
                yield from paths(part)


def _value(node: Expression, scope: Mapping[str, Any], work: Work) -> Any:  # noqa: PLR0911 - a case a kind
    work.spend(1)
    match node:
        case Literal(value=value):
            return value
        case PathNode():
            return _found(node, scope, work)
        case ListNode(items=items):
            return [_value(item, scope, work) for item in items]
        case CallNode(name="default", arguments=(first, second)):
            return _default(first, second, scope, work)
        case CallNode(name=name, arguments=arguments, at=at):
            return call(name, [_value(part, scope, work) for part in arguments], at, work)
        case UnaryNode(operator="not", operand=operand):
            return not truth(_value(operand, scope, work))
        case UnaryNode(operand=operand, at=at):
            return compute("-", 0, _value(operand, scope, work), at, work)
        case ChainNode():
            return _chain(node, scope, work)


def _chain(node: ChainNode, scope: Mapping[str, Any], work: Work) -> Any:
    value = _value(node.first, scope, work)
    for operator, part, at in node.rest:
        if operator in {"and", "or"}:
            value = truth(value)
            if value is (operator == "or"):
                return value
            value = truth(_value(part, scope, work))
            continue
        other = _value(part, scope, work)
        if operator in {"in", "not in"}:
            value = holds(other, value, at, work) is (operator == "in")
        elif operator in _COMPARISONS:
            value = compare(operator, value, other, at, work)
        else:
            value = compute(operator, value, other, at, work)
    return value


def _default(first: Expression, second: Expression, scope: Mapping[str, Any], work: Work) -> Any:
    if isinstance(first, PathNode):
        value = _looked_up(first, scope, work)[0]
    else:
        value = _value(first, scope, work)
    return _value(second, scope, work) if value is None or value is NOT_THERE else value


def _found(node: PathNode, scope: Mapping[str, Any], work: Work) -> Any:
    value, depth = _looked_up(node, scope, work)
    if value is NOT_THERE:
        whole, missing = spelled(node.keys[:depth]), spelled(node.keys[: depth + 1])
        where = f"in {whole} " if depth else ""
        raise ExpressionError(f"there is no {missing}: {where}nothing has this name", node.at)
    return value


def _looked_up(node: PathNode, scope: Mapping[str, Any], work: Work) -> tuple[Any, int]:
    """What a path leads to, or `NOT_THERE` and how much of it was there."""
    value: Any = scope
    for depth, key in enumerate(node.keys):
        work.spend(1)
        value = _inside(value, key)
        if value is NOT_THERE:
            return NOT_THERE, depth
    return value, len(node.keys)


def _inside(value: Any, key: str | int) -> Any:
    if isinstance(key, str):
        return value.get(key, NOT_THERE) if isinstance(value, Mapping) else NOT_THERE
    return value[key] if isinstance(value, list) and key < len(value) else NOT_THERE


def spelled(keys: tuple[str | int, ...]) -> str:
    """A path as it is written."""
    text = ""
    for key in keys:
        if isinstance(key, int):
            text += f"[{key}]"
        elif key.replace("-", "_").isidentifier():
            text += f".{key}" if text else key
        else:
            text += f"[{key!r}]"
    return text if len(text) <= 100 else f"{text[:97]}..."  # noqa: PLR2004 - a line's length


class _Parser:
    def __init__(self, text: str) -> None:
        self._lexer = Lexer(text)
        self._next: Token = self._lexer.token()
        self._depth = 0

    def whole(self) -> Expression:
        found = self._or()
        if self._next.kind != "end":
            raise self._unexpected()
        return found

    def _or(self) -> Expression:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            text = f"this is nested deeper than {DEPTH_MAX} levels"
            raise ExpressionError(text, self._next.at)
        found = self._chain(("or",), self._and)
        self._depth -= 1
        return found

    def _and(self) -> Expression:
        return self._chain(("and",), self._not)

    def _not(self) -> Expression:
        negations = []
        while self._next.is_word("not"):
            negations.append(self._take().at)
        found = self._comparison()
        for at in reversed(negations[-2:] if len(negations) % 2 == 0 else negations[-1:]):
            found = UnaryNode("not", found, at)
        return found

    def _comparison(self) -> Expression:
        first = self._sum()
        operator, at = self._operator()
        if operator is None:
            return first
        found = ChainNode(first, ((operator, self._sum(), at),))
        again, at = self._operator()
        if again is not None:
            raise ExpressionError("comparisons do not chain: join them with `and`", at)
        return found

    def _operator(self) -> tuple[str | None, int]:
        at = self._next.at
        if self._next.is_word("not"):
            self._take()
            if not self._next.is_word("in"):
                raise self._unexpected()
            self._take()
            return "not in", at
        if self._next.text in _COMPARISONS and self._next.kind in {"sign", "word"}:
            return self._take().text, at
        return None, at

    def _sum(self) -> Expression:
        return self._chain(("+", "-"), self._product)

    def _product(self) -> Expression:
        return self._chain(("*", "/", "%"), self._unary)

    def _unary(self) -> Expression:
        minus = []
        while self._next.is_sign("-"):
            minus.append(self._take().at)
        found = self._primary()
        for at in reversed(minus[-2:] if len(minus) % 2 == 0 else minus[-1:]):
            found = UnaryNode("-", found, at)
        return found

    def _chain(self, operators: tuple[str, ...], part: Any) -> Expression:
        first: Expression = part()
        rest = []
        while self._next.kind in {"sign", "word"} and self._next.text in operators:
            operator = self._take()
            rest.append((operator.text, part(), operator.at))
        return ChainNode(first, tuple(rest)) if rest else first

    def _primary(self) -> Expression:
        token = self._next
        if token.kind == "value":
            self._take()
            return Literal(token.value)
        if token.is_sign("("):
            self._take()
            found = self._or()
            self._expect(")")
            return found
        if token.is_sign("["):
            self._take()
            return ListNode(self._several("]"))
        if token.kind != "word" or token.text in {"and", "or", "not", "in"}:
            raise self._unexpected()
        self._take()
        if token.text in _WORDS:
            return Literal(_WORDS[token.text])
        if self._next.is_sign("("):
            return self._call(token)
        if token.text not in ROOTS:
            known = ", ".join(ROOTS)
            raise ExpressionError(f'"{token.text}" is not one of {known}', token.at)
        return self._path(token)

    def _call(self, name: Token) -> Expression:
        if name.text not in ARITY:
            known = ", ".join(ARITY)
            raise ExpressionError(f'there is no function "{name.text}", only {known}', name.at)
        self._take()
        arguments = self._several(")")
        if len(arguments) != ARITY[name.text]:
            text = f"{name.text}() takes {ARITY[name.text]} arguments; here are {len(arguments)}"
            raise ExpressionError(text, name.at)
        return CallNode(name.text, arguments, name.at)

    def _several(self, close: str) -> tuple[Expression, ...]:
        found: list[Expression] = []
        while not self._next.is_sign(close):
            if found:
                self._expect(",")
            found.append(self._or())
        self._take()
        return tuple(found)

    def _path(self, root: Token) -> Expression:
        keys: list[str | int] = [root.text]
        while True:
            if self._next.is_sign("."):
                keys.append(self._lexer.name())
                self._next = self._lexer.token()
            elif self._next.is_sign("["):
                self._take()
                keys.append(self._key())
                self._expect("]")
            else:
                return PathNode(tuple(keys), root.at)

    def _key(self) -> str | int:
        token = self._take()
        if token.kind == "value" and isinstance(token.value, str | int):
            return token.value
        raise ExpressionError("in brackets stands a number or a quoted name", token.at)

    def _take(self) -> Token:
        taken, self._next = self._next, self._lexer.token()
        return taken

    def _expect(self, sign: str) -> None:
        if not self._next.is_sign(sign):
            raise self._unexpected(f", where `{sign}` was expected")
        self._take()

    def _unexpected(self, more: str = "") -> ExpressionError:
        token = self._next
        what = "it ends" if token.kind == "end" else f"here stands {token.shown}"
        return ExpressionError(f"{what}{more or ', where a value was expected'}", token.at)
