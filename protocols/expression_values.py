"""What operators and functions of the expression language make of JSON values, and what that costs.

Every one ends, in a value or in an `ExpressionError`. Work is counted in steps: one for a node or
an element that is looked at, one for each 16 characters of text.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

STEPS_MAX: Final = 200_000
"""Some tenths of a second at most."""
TASK_STEPS_MAX: Final = 1_000_000
"""Of all that one task refers to: a node does nothing else meanwhile."""
OUTPUT_BYTES_MAX: Final = 64 * 1024
"""Of what an expression makes, as JSON; of any text on the way there, characters."""
INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**63 - 1
_CHARS_A_STEP: Final = 16
_MADE_A_STEP: Final = 16
"""Pairs made ready, keys compared."""
_DEPTH_MAX: Final = 200
NOT_THERE: Final = object()
"""What a path leads to that leads nowhere."""


class ExpressionError(ValueError):
    """An expression is wrong, or has no value; `at` is where in its text, counted from 0."""

    def __init__(self, message: str, at: int = 0) -> None:
        super().__init__(message)
        self.at = at


class Work:
    """How much may still be done: so many steps, and no more than a whole has left."""

    def __init__(self, steps: int, *, within: "Work | None" = None) -> None:
        self._steps = self._left = steps
        self._within = within

    def spend(self, steps: int) -> None:
        """Take so many steps.

        Raises:
            ExpressionError: There are not so many left.
        """
        self._left -= steps
        if self._left < 0:
            raise ExpressionError(f"this takes more than {self._steps:,} steps")
        if self._within is not None:
            self._within.spend(steps)

    def text(self, *texts: str) -> None:
        """Take the steps that reading these costs."""
        self.spend(sum(1 + len(text) // _CHARS_A_STEP for text in texts))

    def measured(self, value: Any) -> Any:
        """The value, if it is no larger than a result may be."""
        if isinstance(value, str | list | Mapping):
            to_json(value, self)
        return value


def truth(value: Any) -> bool:
    """False for null, false, 0 and what is empty."""
    return bool(value) if isinstance(value, str | int | float | list | Mapping) else False


def is_number(value: Any) -> bool:
    """A number; neither true nor false is one."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def kind(value: Any) -> str:
    """What a value is, in a word for people."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, str):
        return "text"
    if is_number(value):
        return "a number"
    return "a list" if isinstance(value, list) else "an object"


def same(left: Any, right: Any, work: Work) -> bool:
    """Whether two JSON values are equal: 1 is 1.0, and is not true."""
    pairs = [(left, right)]
    while pairs:
        one, other = pairs.pop()
        work.spend(1)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            work.spend(len(one) // _MADE_A_STEP)
            if one.keys() != other.keys():
                return False
            pairs += [(item, other[key]) for key, item in one.items()]
        elif isinstance(one, list) and isinstance(other, list):
            if len(one) != len(other):
                return False
            work.spend(len(one) // _MADE_A_STEP)
            pairs += zip(one, other, strict=True)
        elif isinstance(one, str) and isinstance(other, str):
            work.text(one)
            if one != other:
                return False
        elif is_number(one) and is_number(other):
            if one != other:
                return False
        elif one is not other:  # null, true, false, or two of different kinds
            return False
    return True


def compare(operator: str, left: Any, right: Any, at: int, work: Work) -> bool:
    """`==` and `!=` of anything; an order only of two numbers or two texts."""
    if operator in {"==", "!="}:
        return same(left, right, work) is (operator == "==")
    if isinstance(left, str) and isinstance(right, str):
        work.text(left, right)
    elif not (is_number(left) and is_number(right)):
        text = f"{kind(left)} and {kind(right)} have no order: compare two numbers or two texts"
        raise ExpressionError(text, at)
    if operator == "<":
        return bool(left < right)
    if operator == "<=":
        return bool(left <= right)
    return bool(left > right) if operator == ">" else bool(left >= right)


def holds(whole: Any, part: Any, at: int, work: Work) -> bool:
    """Whether a list has an element, an object a key or a text a part."""
    if isinstance(whole, list):
        return any(same(item, part, work) for item in whole)
    if isinstance(whole, Mapping):
        if not isinstance(part, str):
            raise ExpressionError(f"{kind(part)} is no key of an object", at)
        work.text(part)
        return part in whole
    if isinstance(whole, str) and isinstance(part, str):
        work.text(whole, part)
        return part in whole
    raise ExpressionError(f"{kind(part)} cannot be in {kind(whole)}", at)


def compute(operator: str, left: Any, right: Any, at: int, work: Work) -> Any:
    """Arithmetic of numbers; `+` joins two texts."""
    if operator == "+" and isinstance(left, str) and isinstance(right, str):
        work.text(left, right)
        return bounded(left + right, at)
    for one in (left, right):
        if not is_number(one):
            text = f"`{operator}` takes two numbers"
            text += " or two texts" if operator == "+" else ""
            raise ExpressionError(f"{text}; here is {kind(one)}", at)
        _number(one, at)
    if operator in {"/", "%"} and right == 0:
        raise ExpressionError("nothing can be divided by 0", at)
    return _number(_ARITHMETIC[operator](left, right), at)


def _divided(left: float, right: float) -> float:
    exact = isinstance(left, int) and isinstance(right, int) and left % right == 0
    return left // right if exact else left / right


_ARITHMETIC: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
    "*": lambda left, right: left * right,
    "/": _divided,
    "%": lambda left, right: left % right,
}


def _number(value: float, at: int) -> float:
    if isinstance(value, int):
        if not INT_MIN <= value <= INT_MAX:
            raise ExpressionError("this number is beyond 64 bits", at)
    elif not math.isfinite(value):
        raise ExpressionError("this number is too large", at)
    return value


def bounded(text: str, at: int) -> str:
    """A text that is not too long."""
    if len(text) > OUTPUT_BYTES_MAX:
        raise ExpressionError(f"this makes a text of more than {OUTPUT_BYTES_MAX:,} characters", at)
    return text


def to_json(value: Any, work: Work, at: int = 0) -> str:
    """A value as JSON; its size and its depth are looked at before it is written."""
    size = 0
    levels: list[tuple[Any, int]] = [(value, 0)]
    while levels:
        one, depth = levels.pop()
        work.spend(1)
        size += 2
        if depth > _DEPTH_MAX:
            raise ExpressionError(f"this is nested deeper than {_DEPTH_MAX} levels", at)
        if isinstance(one, str):
            size += len(one)
        elif isinstance(one, Mapping):
            size += sum(len(key) + 3 for key in one)
            levels += [(item, depth + 1) for item in one.values()]
        elif isinstance(one, list):
            levels += [(item, depth + 1) for item in one]
        if size > 2 * OUTPUT_BYTES_MAX:
            break
    if size <= 2 * OUTPUT_BYTES_MAX:
        try:
            written = msgspec.json.encode(value)
        except (TypeError, ValueError, RecursionError, OverflowError) as error:
            raise ExpressionError(f"this cannot be written as JSON: {error}", at) from None
        work.spend(len(written) // _CHARS_A_STEP)
        if len(written) <= OUTPUT_BYTES_MAX:
            return written.decode()
    raise ExpressionError(f"this makes more than {OUTPUT_BYTES_MAX // 1024} KiB of JSON", at)


def call(name: str, arguments: list[Any], at: int, work: Work) -> Any:
    """A function of the language; how many arguments it takes was looked at."""
    first = arguments[0]
    if name == "tojson":
        return to_json(first, work, at)
    if name == "contains":
        return holds(first, arguments[1], at, work)
    if name == "length":
        if not isinstance(first, str | list | Mapping):
            raise ExpressionError(f"{kind(first)} has no length", at)
        return len(first)
    for one in arguments:
        if not isinstance(one, str):
            raise ExpressionError(f"{name}() takes text; here is {kind(one)}", at)
        work.text(one)
    if name == "fromjson":
        return _from_json(first, at)
    if name in {"startswith", "endswith"}:
        return bool(getattr(str, name)(first, arguments[1]))
    return bounded(first.lower() if name == "lower" else first.upper(), at)


def _from_json(text: str, at: int) -> Any:
    try:
        return msgspec.json.decode(bounded(text, at))
    except (ValueError, RecursionError, OverflowError) as error:
        raise ExpressionError(f"this text is no JSON: {error}", at) from None
