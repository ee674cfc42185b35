"""Errors that task groups wrap, told as themselves: who waits for one error is given no group."""

from collections.abc import Iterator
from contextlib import contextmanager

from protocols.errors import TickwrightError


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors inside groups of errors, in order."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


@contextmanager
def ungrouped() -> Iterator[None]:
    """Raise a group's only error, or of several the first that is meant for a user, as itself."""
    try:
        yield
    except BaseExceptionGroup as group:
        found = list(leaves(group))
        if len(found) == 1:
            raise found[0] from found[0].__cause__
        for error in found:
            if isinstance(error, TickwrightError):
                raise error from group
        raise
    except BaseException as error:
        # A task group that an AsyncExitStack leaves raises what it was given again, and the stack
        # then makes that its own context: the next stack that walks the chain never ends.
        if error.__context__ is error:
            error.__context__ = None
        raise
