"""Where messages end that nobody will handle: counted all, the latest of each reason kept."""

from collections import deque
from collections.abc import Callable
from typing import Any

from protocols.actor import DeadLetter, DeadReason
from protocols.ports.clock import Clock

KEPT = 256
"""Letters kept for each reason; per reason, so that merged ticks do not push out crashes."""


def describe_error(error: BaseException) -> str:
    """Type and text of an exception, also of one whose own text cannot be had."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - a user's __str__ must not end the system that reports it
        return type(error).__name__


class DeadLetters:
    """The dead letters of one system, with counters that never forget."""

    def __init__(self, clock: Clock, *, kept: int = KEPT) -> None:
        self._clock = clock
        self._kept = kept
        self._letters: dict[DeadReason, deque[DeadLetter]] = {}
        self._listeners: list[Callable[[DeadLetter], None]] = []
        self.counts: dict[DeadReason, int] = {}

    def bury(
        self,
        message: Any,
        target: str,
        reason: DeadReason,
        error: BaseException | None = None,
    ) -> None:
        """Keep and count one message, and tell who listens."""
        letter = DeadLetter(
            message=message,
            target=target,
            reason=reason,
            error=None if error is None else describe_error(error),
            at_ns=self._clock.now_ns(),
        )
        self.counts[reason] = self.counts.get(reason, 0) + 1
        kept = self._letters.get(reason)
        if kept is None:
            kept = self._letters[reason] = deque(maxlen=self._kept)
        kept.append(letter)
        for listener in self._listeners:
            listener(letter)

    def listen(self, listener: Callable[[DeadLetter], None]) -> Callable[[], None]:
        """Call `listener` with every letter from here on; returns what ends that.

        It runs inside the sender, so it must be quick and must not raise.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def latest(self, reason: DeadReason | None = None) -> list[DeadLetter]:
        """The letters kept, of one reason or of all, oldest first."""
        if reason is not None:
            return list(self._letters.get(reason, ()))
        return sorted(
            (letter for kept in self._letters.values() for letter in kept),
            key=lambda letter: letter.at_ns,
        )

    @property
    def total(self) -> int:
        """How many there were, ever."""
        return sum(self.counts.values())
