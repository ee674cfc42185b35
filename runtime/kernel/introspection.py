"""A snapshot of a live tree, as data for the API, the CLI and tests."""

from typing import TYPE_CHECKING

import msgspec

from protocols.actor import DeadReason, Restart, Strategy
from runtime.kernel.vitals import State, Vitals

if TYPE_CHECKING:
    from runtime.kernel.system import ActorSystem


class SlowMessage(msgspec.Struct, frozen=True):
    """One of the slowest messages an actor has handled."""

    message: str
    """Name of its type."""
    took_s: float


class ActorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One actor as it stands now, with its children in start order."""

    path: str
    incarnation: int
    kind: str
    """Name of the actor's class, or `supervisor`."""
    state: State
    restart: Restart
    strategy: Strategy
    depth: int
    """Messages waiting in all lanes."""
    capacity: int
    stashed: int
    pipes: int
    timers: int
    restarts: int
    handled: int
    slowest: tuple[SlowMessage, ...]
    last_error: str | None
    children: tuple["ActorInfo", ...]


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """A system in numbers, and its tree."""

    actors: int
    tasks: int
    ask_timeouts: int
    dead_letters: dict[DeadReason, int]
    tree: ActorInfo


def describe(cell: Vitals) -> ActorInfo:
    """The snapshot of one actor and all below it."""
    factory = cell.props.factory
    actor = cell.actor
    kind = "supervisor" if factory is None else getattr(factory, "__name__", "actor")
    if actor is not None and factory is not None:
        kind = type(actor).__name__
    children = () if cell.family is None else tuple(cell.family.children.values())
    return ActorInfo(
        path=cell.path,
        incarnation=cell.ref.incarnation,
        kind=kind,
        state=cell.state,
        restart=cell.props.restart,
        strategy=cell.props.strategy,
        depth=cell.depth,
        capacity=cell.mailbox.capacity,
        stashed=len(cell.stashed or ()),
        pipes=0 if cell.pipes is None else cell.pipes.running,
        timers=len(cell.ticks or ()),
        restarts=cell.restarts,
        handled=cell.handled,
        slowest=tuple(SlowMessage(kind, took / 1e9) for took, kind in cell.slowest or ()),
        last_error=cell.last_error,
        children=tuple(describe(child) for child in children),
    )


def statistics(system: "ActorSystem") -> Statistics:
    """The snapshot of a whole system."""
    tree = describe(system.root)
    return Statistics(
        actors=_count(tree),
        tasks=len(system.nursery),
        ask_timeouts=system.deadlines.timed_out,
        dead_letters=dict(system.dead_letters.counts),
        tree=tree,
    )


def _count(info: ActorInfo) -> int:
    return 1 + sum(_count(child) for child in info.children)
