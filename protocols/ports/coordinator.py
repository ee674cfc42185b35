"""The Coordinator port: who leads which group of shards, and until when that may be trusted."""

from typing import Protocol


class Leadership(Protocol):
    """A won election, for as long as it lasts."""

    @property
    def number(self) -> int:
        """Which group of shards."""
        ...

    def trusted(self) -> bool:
        """Whether a write may still go out: false from a second before the lease could pass on."""
        ...

    async def lost(self) -> None:
        """Return once it is over, or is another node's to have: then end the work, and `resign`.

        Where another node is to have it, it stays trusted until it is resigned.
        """
        ...

    async def resign(self) -> None:
        """Give it up at once, so that the next one need not wait for the lease to end.

        Call it when nothing can be written in its name any more, also after it was lost. It never
        fails: what could not be given back now is given back as soon as that can be done.
        """
        ...


class Coordinator(Protocol):
    """Elects one leader per group of shards."""

    async def campaign(self, number: int) -> Leadership:
        """Wait until this node leads the group, and return the leadership.

        A former leadership of this node over that group must have been resigned.
        """
        ...

    def fit(self, yes: bool, /) -> None:  # noqa: FBT001 - the one thing it says
        """Say whether this node can do a leader's work; what it leads moves on where it cannot.

        Where no node is fit, each keeps what it has.
        """
        ...

    def cover(self, numbers: int, /) -> None:
        """Tell how many groups there are: 0 to `numbers` - 1; a leadership beyond them is lost."""
        ...
