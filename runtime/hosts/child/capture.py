"""Gives every print and log line of a shared host to the attempt that wrote it."""

import io
import logging
import sys
from contextvars import ContextVar
from typing import Self, TextIO, cast

from runtime.hosts.child.attempt import Attempt

_task_log = logging.getLogger("task")
current: ContextVar[Attempt | None] = ContextVar("tickwright_attempt", default=None)


class _Bytes(io.RawIOBase):
    """`sys.stdout.buffer`, by attempt."""

    def __init__(self, fallback: TextIO) -> None:
        self._fallback = fallback

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, piece: bytes, /) -> int:  # type: ignore[override]
        """Keep the bytes with the attempt that writes them."""
        data = bytes(piece)
        attempt = current.get()
        if attempt is None:
            self._fallback.buffer.write(data)
        else:
            attempt.print(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is held back of an attempt's."""
        if current.get() is None:
            self._fallback.flush()


class Routed(io.TextIOBase):
    """A `sys.stdout` or `sys.stderr` that many attempts share and none can mix up."""

    encoding = "utf-8"
    errors = "replace"

    def __init__(self, fallback: TextIO) -> None:
        self._fallback = fallback
        self.buffer = _Bytes(fallback)

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, text: str, /) -> int:
        """Keep the text with the attempt that writes it."""
        attempt = current.get()
        if attempt is None:
            return self._fallback.write(text)
        attempt.print(text.encode(errors="replace"))
        return len(text)

    def flush(self) -> None:
        """Nothing is held back of an attempt's."""
        self.buffer.flush()

    def fileno(self) -> int:
        """The process's own stream: what is written there belongs to no attempt."""
        return self._fallback.fileno()

    def isatty(self) -> bool:
        """Never."""
        return False


def route() -> None:
    """Put the routed streams in place, and logging on them."""
    sys.stdout = cast("TextIO", Routed(sys.stdout))
    sys.stderr = cast("TextIO", Routed(sys.stderr))
    log_to(sys.stderr)


def log_to(stream: TextIO) -> None:
    """Log lines from INFO on go where prints go; a task may configure logging anew."""
    logging.basicConfig(
        stream=stream, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s"
    )


class LogLines(logging.Handler):
    """While entered: what inline attempts log by `ctx.log` is kept with their output as well."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(logging.Formatter("%(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line, if an attempt wrote it."""
        attempt = current.get()
        if attempt is not None:
            attempt.print((self.format(record) + "\n").encode(errors="replace"))

    def __enter__(self) -> Self:
        _task_log.addHandler(self)
        self._level_before = _task_log.level
        _task_log.setLevel(logging.INFO)
        return self

    def __exit__(self, *_: object) -> None:
        _task_log.removeHandler(self)
        _task_log.setLevel(self._level_before)
