"""Hints between nodes: work goes to whoever has a slot free for it, and only then is it told of.

A node that can start what became ready keeps the hint to itself. One that cannot tells the nodes
known to have free slots: from their last beat, and from what they have said since. Each pool's
hints leave at most fifty times a second, since one claim takes hundreds of executions.
"""

from collections.abc import Callable, Mapping
from typing import Final

from protocols.messages import CancelRequested, FreeSlots, Hint, Ready, SchedulesChanged
from protocols.ports.hints import Hints
from runtime.peers import Peer, Peers

READY_EVERY_S: Final = 0.02
SLOTS_EVERY_S: Final = 0.1

Post = Callable[[int | None, Hint], None]


class ClusterHints:
    """The Hints port of one of several nodes.

    Args:
        local: delivers within this node.
        peers: the other living nodes.
        post: sends to the node of an incarnation, or to all others.
        free: by pool of this node, how many of its slots are free now.
        now_s: a monotonic clock.
    """

    def __init__(
        self,
        local: Hints,
        *,
        peers: Peers,
        post: Post,
        free: Mapping[str, Callable[[], int]],
        now_s: Callable[[], float],
    ) -> None:
        self._local = local
        self._peers = peers
        self._post = post
        self._free = free
        self._now_s = now_s
        self._free_there: dict[str, dict[int, int]] = {}
        self._sent_at: dict[str, float] = {}
        self._said: dict[str, tuple[bool, float]] = {}
        """By pool, whether slots were said to be free here, and when."""
        peers.subscribe(self._take_over)

    def send(self, hint: Hint, /) -> None:
        """Pass it on; never blocks, never fails."""
        match hint:
            case Ready(pool=pool):
                self._local.send(hint)
                if self._full(pool) and self._due(pool):
                    for incarnation in self.hungry(pool):
                        self._post(incarnation, hint)
            case FreeSlots(pool=pool, free=free):
                if self._news(pool, free=free > 0):
                    self._post(None, hint)
            case SchedulesChanged() | CancelRequested():
                self._local.send(hint)
                self._post(None, hint)
            case _:
                self._local.send(hint)

    def deliver(self, hint: Hint, /) -> None:
        """Take what another node sent: to the actors here, and no further."""
        if isinstance(hint, FreeSlots):
            if self._peers.get(hint.incarnation) is not None:
                self._free_there.setdefault(hint.pool, {})[hint.incarnation] = hint.free
        else:
            self._local.send(hint)

    def hungry(self, pool: str) -> tuple[int, ...]:
        """Who has slots free in the pool, as far as is known: the one with most of them first."""
        free = self._free_there.get(pool, {})
        return tuple(sorted((who for who in free if free[who] > 0), key=lambda who: -free[who]))

    def _full(self, pool: str) -> bool:
        """Whether nothing more of the pool can start here."""
        free = self._free.get(pool)
        return free is None or free() <= 0

    def _due(self, pool: str) -> bool:
        now = self._now_s()
        if now - self._sent_at.get(pool, -READY_EVERY_S) < READY_EVERY_S:
            return False
        self._sent_at[pool] = now
        return True

    def _news(self, pool: str, *, free: bool) -> bool:
        """Whether to say it: seldom, but never keep back that slots are free after all."""
        now = self._now_s()
        said, at = self._said.get(pool, (False, -SLOTS_EVERY_S))
        if now - at < SLOTS_EVERY_S and (said or not free):
            return False
        self._said[pool] = (free, now)
        return True

    def _take_over(self, joined: tuple[Peer, ...], gone: tuple[Peer, ...]) -> None:
        """What the beats say holds until the next one, or until a node says otherwise."""
        del joined, gone
        self._free_there = {}
        for peer in self._peers.all():
            for pool, load in peer.pools.items():
                self._free_there.setdefault(pool, {})[peer.incarnation] = load.slots - load.running
