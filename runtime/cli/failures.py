"""What can go wrong in a command, as one sentence and an exit code."""

from typing import Final

import click

from protocols.errors import InvalidError, TickwrightError
from runtime.files.places import InvalidFileError
from runtime.groups import leaves

FAILED: Final = 1
WRONG: Final = 2
UNREACHABLE: Final = 3

_BY_CODE: Final = {
    "invalid_settings": WRONG,
    "unavailable": UNREACHABLE,
    "database_refused": UNREACHABLE,
}


class Failed(click.ClickException):
    """What was asked for failed; the message says why and what to do."""

    exit_code = FAILED

    def show(self, file: object = None) -> None:
        """Say it on stderr, as it stands."""
        del file
        click.echo(f"runtime: {readable(self.message)}", err=True)


class Unreachable(Failed):
    """The node or the database cannot be reached."""

    exit_code = UNREACHABLE


def readable(text: str) -> str:
    """A sentence, or lines of them, without what would steer a terminal."""
    return "\n".join(
        "".join(c if c.isprintable() else " " for c in line) for line in text.split("\n")
    )


def told(error: BaseException) -> BaseException:
    """The error to tell: the first that is meant for a user, else the first."""
    found = list(leaves(error))
    for one in found:
        if isinstance(one, TickwrightError | click.ClickException):
            return one
    return found[0]


def sentence_of(error: BaseException) -> str:
    """One error in words; what was not foreseen is named, with how to see all of it."""
    if isinstance(error, InvalidFileError):
        return str(error)
    return f"runtime: {_words(error)}"


def _words(error: BaseException) -> str:
    if isinstance(error, InvalidError):
        return "\n".join(f"{p.pointer or '/'}: {p.message}" for p in error.problems)
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, TickwrightError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}"
    said = str(error).splitlines()
    what = f"{type(error).__name__}: {said[0]}" if said else type(error).__name__
    return f"an unexpected error: {what} (`runtime --debug ...` shows where; please report it)"


def exit_code_of(error: BaseException) -> int:
    """The exit code of one error."""
    if isinstance(error, click.ClickException):
        return error.exit_code
    return _BY_CODE.get(error.code, FAILED) if isinstance(error, TickwrightError) else FAILED
