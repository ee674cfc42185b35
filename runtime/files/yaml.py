"""Reads YAML as YAML 1.2's core schema has it, with the place of every value, within bounds.

PyYAML's parser gives events with marks; what is built of them is ours: `on:` is a string and not
true, `1:30` is no base-60 number, a date is text, a key stands once, a tag is refused, an alias
may repeat but not explode, and no depth of nesting can exhaust a stack.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import yaml

from protocols.durations import shown
from runtime.files.places import (
    Document,
    FileProblem,
    InvalidFileError,
    Path,
    Place,
    printable,
    spell,
)

FILE_BYTES_MAX: Final = 16 * 1024 * 1024
DEPTH_MAX: Final = 64
VALUES_MAX: Final = 2_000_000
"""Values in a file, each use of an alias counted with all it stands for."""

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INT: Final = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NO_NUMBER: Final = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: Final[dict[str, object]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
# What YAML 1.2 has no place for (section 5.1); the parser would say so without a line.
_CONTROL: Final = re.compile(
    "[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]"
)
_DIGITS_MAX: Final = 400


class _Wrong(Exception):  # noqa: N818 - never leaves this module
    def __init__(self, place: Place, message: str, path: Path = ()) -> None:
        super().__init__(message)
        self.problem = (place, message, path)


class _Frame:
    """A mapping or a sequence under construction."""

    __slots__ = ("anchor", "key", "path", "start", "values")

    def __init__(self, values: Any, path: Path, anchor: str | None, start: int) -> None:
        self.values = values
        self.path = path
        self.anchor = anchor
        self.key: str | None = None
        self.start = start


def read_yaml(
    file: str, text: bytes | str, *, as_written: Callable[[Path], bool] = lambda _: False
) -> Document:
    """Read one YAML document.

    Args:
        file: its name, for errors.
        text: what it holds.
        as_written: of which paths a plain value is the text that stands there, were it a number.

    Raises:
        InvalidFileError: It is too large, not UTF-8, not YAML, or uses what is refused here.
    """
    try:
        return _Builder(file, as_written).build(_decode(text))
    except _Wrong as error:
        place, message, path = error.problem
        raise InvalidFileError([FileProblem(file, place, spell(path), message)]) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(mark.line + 1, mark.column + 1) if mark is not None else Place(1, 1)
        reason = " ".join(str(error.problem or error.context or "this is not YAML").split())
        raise InvalidFileError([FileProblem(file, place, "", reason)]) from None
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InvalidFileError([FileProblem(file, Place(1, 1), "", reason)]) from None


def _decode(text: bytes | str) -> str:
    if len(text) > FILE_BYTES_MAX:
        raise _Wrong(Place(1, 1), f"the file is larger than {FILE_BYTES_MAX // 1024**2} MiB")
    if isinstance(text, bytes):
        raw = text
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            raise _Wrong(Place(line, 1), "this is not UTF-8 text") from None
    if (found := _CONTROL.search(text)) is not None:
        at = found.start()
        place = Place(text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at))
        what = f"the control character #x{ord(found[0]):02x}" if found[0] != "\0" else "a NUL byte"
        raise _Wrong(place, f"{what} cannot stand here")
    return text


class _Builder:
    def __init__(self, file: str, as_written: Callable[[Path], bool]) -> None:
        self._file = file
        self._as_written = as_written
        self._places: dict[Path, Place] = {}
        self._keys: dict[Path, Place] = {}
        self._stack: list[_Frame] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._count = 0
        self._data: Any = None

    def build(self, text: str) -> Document:
        documents = 0
        for event in self._events(text):
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _Wrong(_place(event), "a file holds one document; this is a second")
            elif isinstance(event, yaml.ScalarEvent):
                self._scalar(event)
            elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                self._open(event)
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                self._close()
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event)
        return Document(self._file, self._data, self._places, self._keys)

    def _events(self, text: str) -> Iterator[yaml.Event]:
        yield from yaml.parse(text, Loader=_LOADER)

    def _path(self, event: yaml.Event) -> Path:
        """Where the value that starts here belongs; a mapping without a key in hand wants one."""
        if not self._stack:
            return ()
        frame = self._stack[-1]
        if isinstance(frame.values, list):
            return (*frame.path, len(frame.values))
        if frame.key is None:
            raise _Wrong(_place(event), "a key must be a plain string", frame.path)
        return (*frame.path, frame.key)

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        if event.tag is not None:
            raise _Wrong(
                _place(event), f"the tag {printable(event.tag)} is not supported; take it out"
            )
        frame = self._stack[-1] if self._stack else None
        if frame is not None and isinstance(frame.values, dict) and frame.key is None:
            self._key(frame, event)
            return
        path = self._path(event)
        if "\0" in event.value:
            raise _Wrong(_place(event), "a NUL character cannot stand in a string", path)
        plain = event.implicit[0] and event.style in (None, "")
        value = self._plain(event, path) if plain else event.value
        self._places[path] = _place(event)
        self._put(value, event.anchor, 1)

    def _key(self, frame: _Frame, event: yaml.ScalarEvent) -> None:
        key = event.value
        if "\0" in key:
            raise _Wrong(_place(event), "a NUL character cannot stand in a key", frame.path)
        if key in frame.values:
            raise _Wrong(_place(event), f"the key {shown(key)} stands here twice", frame.path)
        if key == "<<" and event.style in (None, ""):
            raise _Wrong(_place(event), "merge keys are not supported; use `defaults:`", frame.path)
        frame.key = key
        self._keys[(*frame.path, key)] = _place(event)

    def _plain(self, event: yaml.ScalarEvent, path: Path) -> Any:
        text = event.value
        if self._as_written(path) and _WORDS.get(text, True) is not None:
            return text
        if text in _WORDS:
            return _WORDS[text]
        if len(text) <= _DIGITS_MAX:
            if _INT.fullmatch(text):
                return int(text, 0) if text[:2] in {"0o", "0x"} else int(text)
            if _FLOAT.fullmatch(text):
                value = float(text)
                if value in (float("inf"), float("-inf")):
                    raise _Wrong(_place(event), f"{text} is too large a number", path)
                return value
            if _NO_NUMBER.fullmatch(text):
                raise _Wrong(
                    _place(event), f"{text} is no number here; quote it if it is text", path
                )
        return text

    def _open(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent) -> None:
        if event.tag is not None:
            raise _Wrong(
                _place(event), f"the tag {printable(event.tag)} is not supported; take it out"
            )
        path = self._path(event)
        if len(self._stack) >= DEPTH_MAX:
            raise _Wrong(_place(event), f"nested deeper than {DEPTH_MAX} levels", ())
        self._places[path] = _place(event)
        values: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
        self._stack.append(_Frame(values, path, event.anchor, self._count))

    def _close(self) -> None:
        frame = self._stack.pop()
        self._put(frame.values, frame.anchor, 1, size=self._count - frame.start + 1)

    def _alias(self, event: yaml.AliasEvent) -> None:
        path = self._path(event)
        if event.anchor not in self._anchors:
            raise _Wrong(_place(event), f"no finished anchor &{event.anchor} stands above", path)
        value, size = self._anchors[event.anchor]
        self._places[path] = _place(event)
        if self._count + size > VALUES_MAX:
            raise _Wrong(_place(event), f"aliases make more than {VALUES_MAX:,} values", path)
        self._put(value, None, size)

    def _put(self, value: Any, anchor: str | None, count: int, *, size: int = 1) -> None:
        """Hand a finished value to what it stands in."""
        self._count += count
        if self._count > VALUES_MAX:
            raise _Wrong(Place(1, 1), f"the file holds more than {VALUES_MAX:,} values")
        if anchor is not None:
            self._anchors[anchor] = (value, size)
        if not self._stack:
            self._data = value
            return
        frame = self._stack[-1]
        if isinstance(frame.values, list):
            frame.values.append(value)
        else:
            assert frame.key is not None
            frame.values[frame.key] = value
            frame.key = None


def _place(event: yaml.Event) -> Place:
    mark = event.start_mark
    if mark is None:
        return Place(1, 1)
    return Place(mark.line + 1, mark.column + 1)
