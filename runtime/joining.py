"""How a node enters the books: as the only one, or as one of several once its name is free."""

from typing import Final

import anyio
import structlog

from actors.naming import NameWatch
from protocols.errors import NameHeldError, UnavailableError
from protocols.ports.store import JanitorStore, NodeInfo, Pulse
from runtime.clock import DatabaseClock

log = structlog.get_logger("tickwright.node")

_AGAIN_S: Final = 0.5


async def join(
    store: JanitorStore, info: NodeInfo, *, clock: DatabaseClock, ttl_s: float, alone: bool
) -> tuple[int, Pulse]:
    """Enter the books as a new incarnation; the answer to its first beat comes with it.

    With `alone`, every earlier incarnation is known to be dead.

    Raises:
        UnavailableError: The database is away; nothing may be known of this incarnation.
        NameHeldError: Another node lives by this name.
    """
    incarnation = await store.join(info, now=clock.now(), alone=alone)
    pulse = await store.beat(
        incarnation, running={}, leads={}, clock_offset_s=clock.offset_s, ttl_s=ttl_s
    )
    return incarnation, pulse


async def join_patiently(
    store: JanitorStore, info: NodeInfo, *, clock: DatabaseClock, ttl_s: float, alone: bool
) -> tuple[int, Pulse]:
    """The same, waiting out an absent database, and whoever held the name and beats no more.

    Raises:
        NameHeldError: Another node lives by this name, and goes on living.
    """
    watch, told = NameWatch(ttl_s), 0
    while True:
        try:
            return await join(store, info, clock=clock, ttl_s=ttl_s, alone=alone)
        except UnavailableError:
            watch.interrupted()
        except NameHeldError as held:
            if held.incarnation != told:
                told = held.incarnation
                log.warning("waiting for the node of this name to end", held=str(held))
            verdict = watch.judge(held, clock.monotonic())
            if verdict == "refused":
                raise
            if verdict == "bury":
                await _bury(store, held, clock=clock)
        await anyio.sleep(_AGAIN_S)


async def _bury(store: JanitorStore, held: NameHeldError, *, clock: DatabaseClock) -> None:
    log.warning("the node of this name has been silent for a TTL: it is dead", held=str(held))
    try:
        await store.bury(held.incarnation, silent_since=held.last_beat_at, now=clock.now())
    except UnavailableError as error:
        log.warning("that could not be written", error=str(error))
