"""The rule of what has arrived before: per sender, each record once and in its order, or never."""

from typing import Literal

Verdict = Literal["new", "repeated", "ghost"]


class Arrivals:
    """Which records of each sending node have been seen.

    A sender numbers what it sends, to whomever, per session. What is at or below the last number
    is a copy, or late, and either is dropped: so order holds, and a hole is a loss, which every
    sender lives with, or went to others. Sessions grow, so what is left of an old one is a ghost.
    """

    def __init__(self) -> None:
        self._last: dict[int, tuple[int, int]] = {}

    def judge(self, sender: int, session: int, sequence: int) -> Verdict:
        """Whether to take it, and remember it if so."""
        last = self._last.get(sender)
        if last is not None and session <= last[0]:
            if session < last[0]:
                return "ghost"
            if sequence <= last[1]:
                return "repeated"
        self._last[sender] = (session, sequence)
        return "new"

    def forget(self, sender: int) -> None:
        """That node is gone for good."""
        self._last.pop(sender, None)
