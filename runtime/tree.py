"""The supervision tree of a node, drawn once: what runs, in which order, and who restarts whom.

    node (one_for_one)
      heart                       beats into the database
      janitor · waiting           keep the books; let go what waited
      dags                        moves runs of DAGs on
      relay · outbox              takes other nodes' hints; tells Kafka what happened, in a cluster
      pools (one_for_one)         per pool (one_for_one): worker, dispatcher
      timing                      one elector per group of shards; each keeps its timer
      actors (one_for_one)        the user's own, each under a supervisor of its own

It stops from the bottom up: nobody fires any more, then nobody claims, then what runs may end
within the shutdown's grace, and the heart beats until all that is done.
"""

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import msgspec

from actors.dag.actor import DagActor
from actors.dispatcher.actor import DispatcherActor
from actors.elector import ElectorActor, MakeTimer
from actors.heart import HeartActor, Vital
from actors.janitor import JanitorActor
from actors.relay import RelayActor
from actors.subscriptions import SubscriptionsActor
from actors.timing import TimingActor
from actors.waiting import WaitingActor
from actors.worker.actor import WorkerActor
from actors.worker.held import Held
from protocols.actor import Actor, Mailbox, Props
from protocols.messages import Hint
from protocols.ports.coordinator import Coordinator
from protocols.ports.executor import Executor
from protocols.ports.hints import Hints
from protocols.ports.records import Subscriber
from protocols.ports.store import Pulse
from runtime.postgres.store import PostgresStore
from runtime.setting_rules import UserActor
from runtime.settings import Settings, SettingsError

_STOP_SLACK_S: Final = 10.0


def _same_hint(message: Any) -> Any:
    """Two hints that say the same are one; whatever else it is told, an actor gets it all."""
    return message if isinstance(message, Hint) else None


_WOKEN: Final = Mailbox(overflow="coalesce", key=_same_hint)
"""The mailbox of an actor that hints wake."""


class PoolParts(msgspec.Struct, frozen=True):
    """What a pool's actors share and what outlives their restarts."""

    executor: Executor
    held: Held


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What the tree is made of, for one incarnation of a node."""

    settings: Settings
    store: PostgresStore
    hints: Hints
    coordinator: Coordinator
    incarnation: int
    leaderships: int
    pools: Mapping[str, PoolParts]
    leads: dict[int, int]
    make_timer: MakeTimer
    vital: Callable[[], Vital]
    on_pulse: Callable[[Pulse], None]
    on_dispatch: Callable[[str], None]
    actors: Sequence[Props]
    deliver: Callable[[Hint], None] | None = None
    """Takes what other nodes' hints say; None where there are no others."""
    subscriber: Subscriber | None = None
    """Reads Kafka's topics; None where there is no Kafka."""
    outbox: Callable[[], Actor] | None = None
    """Makes what tells Kafka; None where there is none."""


def node_tree(parts: Parts) -> Props:
    """The tree as data."""
    settings, store, hints = parts.settings, parts.store, parts.hints
    ttl_s = settings.lease_ttl_s
    return Props(
        name="node",
        children=(
            _actor(
                "heart",
                lambda: HeartActor(
                    store=store,
                    incarnation=parts.incarnation,
                    ttl_s=ttl_s,
                    vital=parts.vital,
                    on_pulse=parts.on_pulse,
                ),
            ),
            _actor(
                "janitor",
                lambda: JanitorActor(
                    store=store,
                    hints=hints,
                    pools=tuple(parts.pools),
                    ttl_s=ttl_s,
                    keep_s=settings.history_keep_s,
                ),
            ),
            _actor("waiting", lambda: WaitingActor(store=store, hints=hints), mailbox=_WOKEN),
            _actor(
                "dags",
                lambda: DagActor(store=store, hints=hints, incarnation=parts.incarnation),
                mailbox=_WOKEN,
            ),
            *_relay(parts.deliver),
            *_subscriptions(parts),
            *(() if parts.outbox is None else (_actor("outbox", parts.outbox),)),
            Props(
                name="pools",
                stop_grace_s=settings.shutdown_grace_s + settings.kill_grace_s + 2 * _STOP_SLACK_S,
                children=tuple(_pool(name, parts) for name in parts.pools),
            ),
            Props(
                name="timing",
                stop_grace_s=_STOP_SLACK_S,
                factory=lambda: TimingActor(
                    coordinator=parts.coordinator,
                    leaderships=parts.leaderships,
                    make_elector=partial(_elector, parts),
                ),
            ),
            Props(name="actors", children=tuple(parts.actors)),
        ),
    )


