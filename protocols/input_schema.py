"""What a DAG takes as its input: a small part of JSON Schema (draft 2020-12), checked in full.

    type        object, array, string, integer, number, boolean, null, or a list of these
    object      properties, required, additionalProperties (true, false or a schema)
    array       items, minItems, maxItems
    string      minLength, maxLength, format: date or date-time
    number      minimum, maximum, exclusiveMinimum, exclusiveMaximum
    any         enum, const, default, title, description, examples

They mean what they mean there; `default` is filled in where an object lacks the property. Any
other keyword is refused by name: `pattern` among them, since a regular expression has no bound on
what it costs.
"""

import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any, Final

from protocols.durations import shown
from protocols.errors import InvalidError, Problem
from protocols.expression_values import STEPS_MAX, ExpressionError, Work, is_number, same
from protocols.nearest import HINTS_MAX, Nearest

DEPTH_MAX: Final = 16
PROBLEMS_MAX: Final = 50
"""Told of one input."""

Path = tuple[str | int, ...]
_TYPES: Final[Mapping[str, Callable[[Any], bool]]] = {
    "object": lambda value: isinstance(value, Mapping),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: is_number(value) and value == value // 1,
    "number": is_number,
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
}
_WORDS: Final = {"object": "an object", "array": "a list", "string": "text"} | {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}
_SCHEMAS: Final = ("properties", "items", "additionalProperties")
_COUNTS: Final = ("minItems", "maxItems", "minLength", "maxLength")
_BOUNDS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_TEXTS: Final = ("title", "description")
# RFC 3339, section 5.6: less than what Python reads, and an instant has its offset.
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_DATE_TIME: Final = re.compile(
    rf"{_DATE.pattern}[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)
_FORMATS: Final[Mapping[str, Callable[[str], object]]] = {
    "date": lambda text: _matched(_DATE, text) and date.fromisoformat(text),
    "date-time": lambda text: _matched(_DATE_TIME, text) and datetime.fromisoformat(text.upper()),
}
KEYWORDS: Final = (
    *("type", "required", "enum", "const", "default", "examples", "format"),
    *(*_SCHEMAS, *_COUNTS, *_BOUNDS, *_TEXTS),
)


def schema_problems(schema: Any) -> list[Problem]:
    """What is wrong with a schema; it is one of an object."""
    found = _wrong(schema, (), 0)
    if isinstance(schema, Mapping) and "default" in schema:
        text = "a run without input has the defaults of its properties: give it to these"
        found.append(Problem(("default",), text, of_key=True))
    if isinstance(schema, Mapping) and schema.get("type", "object") != "object":
        found.append(Problem(("type",), "the input of a DAG is an object"))
    return found


def check_input(schema: Mapping[str, Any] | None, value: Any) -> Any:
    """The input of a run, with defaults filled in; no input is an empty object.

    Args:
        schema: of the DAG's version; None takes anything as it is.
        value: what was given, as JSON has it.

    Raises:
        InvalidError: With everything that is wrong; paths begin below the input.
    """
    if schema is None:
        return value
    check = _Check()
    filled = None
    try:
        filled = check.value({"type": "object", **schema}, {} if value is None else value, ())
    except _Enough:
        pass  # what is told fills a screen: looking on would cost, and tell nothing
    except ExpressionError:
        raise InvalidError((Problem((), "this input is too large to be checked"),)) from None
    if check.problems:
        raise InvalidError(tuple(check.problems))
    return filled


class _Enough(Exception):  # noqa: N818 - never leaves this module
    """As many problems have been found as are told."""


class _Check:
    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._work = Work(STEPS_MAX)

    def value(self, schema: Any, value: Any, path: Path) -> Any:
        """The value with what its schema fills in; problems are kept."""
        self._work.spend(1)
        if isinstance(schema, bool):
            if not schema:
                self._say(path, "nothing can stand here")
            return value
        types = _types(schema)
        if types and not any(_TYPES[one](value) for one in types):
            self._say(path, f"{shown(value)} is not {' or '.join(_WORDS[one] for one in types)}")
            return value
        self._fixed(schema, value, path)
        if isinstance(value, Mapping):
            return self._object(schema, value, path)
        if isinstance(value, list):
            return self._array(schema, value, path)
        if isinstance(value, str):
            self._text(schema, value, path)
        elif is_number(value):
            self._bounds(schema, value, path)
        return value

    def _say(self, path: Path, message: str) -> None:
        self.problems.append(Problem(path, message))
        if len(self.problems) >= PROBLEMS_MAX:
            raise _Enough

    def _fixed(self, schema: Mapping[str, Any], value: Any, path: Path) -> None:
        if "const" in schema and not same(schema["const"], value, self._work):
            self._say(path, f"{shown(value)} is not {shown(schema['const'])}")
        if "enum" in schema and not any(same(one, value, self._work) for one in schema["enum"]):
            known = ", ".join(shown(one) for one in schema["enum"][:20])
            self._say(path, f"{shown(value)} is not one of {known}")

    def _object(self, schema: Mapping[str, Any], value: Mapping[str, Any], path: Path) -> Any:
        known = schema.get("properties", {})
        more = schema.get("additionalProperties", True)
        filled = {}
        for key, item in value.items():
            if key not in known and more is False:
                near = Nearest(known).to(key) if len(self.problems) < HINTS_MAX else None
                hint = f'; did you mean "{near}"?' if near else ""
                self._say((*path, key), f"there is no {shown(key)} in this input{hint}")
                continue
            filled[key] = self.value(known.get(key, more), item, (*path, key))
        for key, inner in known.items():
            if key not in filled and isinstance(inner, Mapping) and "default" in inner:
                filled[key] = inner["default"]
        for key in schema.get("required", ()):
            if key not in filled:
                self._say(path, f"the input needs {shown(key)}")
        return filled

    def _array(self, schema: Mapping[str, Any], value: list[Any], path: Path) -> Any:
        self._size(schema, len(value), path, ("minItems", "maxItems"), "entries")
        items = schema.get("items", True)
        return [self.value(items, item, (*path, i)) for i, item in enumerate(value)]

    def _text(self, schema: Mapping[str, Any], value: str, path: Path) -> None:
        self._size(schema, len(value), path, ("minLength", "maxLength"), "characters")
        form = schema.get("format")
        if form is None:
            return
        try:
            _FORMATS[form](value)
        except ValueError:
            self._say(path, f"{shown(value)} is not a {form}")

    def _size(
        self, schema: Mapping[str, Any], size: int, path: Path, names: tuple[str, str], what: str
    ) -> None:
        least, most = schema.get(names[0], 0), schema.get(names[1], size)
        if size < least:
            self._say(path, f"this has {size:,} {what}; it needs {least:,}")
        if size > most:
            self._say(path, f"this has {size:,} {what}; at most {most:,} are allowed")

    def _bounds(self, schema: Mapping[str, Any], value: float, path: Path) -> None:
        if "minimum" in schema and value < schema["minimum"]:
            self._say(path, f"{value} is less than {schema['minimum']}")
        if "maximum" in schema and value > schema["maximum"]:
            self._say(path, f"{value} is more than {schema['maximum']}")
        if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
            self._say(path, f"{value} is not more than {schema['exclusiveMinimum']}")
        if "exclusiveMaximum" in schema and value >= schema["exclusiveMaximum"]:
            self._say(path, f"{value} is not less than {schema['exclusiveMaximum']}")


def _types(schema: Mapping[str, Any]) -> tuple[str, ...]:
    given = schema.get("type", ())
    return (given,) if isinstance(given, str) else tuple(given)


def _wrong(schema: Any, path: Path, depth: int) -> list[Problem]:
    """What is wrong with a schema, in the order of its keywords."""
    if isinstance(schema, bool) and depth:
        return []
    if not isinstance(schema, Mapping):
        return [Problem(path, f"{shown(schema)} is not a schema: a mapping with a `type`")]
    if depth > DEPTH_MAX:
        return [Problem(path, f"a schema has at most {DEPTH_MAX} levels")]
    found: list[Problem] = []
    nearest = Nearest(KEYWORDS)
    for word, value in schema.items():
        if word not in KEYWORDS:
            near = nearest.to(str(word))
            hint = f'; did you mean "{near}"?' if near else ""
            text = f"there is no keyword {shown(str(word))} in this part of JSON Schema{hint}"
            found.append(Problem((*path, str(word)), text, of_key=True))
        elif (rule := _RULES.get(word)) is not None and not rule[0](value):
            found.append(Problem((*path, word), f"{shown(value)} is not {rule[1]}"))
        elif word == "properties":
            for key, inner in value.items():
                found += _wrong(inner, (*path, word, key), depth + 1)
        elif word in {"items", "additionalProperties"}:
            found += _wrong(value, (*path, word), depth + 1)
    if depth and "default" in schema and not found:
        try:
            check_input({"properties": {"default": schema}}, {"default": schema["default"]})
        except InvalidError as error:
            found = [Problem((*path, *p.path), p.message) for p in error.problems]
    return found


def _matched(form: re.Pattern[str], text: str) -> bool:
    if not form.fullmatch(text):
        raise ValueError(text)
    return True


def _names(value: Any) -> bool:
    return isinstance(value, list | Mapping) and all(isinstance(key, str) for key in value)


def _type_names(value: Any) -> bool:
    names = [value] if isinstance(value, str) else value
    return isinstance(names, list) and bool(names) and all(n in list(_TYPES) for n in names)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


_RULES: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "type": (_type_names, f"one of {', '.join(_TYPES)}"),
    **dict.fromkeys(_COUNTS, (_count, "a whole number from 0")),
    **dict.fromkeys(_BOUNDS, (is_number, "a number")),
    **dict.fromkeys(_TEXTS, (lambda value: isinstance(value, str), "text")),
    **dict.fromkeys(
        ("enum", "examples"),
        (lambda value: isinstance(value, list) and bool(value), "a list of values"),
    ),
    "required": (lambda value: isinstance(value, list) and _names(value), "a list of names"),
    "properties": (
        lambda value: isinstance(value, Mapping) and _names(value),
        "a mapping of names to schemas",
    ),
    "format": (lambda value: value in list(_FORMATS), f"one of {', '.join(_FORMATS)}"),
}
