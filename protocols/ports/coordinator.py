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
        """Return once it is no longer ours."""
        ...

    async def resign(self) -> None:
        """Give it up at once, so that the next one need not wait for the lease to end."""
        ...


class Coordinator(Protocol):
    """Elects one leader per group of shards."""

    async def campaign(self, number: int) -> Leadership:
        """Wait until this node leads the group, and return the leadership."""
        ...
