"""Questions and puts under way to other nodes: answered once, or ended with their node."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from protocols.actor import ActorDead, ActorFailed, MailboxFull, Quarantined, TooLarge, Unreadable
from runtime.kernel.items import Ask

if TYPE_CHECKING:
    import asyncio

    from runtime.kernel.system import ActorSystem

ERRORS = {
    error.__name__: error
    for error in (ActorDead, ActorFailed, MailboxFull, Quarantined, TooLarge, Unreadable)
}
"""The errors that cross by name; any other crosses as the text of an `ActorFailed`."""

TEXT_MAX = 2000
"""Characters of an error's text that cross."""


class Pending:
    """The correlation table: who waits for which answer of which node."""

    def __init__(self, system: "ActorSystem") -> None:
        self._system = system
        self._nodes: dict[int, dict[int, Ask]] = {}
        self._last = 0

    def __len__(self) -> int:
        return sum(len(asks) for asks in self._nodes.values())

    def number(self) -> int:
        """The next number that nothing else of this node's was asked under."""
        self._last += 1
        return self._last

    def open(self, node: int, message: Any, deadline_s: float) -> "tuple[int, asyncio.Future[Any]]":
        """A new question to a node; it leaves the table with its answer, timeout or cancel."""
        number = self.number()
        ask = Ask(message, self._system.loop.create_future())
        self._nodes.setdefault(node, {})[number] = ask
        self._system.deadlines.add(ask, deadline_s)
        ask.future.add_done_callback(partial(self._close, node, number, ask))
        return number, ask.future

    def _close(self, node: int, number: int, ask: Ask, _: object) -> None:
        asks = self._nodes.get(node)
        if asks is not None and asks.pop(number, None) is not None and not asks:
            del self._nodes[node]
        self._system.deadlines.drop(ask)

    def settle(self, node: int, number: int, result: Callable[[], Any]) -> bool:
        """Answer one with what `result` returns or raises; false if nobody waits for it."""
        ask = self._nodes.get(node, {}).get(number)
        if ask is None or ask.future.done():
            return False
        try:
            ask.future.set_result(result())
        except Exception as error:  # noqa: BLE001 - it is the asker's to read
            ask.future.set_exception(error)
        return True

    def fail_node(self, node: int, error: Callable[[], Exception]) -> None:
        """End all that wait for that node."""
        for ask in list(self._nodes.get(node, {}).values()):
            if not ask.future.done():
                ask.future.set_exception(error())

    def fail_all(self, error: Callable[[], Exception]) -> None:
        """End all that wait for any node."""
        for node in list(self._nodes):
            self.fail_node(node, error)


def error_from(name: str, text: bytes) -> Exception:
    """The error that a `failure` stands for."""
    return ERRORS.get(name, ActorFailed)(text.decode(errors="replace"))


def error_to(error: BaseException) -> tuple[str, bytes]:
    """The name and text that an error crosses as."""
    name = type(error).__name__
    try:
        text = str(error) if ERRORS.get(name) is type(error) else f"{name}: {error}"
    except Exception:  # noqa: BLE001 - a user's __str__ must not end the node that reports it
        text = name
    known = name if ERRORS.get(name) is type(error) else "ActorFailed"
    return known, text[:TEXT_MAX].encode(errors="replace")
