"""One attempt inside a host: what it was given, what it printed, what it asked of the node."""

from concurrent.futures import Future
from typing import Any, Protocol

from runtime.hosts.output import BoundedOutput
from runtime.hosts.wire import ASK_BYTES_MAX, Run, Spec


class Asks(Protocol):
    """Carries an attempt's questions to the node; may be called from any thread."""

    def ask(self, token: int, kind: str, value: bytes | None) -> "Future[Any]":
        """Put a question; the future holds the answer."""

    def begin_pulse(self, token: int) -> None:
        """Show the node that this process lives: the attempt asks for a lock."""

    def end_pulse(self, token: int) -> None:
        """The attempt has one lock less."""


class Attempt:
    """The state of one attempt; everything that few attempts need is made when asked for."""

    __slots__ = ("asks", "begun", "cancelled", "output", "output_bytes_max", "run", "spec", "task")

    def __init__(self, spec: Spec, run: Run, asks: Asks, output_bytes_max: int) -> None:
        self.spec = spec
        self.run = run
        self.asks = asks
        self.output_bytes_max = output_bytes_max
        self.output: BoundedOutput | None = None
        self.cancelled = False
        self.begun = False
        self.task: Any = None

    def told_to_end(self) -> bool:
        """Asked anew: it may have become so while the attempt ran."""
        return self.cancelled

    def print(self, piece: bytes) -> None:
        """Keep what the attempt printed."""
        if self.output is None:
            self.output = BoundedOutput(self.output_bytes_max)
        self.output.write(piece)

    def ask(self, kind: str, value: bytes | None = None) -> "Future[Any]":
        """Ask the node; the future holds its answer.

        Raises:
            ValueError: the value is too large to be sent.
        """
        if value is not None and len(value) > ASK_BYTES_MAX:
            raise ValueError(f"{kind}: a value has at most {ASK_BYTES_MAX} bytes as JSON")
        return self.asks.ask(self.run.token, kind, value)
