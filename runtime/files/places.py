"""Where a value stands in a file, and how an error about it is told."""

from collections.abc import Iterable, Mapping
from typing import ClassVar, Final

import msgspec

from protocols.errors import Problem, TickwrightError

Path = tuple[str | int, ...]

_PART_CHARS_MAX: Final = 200


class Place(msgspec.Struct, frozen=True, order=True):
    """A position in a text, counted from 1."""

    line: int
    column: int


def printable(text: str) -> str:
    """What a user wrote, as part of a line: nothing in it steers a terminal, or fills a page."""
    cut = text if len(text) <= _PART_CHARS_MAX else f"{text[: _PART_CHARS_MAX - 3]}..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


def spell(path: Path) -> str:
    """A path as people read it: `jobs[3].timeout`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{printable(part)}" if text else printable(part)
    return text


class FileProblem(msgspec.Struct, frozen=True, order=True):
    """One thing wrong in a file: `jobs.yaml:12:15: jobs[3].timeout: "soon" is not a duration`."""

    file: str
    place: Place
    path: str
    message: str

    def __str__(self) -> str:
        """The line that a person reads."""
        where = f"{self.file}:{self.place.line}:{self.place.column}"
        return f"{where}: {self.path}: {self.message}" if self.path else f"{where}: {self.message}"


class InvalidFileError(TickwrightError):
    """A file is wrong; every error found in it is here, in the order of their places."""

    code: ClassVar[str] = "invalid_file"
    status: ClassVar[int] = 422

    def __init__(self, problems: Iterable[FileProblem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Document(msgspec.Struct, frozen=True):
    """A file's data, and the place of each value in it and of each key."""

    file: str
    data: object
    places: Mapping[Path, Place]
    keys: Mapping[Path, Place] = {}
    """Places of keys, by the path of their value."""

    def place(self, path: Path) -> Place:
        """The place of the value at `path`, or of the nearest thing above it."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, Place(1, 1))

    def locate(self, problem: Problem) -> FileProblem:
        """Say where in this file `problem` is."""
        place = self.keys.get(problem.path) if problem.of_key else None
        return FileProblem(
            self.file, place or self.place(problem.path), spell(problem.path), problem.message
        )
