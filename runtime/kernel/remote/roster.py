"""Which nodes live, for refs: what the peers list says, and for a while what was heard first."""

from collections.abc import Callable

from runtime.peers import Peer, Peers

HEARD_S = 10.0
"""A node that wrote to us, or that a ref named, but is on no list is believed in for so long."""

GONE_KEPT = 4096
"""How many dead incarnations are remembered; they never come back, so the oldest matter least."""


class Roster:
    """The nodes that messages may go to, and the ones that nothing is believed of any more.

    Args:
        own: This node's incarnation.
        own_name: This node's name.
        peers: The list.
        now_s: Monotonic seconds.
    """

    def __init__(
        self, *, own: int, own_name: str, peers: Peers, now_s: Callable[[], float]
    ) -> None:
        self.own = own
        self.own_name = own_name
        self._peers = peers
        self._now_s = now_s
        self._heard: dict[int, tuple[str, float]] = {}
        self._gone: dict[int, str] = {}

    def name_of(self, node: int) -> str | None:
        """The name of a living node; None if it is gone, or was never heard of."""
        if node == self.own:
            return self.own_name
        peer = self._peers.get(node)
        if peer is not None:
            return peer.name
        heard = self._heard.get(node)
        return None if heard is None else heard[0]

    def last_name_of(self, node: int) -> str:
        """The same, also of one that is gone."""
        return self.name_of(node) or self._gone.get(node, f"node {node}")

    def is_gone(self, node: int) -> bool:
        """Whether its death has been told; nothing of it is believed after that."""
        return node in self._gone and self._peers.get(node) is None

    def hear(self, node: int, name: str) -> None:
        """It wrote to us, or a ref into it came: believe in it until the list has caught up."""
        if node == self.own or node in self._gone or self._peers.get(node) is not None:
            return
        self._heard[node] = (name, self._now_s())

    def settle(self, gone: tuple[Peer, ...]) -> list[tuple[int, str]]:
        """Take over a new list: (incarnation, name) of every node that is dead as of now."""
        dead = [(peer.incarnation, peer.name) for peer in gone]
        too_old_s = self._now_s() - HEARD_S
        for node, (name, at_s) in list(self._heard.items()):
            if self._peers.get(node) is not None:
                del self._heard[node]
            elif at_s <= too_old_s:
                del self._heard[node]
                dead.append((node, name))
        for node, name in dead:
            self._gone[node] = name
            if len(self._gone) > GONE_KEPT:
                del self._gone[next(iter(self._gone))]
        return dead
