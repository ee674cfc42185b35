"""The Clock port: what time it is by the database, and how much of it has passed."""

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Time as an actor may know it; no adapter of it ever reads the wall clock twice.

    `now` and `now_ns` are the lower bound of what the database's clock can say at this moment,
    so that nothing fires early. They may stand still, and step on when a sample is adopted;
    whoever measures a span uses `monotonic`.
    """

    def now(self) -> datetime:
        """This moment, aware, in UTC, cut to the microsecond."""
        ...

    def now_ns(self) -> int:
        """This moment in nanoseconds since 1970-01-01T00:00:00Z."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed instant; never goes back."""
        ...

    def monotonic_ns(self) -> int:
        """The same in nanoseconds."""
        ...
