"""Who waits for a node's name: the holder is dead after a TTL of silence that was watched whole.

A name is held in the books. Whoever wants one that is held watches its holder: one that beats
keeps the name; one that does not, in a TTL throughout which the books could be read, is dead, and
a beat that an outage swallowed is not counted as silence.
"""

from typing import Final, Literal

from protocols.errors import NameHeldError

PATIENCE_S: Final = 2.0
"""Beyond a TTL; then the name is given up."""

Verdict = Literal["wait", "bury", "refused"]


class NameWatch:
    """Judges the holder of a name, each time the books name one.

    Args:
        ttl_s: how long a node may be silent.
    """

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._asked_at: float | None = None
        self._beat: tuple[int, object] | None = None
        self._silent_from = 0.0

    def judge(self, held: NameHeldError, now: float) -> Verdict:
        """What to do about the holder, at `now` of a monotonic clock in seconds."""
        if self._asked_at is None:
            self._asked_at = now
        beat = (held.incarnation, held.last_beat_at)
        if beat != self._beat:
            self._beat, self._silent_from = beat, now
        if now - self._silent_from >= self._ttl_s:
            return "bury"
        if now - self._asked_at >= self._ttl_s + PATIENCE_S:
            return "refused"
        return "wait"

    def interrupted(self) -> None:
        """The books could not be read: neither silence nor waiting before this counts."""
        self._beat = self._asked_at = None
