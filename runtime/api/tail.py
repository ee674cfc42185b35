"""Reads the end of the event log once for all who wait for news, and only while somebody does.

News is a hint: whoever follows looks for itself, and looks again now and then without any.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

import anyio
import structlog
from litestar.di import NamedDependency
from litestar.params import SkipValidation

from protocols.errors import TickwrightError
from runtime.api.problems import RefusedError
from runtime.postgres.events import Place, end_of_events, read_events
from runtime.postgres.pool import Pool

log = structlog.get_logger("tickwright.api")

FOLLOWERS_MAX: Final = 500
LOOK_S: Final = 0.05
"""How often the log is looked at while somebody follows."""
POLL_S: Final = 2.0
"""How long a follower waits without news before it looks for itself."""
_BATCH: Final = 500
_AWAY_S: Final = 1.0


class News:
    """One follower's place: what has happened since it last looked is news."""

    def __init__(self, tail: "Tail") -> None:
        self._tail = tail
        self._seen = tail.count

    async def next(self) -> None:
        """Return when something has happened, when it is time to look, or when all ends."""
        with anyio.move_on_after(POLL_S):
            while self._seen == self._tail.count and not self._tail.ended:
                await self._tail.changed.wait()
        self._seen = self._tail.count


class Tail:
    """The live end of the log."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._followers = 0
        self._wanted = anyio.Event()
        self.changed = anyio.Event()
        self.count = 0
        self.ended = False

    @contextmanager
    def follow(self) -> Iterator[News]:
        """Be told of news inside the block.

        Raises:
            RefusedError: too many follow already.
        """
        if self.is_full:
            raise RefusedError(503, "too_many", f"{FOLLOWERS_MAX} requests wait here already")
        self._followers += 1
        self._wanted.set()
        try:
            yield News(self)
        finally:
            self._followers -= 1

    @property
    def is_full(self) -> bool:
        """Whether no more can follow."""
        return self._followers >= FOLLOWERS_MAX

    async def wait_followed(self) -> None:
        """Return once somebody follows."""
        await self._wanted.wait()

    def end(self) -> None:
        """Let everybody go: the node stops."""
        self.ended = True
        self._tell()

    async def run(self) -> None:
        """Read the log while somebody follows, for ever."""
        place: Place | None = None
        while True:
            if not self._followers:
                self._wanted, place = anyio.Event(), None
                await self._wanted.wait()
            try:
                if place is None:
                    place = await end_of_events(self._pool)
                    self._tell()
                found = await read_events(self._pool, after=place, limit=_BATCH)
            except TickwrightError:
                await anyio.sleep(_AWAY_S)
                continue
            except Exception:
                # News is a hint: whoever waits still looks for itself, and the node lives on.
                log.exception("the event log cannot be read")
                await anyio.sleep(_AWAY_S)
                continue
            if found:
                place = found[-1].place
                self._tell()
            if len(found) < _BATCH:
                await anyio.sleep(LOOK_S)

    def _tell(self) -> None:
        self.count += 1
        self.changed.set()
        self.changed = anyio.Event()


GivenTail: TypeAlias = NamedDependency[SkipValidation[Tail]]
"""How a route asks for it."""
