"""HeartActor: beats into the database, and reads there what the others hold this node for."""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from protocols.actor import Actor, Context
from protocols.errors import UnavailableError
from protocols.ports.store import JanitorStore, Pulse


class Vital(msgspec.Struct, frozen=True):
    """What a beat carries: executions running by pool, epochs by leadership led."""

    running: dict[str, int]
    leads: dict[int, int]
    clock_offset_s: float


class _Beat(msgspec.Struct, frozen=True):
    """Time to beat."""


class _Failed(msgspec.Struct, frozen=True):
    error: Exception


_BEATS_PER_TTL: Final = 5


class HeartActor(Actor):
    """Beats five times a TTL; one beat under way at a time."""

    def __init__(
        self,
        *,
        store: JanitorStore,
        incarnation: int,
        ttl_s: float,
        vital: Callable[[], Vital],
        on_pulse: Callable[[Pulse], None],
    ) -> None:
        self._store = store
        self._incarnation = incarnation
        self._ttl_s = ttl_s
        self._vital = vital
        self._on_pulse = on_pulse
        self._beating = False

    async def on_start(self, ctx: Context) -> None:
        """The first beat at once."""
        ctx.every(self._ttl_s / _BEATS_PER_TTL, _Beat())
        self._beat(ctx)

    async def receive(self, message: Any, ctx: Context) -> None:
        """The period, and what the books answered."""
        match message:
            case _Beat():
                self._beat(ctx)
            case Pulse():
                self._beating = False
                self._on_pulse(message)
            case _Failed(error=error):
                self._beating = False
                if not isinstance(error, UnavailableError):
                    raise error

    def _beat(self, ctx: Context) -> None:
        if self._beating:
            return
        self._beating = True
        vital = self._vital()
        ctx.pipe(
            lambda: self._store.beat(
                self._incarnation,
                running=vital.running,
                leads=vital.leads,
                clock_offset_s=vital.clock_offset_s,
                ttl_s=self._ttl_s,
            ),
            on_error=_Failed,
        )
