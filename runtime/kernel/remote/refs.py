"""The remote Ref: the address of an actor of another node, used like any other."""

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from protocols.actor import Delivery, Lane

if TYPE_CHECKING:
    from runtime.kernel.remote.remoting import Remoting
    from runtime.kernel.remote.watches import FarTarget


class RemoteRef:
    """A `Ref` whose target lives on another node.

    With `incarnation` 0 it means whoever holds its name, or path, when a message arrives; one
    that came inside a message means that very actor. Two of the same address are equal.
    """

    __slots__ = ("_remoting", "incarnation", "node", "path")

    def __init__(self, remoting: "Remoting", node: int, path: str, incarnation: int) -> None:
        self._remoting = remoting
        self.node = node
        self.path = path
        self.incarnation = incarnation

    @property
    def address(self) -> str:
        """`path@node`, for people and dead letters."""
        return f"{self.path}@{self._remoting.roster.last_name_of(self.node)}"

    @property
    def key(self) -> tuple[int, str, int]:
        """What makes two of them the same."""
        return (self.node, self.path, self.incarnation)

    @property
    def alive(self) -> bool:
        """False once its end, or its node's, has become known here."""
        return self._remoting.believes_in(self)

    @property
    def watch_target(self) -> "FarTarget":
        """Whose end a watch of this ref tells of."""
        return self._remoting.watches.target(self)

    def tell(self, message: Any, lane: Lane = "normal") -> Delivery:
        """Send and go on; never waits. `Delivered("sent")` says that it is on its way."""
        return self._remoting.tell(self, message, lane)

    async def put(self, message: Any, *, deadline: float) -> Delivery:
        """Send, waiting up to `deadline` seconds for room on the way and in the mailbox there.

        `Rejected("unreachable")` at the deadline may mean that only the word of its arrival was
        lost.
        """
        return await self._remoting.put(self, message, deadline)

    def ask(self, message: Any, *, deadline: float, lane: Lane = "normal") -> Awaitable[Any]:
        """Send a question and await its answer; errors as in the actor contract."""
        return self._remoting.ask(self, message, deadline, lane)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemoteRef) and other.key == self.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"<ref {self.address}#{self.incarnation}>"
