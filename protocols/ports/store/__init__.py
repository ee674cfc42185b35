"""The Store port: all state there is, and the only way to change it.

One small protocol per actor that asks; an adapter fulfils them all. Every method is one round
trip, takes its instants from the caller's Clock, and may be repeated after a lost answer: a
repeat finds its proof (epoch, cursor, fencing token) spent and changes nothing.
`UnavailableError` means that nothing is known to be durable; `FencedError` that a newer term
has begun.
"""

from typing import Protocol

from protocols.ports.store.claiming import Budget, Claimed, DispatchStore, GiveBack, Lane, Lanes
from protocols.ports.store.finishing import Finish, Finished, WorkerStore
from protocols.ports.store.firing import (
    SHARDS,
    DueInstant,
    DueSchedule,
    Fired,
    Firing,
    Term,
    TimerStore,
)
from protocols.ports.store.keeping import JanitorStore, NodeInfo, Peer, PoolLoad, Pulse
from protocols.ports.store.records import Match, RecordStore
from protocols.ports.store.triggering import Triggered, TriggerRequest, TriggerStore
from protocols.ports.store.waiting import Settled, WaitingStore

__all__ = [
    "SHARDS",
    "Budget",
    "Claimed",
    "DispatchStore",
    "DueInstant",
    "DueSchedule",
    "Finish",
    "Finished",
    "Fired",
    "Firing",
    "GiveBack",
    "JanitorStore",
    "Lane",
    "Lanes",
    "Match",
    "NodeInfo",
    "Peer",
    "PoolLoad",
    "Pulse",
    "RecordStore",
    "Settled",
    "Store",
    "Term",
    "TimerStore",
    "TriggerRequest",
    "TriggerStore",
    "Triggered",
    "WaitingStore",
    "WorkerStore",
]


class Store(
    TimerStore, DispatchStore, WorkerStore, TriggerStore, JanitorStore, WaitingStore, Protocol
):
    """All of it: what one adapter fulfils."""
