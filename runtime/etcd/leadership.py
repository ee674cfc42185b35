"""A leadership won in etcd: a key on the node's lease, trusted while that lease is."""

from collections.abc import Awaitable, Callable

import anyio

from runtime.etcd.session import Session


class EtcdLeadership:
    """Led by this node, in one life of its session.

    Args:
        create_revision: that of the key, by which it is told from a later one.
        give_back: deletes the key if it is still this one.
    """

    def __init__(
        self,
        *,
        number: int,
        create_revision: int,
        session: Session,
        give_back: Callable[["EtcdLeadership"], Awaitable[None]],
    ) -> None:
        self._number = number
        self._session = session
        self._life = session.life
        self._give_back = give_back
        self._over = anyio.Event()
        self._ended = False
        self._resigned = False
        self.create_revision = create_revision

    @property
    def number(self) -> int:
        """Which group of shards."""
        return self._number

    @property
    def of_this_life(self) -> bool:
        """Whether the session has lasted since it was won."""
        return self._life == self._session.life

    def trusted(self) -> bool:
        """Whether a write may still go out."""
        return not self._ended and self.of_this_life and self._session.trusted()

    async def lost(self) -> None:
        """Return once it is over, or is another node's to have."""
        await self._over.wait()

    def pass_on(self) -> None:
        """It is another node's to have: ask the holder to resign, and trust it until then."""
        self._over.set()

    def end(self) -> None:
        """It is over."""
        self._ended = True
        self._over.set()

    async def resign(self) -> None:
        """Give it up at once; never fails."""
        self.end()
        if not self._resigned:
            self._resigned = True
            await self._give_back(self)
