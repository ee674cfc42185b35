"""The coordinator of a node that is alone: it leads every group, until it resigns."""

import anyio

from protocols.ports.coordinator import Leadership


class SoleLeadership:
    """Led by the only node there is; the data directory's lock keeps others out."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._ended = anyio.Event()

    @property
    def number(self) -> int:
        """Which group of shards."""
        return self._number

    def trusted(self) -> bool:
        """Whether a write may still go out."""
        return not self._ended.is_set()

    async def lost(self) -> None:
        """Return once it was resigned."""
        await self._ended.wait()

    async def resign(self) -> None:
        """End it."""
        self._ended.set()


class SoleCoordinator:
    """Grants each group to whoever asks, one holder at a time."""

    def __init__(self) -> None:
        self._held: dict[int, SoleLeadership] = {}

    async def campaign(self, number: int) -> Leadership:
        """Wait for the former holder, if any, to resign; then lead."""
        while (holder := self._held.get(number)) is not None and holder.trusted():
            await holder.lost()
        leadership = SoleLeadership(number)
        self._held[number] = leadership
        return leadership
