"""Watches that cross nodes, held at both ends, and said again until the other side has heard.

The asking side numbers each watch. The other side keeps what it was asked under that number until
it is taken back, so that a watch may come twice, and its end be told twice, to no harm.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from protocols.actor import EndReason, Terminated
from runtime.kernel.items import Death, Item, Watcher
from runtime.kernel.vitals import Vitals

if TYPE_CHECKING:
    from runtime.kernel.remote.refs import RemoteRef

WATCH_AGAIN_S = 5.0
"""How often a watch is said again, since the word of it, or of the end, may have been lost."""

HELD_MAX = 100_000
"""Watches of other nodes' actors that a node holds at most."""

ENDED_KEPT = 4096
"""How many ended actors of other nodes are remembered as such."""

Say = Callable[["FarTarget"], None]


class FarTarget:
    """Stands here for an actor of another node that actors of this one watch."""

    __slots__ = ("_notes", "_watches", "correlation", "end_reason", "ref")

    def __init__(self, watches: "Watches", ref: "RemoteRef", reason: EndReason | None) -> None:
        self._watches = watches
        self._notes: dict[Watcher, None] = {}
        self.ref = ref
        self.end_reason: EndReason | None = reason
        self.correlation = 0

    def watched_by(self, watcher: Watcher) -> None:
        """From here on, tell `watcher` of the end; the first one has the other node told."""
        first = not self._notes
        self._notes[watcher] = None
        if first:
            self._watches.begin(self)

    def unwatched_by(self, watcher: Watcher) -> None:
        """No more; with the last one the other node is told."""
        if self._notes.pop(watcher, self) is None and not self._notes:
            self._watches.leave(self)

    def end(self, reason: EndReason) -> None:
        """It has ended: tell all who watch."""
        self.end_reason = reason
        watchers, self._notes = self._notes, {}
        note = Terminated(self.ref, reason)
        for watcher in watchers:
            watcher.push_system(Death(note, self))


class Watches:
    """The asking side: what actors of this node watch elsewhere.

    Args:
        judge: How the actor of a ref ended, as far as is known without asking.
        number: Gives the number of a new watch.
        watch: Sends a watch.
        unwatch: Sends that it is taken back.
    """

    def __init__(
        self,
        *,
        judge: "Callable[[RemoteRef], EndReason | None]",
        number: Callable[[], int],
        watch: Say,
        unwatch: Say,
    ) -> None:
        self._judge = judge
        self._number = number
        self._watch = watch
        self._unwatch = unwatch
        self._by_key: dict[tuple[int, str, int], FarTarget] = {}
        self._by_number: dict[int, FarTarget] = {}
        self._ended: dict[tuple[int, str, int], EndReason] = {}
        self._said_s = 0.0

    def __len__(self) -> int:
        return len(self._by_key)

    def target(self, ref: "RemoteRef") -> FarTarget:
        """What stands here for that actor."""
        found = self._by_key.get(ref.key)
        return FarTarget(self, ref, self._judge(ref)) if found is None else found

    def ended(self, ref: "RemoteRef") -> EndReason | None:
        """How that very actor ended, if the word of it has come."""
        return self._ended.get(ref.key)

    def begin(self, target: FarTarget) -> None:
        """The first actor watches it."""
        target.correlation = self._number()
        self._by_key[target.ref.key] = target
        self._by_number[target.correlation] = target
        self._watch(target)

    def leave(self, target: FarTarget) -> None:
        """Nobody watches it any more."""
        if self._by_number.pop(target.correlation, None) is not None:
            del self._by_key[target.ref.key]
            self._unwatch(target)

    def terminated(self, correlation: int, reason: EndReason) -> None:
        """The other node says that it has ended."""
        target = self._by_number.pop(correlation, None)
        if target is None:
            return
        del self._by_key[target.ref.key]
        if target.ref.incarnation:
            self._ended[target.ref.key] = reason
            if len(self._ended) > ENDED_KEPT:
                del self._ended[next(iter(self._ended))]
        target.end(reason)

    def node_gone(self, node: int) -> None:
        """All that was watched there was killed with its node."""
        for target in [held for held in self._by_key.values() if held.ref.node == node]:
            del self._by_key[target.ref.key], self._by_number[target.correlation]
            target.end("killed")

    def say_again(self, now_s: float) -> None:
        """Repeat every watch, if it is time."""
        if now_s - self._said_s >= WATCH_AGAIN_S:
            self._said_s = now_s
            for target in list(self._by_number.values()):
                self._watch(target)


class HeldWatch:
    """A watch that an actor of another node has on one of ours; it stands among its watchers."""

    __slots__ = ("_tell", "cell", "correlation", "node", "reason")

    def __init__(
        self, node: int, correlation: int, cell: Vitals | None, tell: "Callable[[HeldWatch], None]"
    ) -> None:
        self.node = node
        self.correlation = correlation
        self.cell = cell
        self.reason: EndReason | None = None
        self._tell = tell

    def push_system(self, item: Item) -> None:
        """It has ended: tell the other node."""
        self.cell = None
        self.reason = item.message.reason
        self._tell(self)


class HeldWatches:
    """The asked side: what actors of other nodes watch here.

    Args:
        tell: Sends the word of an end.
    """

    def __init__(self, tell: Callable[[HeldWatch], None]) -> None:
        self._tell = tell
        self._held: dict[int, dict[int, HeldWatch]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def hold(self, node: int, correlation: int, find: Callable[[], Vitals | None]) -> bool:
        """Watch for another node, or say again how it ended; false if there are too many."""
        of_node = self._held.setdefault(node, {})
        held = of_node.get(correlation)
        if held is None:
            if self._count >= HELD_MAX:
                return False
            cell = find()
            held = of_node[correlation] = HeldWatch(node, correlation, cell, self._tell)
            self._count += 1
            if cell is None:
                held.reason = "stopped"
            else:
                cell.watched_by(held)
        if held.reason is not None:
            self._tell(held)
        return True

    def drop(self, node: int, correlation: int) -> None:
        """It is taken back, or its end was heard."""
        held = self._held.get(node, {}).pop(correlation, None)
        if held is not None:
            self._count -= 1
            if held.cell is not None:
                held.cell.unwatched_by(held)

    def node_gone(self, node: int) -> None:
        """Nobody there waits for anything any more."""
        for correlation in list(self._held.get(node, ())):
            self.drop(node, correlation)
        self._held.pop(node, None)
