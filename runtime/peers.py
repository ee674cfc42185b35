"""The other living nodes, as PostgreSQL's answer to the last beat has them."""

from collections.abc import Callable, Iterable

from protocols.ports.store import Peer

__all__ = ["Changed", "Peer", "Peers"]

Changed = Callable[[tuple[Peer, ...], tuple[Peer, ...]], None]
"""Called with who joined and who is gone; must not raise."""


class Peers:
    """Who lives besides this node; changed by `update` alone."""

    def __init__(self) -> None:
        self._peers: dict[int, Peer] = {}
        self._listeners: list[Changed] = []
        self.newest = 0
        """The highest incarnation ever seen here; they only grow."""

    def update(self, peers: Iterable[Peer]) -> None:
        """Take over what the database says now, and tell who listens of the difference."""
        before, self._peers = self._peers, {peer.incarnation: peer for peer in peers}
        joined = tuple(peer for peer in self._peers.values() if peer.incarnation not in before)
        gone = tuple(peer for peer in before.values() if peer.incarnation not in self._peers)
        self.newest = max(self.newest, *self._peers, 0)
        for listener in list(self._listeners):
            listener(joined, gone)

    def all(self) -> tuple[Peer, ...]:
        """Every other living node."""
        return tuple(self._peers.values())

    def get(self, incarnation: int) -> Peer | None:
        """The living node of that incarnation."""
        return self._peers.get(incarnation)

    def by_name(self, name: str) -> Peer | None:
        """The living node of that name; the newest, where one takes over from another."""
        named = [peer for peer in self._peers.values() if peer.name == name]
        return max(named, key=lambda peer: peer.incarnation, default=None)

    def subscribe(self, listener: Changed) -> Callable[[], None]:
        """Call `listener` after every update, also one that changed nothing; returns what ends it.

        An update without a change is news too: who had been heard of only is still not there.
        """
        self._listeners.append(listener)
        return lambda: self._drop(listener)

    def _drop(self, listener: Changed) -> None:
        if listener in self._listeners:
            self._listeners.remove(listener)
