"""Finding a user's callable, calling it, and telling what came of it in a bounded form."""

import importlib
import inspect
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from runtime.hosts.output import plain
from runtime.hosts.wire import FAILED, SUCCEEDED

TRACEBACK_CHARS_MAX = 16 * 1024
EXIT_CODE_UNKNOWN = 255
"""What a system shows for a code that is not 0, but has nothing in its last eight bits."""


class Target(NamedTuple):
    """A callable, and how it wants to be called."""

    function: Callable[..., Any]
    takes_context: bool
    is_async: bool


class UnimportableError(Exception):
    """This process cannot get at the callable."""


def load(target: str) -> Target:
    """The callable named `package.module:function`.

    Raises:
        UnimportableError: in words for a person, whatever the import ran into.
    """
    module_name, _, path = target.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for name in path.split("."):
            found = getattr(found, name)
    except BaseException as error:  # a module may raise anything, SystemExit too
        raise UnimportableError(f"{target!r} cannot be imported: {short(error)}") from error
    return describe(found, target)


def describe(found: Any, target: str) -> Target:
    """How an object named by a job is called.

    Raises:
        UnimportableError: it cannot be called at all.
    """
    if not callable(found):
        raise UnimportableError(f"{target!r} is not a function")
    plain = inspect.unwrap(found)
    is_async = inspect.iscoroutinefunction(plain) or inspect.iscoroutinefunction(
        getattr(plain, "__call__", None)  # noqa: B004 - asks whether it is async, not callable
    )
    try:
        takes = bool(inspect.signature(found).parameters)
    except (TypeError, ValueError):
        takes = True
    return Target(found, takes, is_async)


def encode_result(value: Any, bytes_max: int) -> tuple[bytes | None, str | None]:
    """A returned value as JSON, or why it cannot be kept."""
    if value is None:
        return None, None
    try:
        encoded = msgspec.json.encode(value)
    except Exception as error:  # noqa: BLE001 - a hook of the value's own class may raise anything
        return None, f"the returned {type(value).__name__} is not JSON: {short(error)}"
    if len(encoded) > bytes_max:
        return None, f"the returned value has {len(encoded)} bytes as JSON, over {bytes_max}"
    return encoded, None


def exited(problem: SystemExit) -> tuple[int, str | None, int | None]:
    """`sys.exit()` in a task means what it means in a program."""
    code = problem.code
    if code is None or code == 0:
        return SUCCEEDED, None, 0
    if isinstance(code, int):
        return FAILED, f"exit code {said(code)}", code & 0xFF or EXIT_CODE_UNKNOWN
    return FAILED, said(code), 1


def short(error: BaseException) -> str:
    """One line of bounded length."""
    text, kind = said(error), type(error).__name__
    return f"{kind}: {text}" if text else kind


def said(value: object) -> str:
    """A value in its own words, as they can be kept."""
    try:
        return plain(str(value))
    except Exception:  # noqa: BLE001 - a broken __str__ must not break the report
        return "(its message cannot be shown)"


def trace(error: BaseException, skip: int = 1) -> bytes:
    """The traceback from the user's first frame on, its middle cut out where it is long."""
    tb = error.__traceback__
    for _ in range(skip):
        tb = tb.tb_next if tb is not None else None
    try:
        text = "".join(traceback.format_exception(type(error), error, tb))
    except Exception:  # noqa: BLE001 - as in `short`
        text = short(error) + "\n"
    if len(text) > TRACEBACK_CHARS_MAX:
        half = TRACEBACK_CHARS_MAX // 2
        text = f"{text[:half]}\n  ... {len(text) - 2 * half} characters ...\n{text[-half:]}"
    return text.encode(errors="replace")
