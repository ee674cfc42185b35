"""The coordinator of a node that is alone: it leads every group, until it resigns."""

import anyio

from protocols.ports.coordinator import Leadership


class SoleLeadership:
    """Led by the only node there is; the data directory's lock keeps others out."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._resigned = anyio.Event()
        self._over = anyio.Event()

    @property
    def number(self) -> int:
        """Which group of shards."""
        return self._number

    def trusted(self) -> bool:
        """Whether a write may still go out."""
        return not self._resigned.is_set()

    async def lost(self) -> None:
        """Return once it was resigned, or its group is no more."""
        await self._over.wait()

    async def resigned(self) -> None:
        """Return once nothing is written in its name any more."""
        await self._resigned.wait()

    def end(self) -> None:
        """Say that its group is no more."""
        self._over.set()

    async def resign(self) -> None:
        """End it."""
        self._over.set()
        self._resigned.set()


class SoleCoordinator:
    """Grants each group to whoever asks, one holder at a time; every number until told how many.

    The only node is the fittest there is, whatever it says of itself.
    """

    def __init__(self) -> None:
        self._held: dict[int, SoleLeadership] = {}
        self._numbers: int | None = None
        self._covered = anyio.Event()

    async def campaign(self, number: int) -> Leadership:
        """Wait for the former holder, if any, to resign; then lead."""
        while True:
            covered, holder = self._covered, self._held.get(number)
            if self._numbers is not None and number >= self._numbers:
                await covered.wait()
            elif holder is not None and holder.trusted():
                await holder.resigned()
            else:
                leadership = SoleLeadership(number)
                self._held[number] = leadership
                return leadership

    def fit(self, yes: bool, /) -> None:  # noqa: FBT001 - the one thing it says
        """Change nothing: there is nobody to give anything to."""

    def cover(self, numbers: int, /) -> None:
        """Tell how many groups there are."""
        self._numbers = numbers
        for number, leadership in self._held.items():
            if number >= numbers:
                leadership.end()
        covered, self._covered = self._covered, anyio.Event()
        covered.set()
