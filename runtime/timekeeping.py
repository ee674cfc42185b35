"""A node's time: the database's clock, sampled each second; and whether the database is there.

One that hangs refuses nothing, so each sample has little time, on a connection that nothing else
waits for.
"""

from collections.abc import Callable
from typing import Final

import anyio
import structlog

from protocols.errors import UnavailableError
from protocols.instants import to_epoch_ns
from runtime.clock import DEGRADED_STEP_S, WARN_STEP_S, DatabaseClock, Sample, Step, monotonic_ns
from runtime.database import Database
from runtime.health import Health, Level
from runtime.postgres.nodes import sample_clock

log = structlog.get_logger("tickwright.node")

SILENT_S: Final = 2.5
"""So long without an answer, twice, and the database is away."""

_FIRST_SAMPLES: Final = 5
_SAMPLE_S: Final = 1.0
_BEGIN_S: Final = 30.0


class Timekeeper:
    """Keeps `clock` by the database's, and says in `health` what becomes of either.

    Args:
        database: whose clock is sampled.
        clock: what is adopted from it.
        health: where troubles of `database` and `clock` are shown.
        ttl_s: after so long without the database this node cannot do a leader's work.
        reached: told at each sample whether it can.
    """

    def __init__(
        self,
        database: Database,
        *,
        clock: DatabaseClock,
        health: Health,
        ttl_s: float,
        reached: Callable[[bool], None],
    ) -> None:
        self._database = database
        self._clock = clock
        self._health = health
        self._ttl_s = ttl_s
        self._reached = reached

    async def begin(self) -> None:
        """Take the first samples.

        Raises:
            UnavailableError: The database is away.
        """
        for _ in range(_FIRST_SAMPLES):
            await self._sample(_BEGIN_S)

    async def run(self) -> None:
        """Sample for ever; an outage is trouble, not an end."""
        was_away = False
        while True:
            await anyio.sleep(_SAMPLE_S)
            try:
                await self._sample_surely()
            except UnavailableError as error:
                self._away(str(error))
                was_away = True
                continue
            if self._health.mend("database"):
                log.info("database back")
            elif was_away:
                # A second answer, and some statements still wait: on connections that are dead.
                was_away = False
                await self._database.renew(older_than_s=SILENT_S)
            self._reached(True)

    async def _sample_surely(self) -> None:
        """A connection that broke is no outage yet: the next sample is on a new one."""
        try:
            await self._sample()
        except UnavailableError:
            if "database" in self._health.troubles:
                raise
            await self._sample()

    def _away(self, reason: str) -> None:
        if self._health.trouble("database", reason):
            log.warning("database away", error=reason)
        since = self._health.troubles["database"].since
        if (self._clock.now() - since).total_seconds() >= self._ttl_s:
            self._reached(False)

    async def _sample(self, within_s: float = SILENT_S) -> None:
        asked = monotonic_ns()
        said = await sample_clock(self._database.vital, within_s=within_s)
        step = self._clock.adopt(Sample(asked, to_epoch_ns(said), monotonic_ns()))
        if step is not None:
            log.warning("the database's clock stepped", by_s=round(step.by_s, 3))
        self._judge(step)

    def _judge(self, step: Step | None) -> None:
        """Show a clock that stepped, or that is far from this node's; neither changes a fire."""
        offset_s = self._clock.offset_s
        off_s = max(abs(offset_s), abs(step.by_s) if step is not None else 0.0)
        if off_s < WARN_STEP_S:
            self._health.mend("clock")
            return
        reason = (
            f"the database's clock stepped by {step.by_s:.3f} s"
            if step is not None
            else f"this node's clock is {offset_s:+.3f} s off the database's"
        )
        level: Level = "degraded" if off_s > DEGRADED_STEP_S else "warning"
        self._health.trouble("clock", reason, level=level)
