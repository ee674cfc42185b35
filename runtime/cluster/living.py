"""Who of the others lives: whom the books name, and after an outage whom they named before it.

An outage of the database silences every node. Whoever beats first after it is told of nobody else,
and would tell its actors that all others have died.
"""

from collections.abc import Iterable

from runtime.peers import Peer

_GAP_OF_TTL = 0.5
"""Of a TTL: a longer silence of our own, and that of the others counts anew."""


class Living:
    """Judges what each beat was told.

    Args:
        ttl_s: how long a node may be silent.
    """

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._told_s: float | None = None
        self._anew_s = 0.0
        self._living: dict[int, Peer] = {}

    def judge(self, told: Iterable[Peer], now_s: float) -> tuple[Peer, ...]:
        """Who lives at `now_s` of a monotonic clock, where the books name those in `told`."""
        if self._told_s is None or now_s - self._told_s > self._ttl_s * _GAP_OF_TTL:
            self._anew_s = now_s
        self._told_s = now_s
        living = {peer.incarnation: peer for peer in told}
        if now_s - self._anew_s < self._ttl_s:
            names = {peer.name for peer in living.values()}
            for peer in self._living.values():
                if peer.name not in names:  # a successor means that the books know of its end
                    living[peer.incarnation] = peer
        self._living = living
        return tuple(living.values())