def _relay(deliver: Callable[[Hint], None] | None) -> tuple[Props, ...]:
    if deliver is None:
        return ()
    return (_actor("relay", lambda: RelayActor(deliver=deliver), mailbox=_WOKEN),)


def _subscriptions(parts: Parts) -> tuple[Props, ...]:
    subscriber = parts.subscriber
    if subscriber is None:
        return ()
    return (
        _actor(
            "subscriptions",
            lambda: SubscriptionsActor(
                store=parts.store, subscriber=subscriber, cluster=parts.settings.cluster_name
            ),
            mailbox=_WOKEN,
        ),
    )


def _actor(name: str, factory: Callable[[], Actor], *, mailbox: Mailbox | None = None) -> Props:
    return Props(name=name, factory=factory, mailbox=mailbox or Mailbox())


def _pool(name: str, parts: Parts) -> Props:
    settings, pool = parts.settings, parts.pools[name]
    grace_s = settings.shutdown_grace_s + settings.kill_grace_s + _STOP_SLACK_S
    return Props(
        name=name,
        stop_grace_s=grace_s + _STOP_SLACK_S,
        children=(
            Props(
                name="worker",
                stop_grace_s=grace_s,
                mailbox=Mailbox(capacity=4096),
                factory=lambda: WorkerActor(
                    store=parts.store,
                    executor=pool.executor,
                    hints=parts.hints,
                    held=pool.held,
                    pool=name,
                    incarnation=parts.incarnation,
                    grace_s=settings.shutdown_grace_s,
                ),
            ),
            Props(
                name="dispatcher",
                mailbox=_WOKEN,
                factory=lambda: DispatcherActor(
                    store=parts.store,
                    pool=name,
                    incarnation=parts.incarnation,
                    worker=f"worker:{name}",
                    hints=parts.hints,
                    on_look=partial(parts.on_dispatch, name),
                ),
            ),
        ),
    )


def _elector(parts: Parts, number: int) -> ElectorActor:
    return ElectorActor(
        coordinator=parts.coordinator,
        store=parts.store,
        number=number,
        incarnation=parts.incarnation,
        make_timer=parts.make_timer,
        leads=parts.leads,
    )


def user_actors(declared: Iterable[UserActor], *, cwd: Path) -> tuple[Props, ...]:
    """The actors that settings declare, imported here, since they are meant to run in the node.

    Each has a supervisor, and so a restart budget, of its own. Where that is spent the actor stays
    ended, which the log tells, and the node's jobs go on. Modules are found as the node finds its
    own, then in `cwd`.

    Raises:
        SettingsError: One cannot be imported, is no actor, or does not take its `args`.
    """
    if str(cwd) not in sys.path:
        sys.path.append(str(cwd))
    found, errors = [], []
    for actor in declared:
        try:
            found.append(_user(actor))
        except _NoActor as error:
            errors.append(f"actors: {actor.name}: {actor.target}: {error}")
    if errors:
        raise SettingsError(errors)
    return tuple(found)


class _NoActor(Exception):  # noqa: N818 - never leaves this module
    """What a setting names is not an actor."""


def _user(actor: UserActor) -> Props:
    module_name, _, class_name = actor.target.partition(":")
    try:
        cls = getattr(import_module(module_name), class_name)
    except (Exception, SystemExit) as error:
        raise _NoActor(f"cannot be imported: {type(error).__name__}: {error}") from error
    if not isinstance(cls, type) or not issubclass(cls, Actor):
        raise _NoActor("this is not a class derived from protocols.Actor")
    try:
        inspect.signature(cls).bind(**actor.args)
    except TypeError as error:
        raise _NoActor(f"does not take these args: {error}") from error
    return Props(
        name=actor.name,
        restart="temporary",
        children=(
            Props(
                name=actor.name,
                factory=partial(cls, **actor.args),
                restart=actor.restart,
                mailbox=Mailbox(capacity=actor.mailbox),
            ),
        ),
    )
