"""Logs: for a person on a terminal, JSON lines otherwise; always on stderr, never a secret."""

import logging
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, TextIO, cast

import structlog
import structlog.tracebacks
from structlog.typing import EventDict, Processor, WrappedLogger

HIDDEN: Final = "***"
_SECRET_KEYS: Final = re.compile(r"password|secret|authorization|dsn$|(^|_)token$", re.IGNORECASE)
_without_locals: Final = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
"""Local variables are never logged: one of them may be a secret."""
_IN_TEXT: Final = (
    (re.compile(r"(://[^:/?#@\s]*:)\S+@"), rf"\1{HIDDEN}@"),
    (re.compile(r"([?&](?:password|token)=)[^&\s]+", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(r"(\bBearer\s+)\S+", re.IGNORECASE), rf"\1{HIDDEN}"),
)
"""Passwords of URLs, in whatever text they stand, and tokens of requests."""


def hide_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Blot out what a line should never show, whoever wrote it."""
    for key, value in event.items():
        event[key] = _hidden(key, value)
    return event


def _hidden(key: object, value: Any) -> Any:
    if isinstance(value, str):
        if isinstance(key, str) and _SECRET_KEYS.search(key):
            return HIDDEN
        for pattern, instead in _IN_TEXT:
            value = pattern.sub(instead, value)
        return value
    if isinstance(value, Mapping):
        return {name: _hidden(name, item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_hidden(key, item) for item in value]
    return value


class Lines:
    """A stream for log lines that never fails: a full disk or a reader gone ends no actor."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, if that can be done."""
        with suppress(OSError, ValueError):
            return self._stream.write(text)
        return 0

    def flush(self) -> None:
        """Flush, if that can be done."""
        with suppress(OSError, ValueError):
            self._stream.flush()


def configure_logs(*, person: bool | None = None, level: int = logging.INFO) -> None:
    """Set structlog up, once at the start of a program.

    Args:
        person: colours and columns for a person; by default, where stderr is a terminal.
        level: what is below is dropped before anything is formatted.
    """
    for_person = sys.stderr.isatty() if person is None else person
    ending: list[Processor] = (
        [
            structlog.processors.format_exc_info,
            hide_secrets,
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
        ]
        if for_person
        else [
            structlog.processors.ExceptionRenderer(_without_locals),
            hide_secrets,
            structlog.processors.JSONRenderer(),
        ]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *ending,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", Lines(sys.stderr))),
        cache_logger_on_first_use=False,
    )
