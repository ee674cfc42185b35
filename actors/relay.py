"""RelayActor: where other nodes' hints arrive; each goes to whom it is for on this node."""

from collections.abc import Callable
from typing import Any, Final

from protocols.actor import Actor, Context
from protocols.messages import Hint

RELAY: Final = "relay"


class RelayActor(Actor):
    """Takes hints and nothing else, whoever sends them.

    Args:
        deliver: hands a hint to this node's own actors.
    """

    def __init__(self, *, deliver: Callable[[Hint], None]) -> None:
        self._deliver = deliver

    async def on_start(self, ctx: Context) -> None:
        """Be found by the other nodes."""
        ctx.register(RELAY)

    async def receive(self, message: Any, ctx: Context) -> None:
        """Pass it on; a hint is never answered."""
        del ctx
        if isinstance(message, Hint):
            self._deliver(message)
