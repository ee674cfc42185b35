"""JSON that was sent, read by its shape; what is wrong with it is told with a JSON pointer.

Every look at it costs time in proportion to its length, whatever it holds.
"""

import json
import re
from typing import Any, Final, TypeVar

import msgspec

from protocols.durations import shown
from protocols.errors import InvalidError, Problem
from runtime.api.problems import RefusedError

Shape = TypeVar("Shape")

DEPTH_MAX: Final = 64
"""How deeply JSON may be nested."""
# A string without its end goes to the end of the text: were it no match, the search would begin
# again at each quote inside it.
_STRINGS: Final = re.compile(rb'"(?:[^"\\]|\\.?)*+(?:"|\Z)', re.DOTALL)
_PLACE: Final = re.compile(r"(.*?)(?: - at `(?:key in )?\$(.*)`)?", re.DOTALL)
_STEP: Final = re.compile(r"\.([^.\[]+)|\[(\d+)\]")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)


def read_json(raw: bytes, of: type[Shape]) -> Shape:
    """What `raw` holds, by its shape.

    Raises:
        RefusedError: it is no JSON.
        InvalidError: it is nested too deeply, has a key twice, or is of another shape.
    """
    if _depth(raw) > DEPTH_MAX:
        raise InvalidError((Problem((), f"this is nested deeper than {DEPTH_MAX} levels"),))
    try:
        found = msgspec.json.decode(raw, type=of)
        # What cannot be written again (an integer beyond 64 bits) could never be shown.
        msgspec.json.encode(found)
    except msgspec.ValidationError as error:
        raise InvalidError((problem_in(error),)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RefusedError(400, "unreadable", f"the body is not JSON: {error}") from None
    except OverflowError:
        text = "an integer here needs more than 64 bits: send it as a string"
        raise InvalidError((Problem((), text),)) from None
    problem = _key_twice(raw)
    if problem is not None:
        raise InvalidError((problem,))
    return found


def problem_in(error: msgspec.ValidationError) -> Problem:
    """The sentence of msgspec, and the place that it names."""
    match = _PLACE.fullmatch(str(error))
    assert match is not None, "the pattern takes any text"
    message, place = match[1], match[2] or ""
    path = tuple(int(n) if n else name for name, n in _STEP.findall(place))
    unknown = _UNKNOWN.fullmatch(message)
    if unknown is not None:
        return Problem((*path, unknown[1]), f"there is no field {shown(unknown[1])}")
    return Problem(path, message)


def _depth(raw: bytes) -> int:
    """How deeply the brackets outside of strings are nested, or a little past the bound."""
    if raw.count(b"[") + raw.count(b"{") <= DEPTH_MAX:
        return 0
    depth = deepest = 0
    for char in _STRINGS.sub(b"", raw):
        if char in b"[{":
            depth += 1
            deepest = max(deepest, depth)
            if depth > DEPTH_MAX:
                break
        elif char in b"]}":
            depth -= 1
    return deepest


class _Twice:
    """Stands where an object does that has a key twice."""

    def __init__(self, key: str) -> None:
        self.key = key


def _key_twice(raw: bytes) -> Problem | None:
    """The first key that an object has twice: which of the two was meant cannot be told."""
    seen = False

    def built(pairs: list[tuple[str, Any]]) -> Any:
        nonlocal seen
        found = dict(pairs)
        if len(found) == len(pairs):
            return found
        seen = True
        keys = [key for key, _ in pairs]
        return _Twice(next(key for i, key in enumerate(keys) if key in keys[:i]))

    whole = json.loads(raw, object_pairs_hook=built)
    if not seen:
        return None
    pending: list[tuple[tuple[str | int, ...], Any]] = [((), whole)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, _Twice):
            return Problem((*path, value.key), f"the key {shown(value.key)} stands here twice")
        if isinstance(value, dict):
            pending += [((*path, key), item) for key, item in value.items()]
        elif isinstance(value, list):
            pending += [((*path, i), item) for i, item in enumerate(value)]
    raise AssertionError
