"""Logs: for a person on a terminal, JSON lines otherwise; always on stderr, never a secret."""

import logging
import re
import sys
from typing import Final

import structlog
import structlog.tracebacks
from structlog.typing import EventDict, Processor, WrappedLogger

_SECRET_KEYS: Final = re.compile(r"password|secret|token$|authorization|dsn|url$", re.IGNORECASE)
_without_locals: Final = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
"""Local variables are never logged: one of them may be a secret."""
_URL_PASSWORD: Final = re.compile(r"(://[^:/@\s]+:)[^@\s]+@")


def hide_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Blot out what a line should never show, whoever wrote it."""
    for key, value in event.items():
        if not isinstance(value, str):
            continue
        if _SECRET_KEYS.search(key) and "://" not in value and key not in {"url", "api_url"}:
            event[key] = "***"
        elif "://" in value:
            event[key] = _URL_PASSWORD.sub(r"\1***@", value)
    return event


def configure_logs(*, person: bool | None = None, level: int = logging.INFO) -> None:
    """Set structlog up, once at the start of a program.

    Args:
        person: colours and columns for a person; by default, where stderr is a terminal.
        level: what is below is dropped before anything is formatted.
    """
    for_person = sys.stderr.isatty() if person is None else person
    ending: list[Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if for_person
        else [
            structlog.processors.ExceptionRenderer(_without_locals),
            structlog.processors.JSONRenderer(),
        ]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            hide_secrets,
            *ending,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
