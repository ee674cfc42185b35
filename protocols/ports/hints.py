"""The Hints port: passes a hint on to whichever actors of the cluster it concerns."""

from typing import Protocol

from protocols.messages import Hint


class Hints(Protocol):
    """Fire and forget; a hint that is lost costs a poll's delay, never the work."""

    def send(self, hint: Hint, /) -> None:
        """Pass it on; never blocks, never fails."""
        ...
