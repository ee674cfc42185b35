"""One incarnation of a node: it joins, runs the tree, and leaves; a new one begins from nothing.

A node that reads its own death in the books ends what it runs, and lives again as another.
"""

import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import anyio
import structlog

from actors.dispatcher.messages import Cease
from actors.heart import Vital
from actors.outbox import OutboxActor, OutboxStatus
from actors.timer.actor import TimerActor
from actors.timing import Cover, StepDown
from actors.worker.actor import Reported
from actors.worker.held import Held
from protocols.actor import Props, Ref
from protocols.messages import PROTOCOL_LEVEL, Hint
from protocols.ports.coordinator import Coordinator, Leadership
from protocols.ports.executor import Report, Sink
from protocols.ports.hints import Hints
from protocols.ports.records import Subscriber
from protocols.ports.store import NodeInfo, Pulse, Term
from runtime.clock import DatabaseClock
from runtime.health import Health
from runtime.hosts.environment import node_python_path
from runtime.hosts.executor import HostExecutor
from runtime.hosts.guardian import Guardian
from runtime.hosts.locks import LockKeeper
from runtime.hosts.python_host import Reserve
from runtime.hosts.settings import HostSettings
from runtime.kernel.system import ActorSystem
from runtime.memory.coordinator import SoleCoordinator
from runtime.memory.hints import LocalHints
from runtime.postgres.store import PostgresStore
from runtime.settings import Settings
from runtime.tree import Parts, PoolParts, node_tree

if TYPE_CHECKING:
    from runtime.cluster.member import Member

log = structlog.get_logger("tickwright.node")

Functions = Mapping[str, Callable[..., Any]]

_SURE_OF_TTL: Final = 0.8
"""Of a TTL after a beat nothing begins any more unless the next one was answered."""


class Life:
    """What lives as long as one incarnation does."""

    def __init__(
        self,
        *,
        settings: Settings,
        store: PostgresStore,
        clock: DatabaseClock,
        health: Health,
        url: str,
        functions: Functions,
        actors: Sequence[Props],
        incarnation: int,
        leaderships: int,
        member: "Member | None" = None,
    ) -> None:
        self.settings = settings
        self.incarnation = incarnation
        self.declared_dead = anyio.Event()
        self.draining = False
        self.drained = anyio.Event()
        self.held = {name: Held(slots=slots) for name, slots in settings.pools.items()}
        self._local = LocalHints(self.lookup, pools=tuple(self.held))
        self._local.cover(leaderships)
        self.hints: Hints = self._local
        self.executors: dict[str, HostExecutor] = {}
        self.locks = LockKeeper(store=store.locks, now=clock.now)
        self.leads: dict[int, int] = {}
        self._store = store
        self._clock = clock
        self._health = health
        self._url = url
        self._functions = functions
        self._actors = actors
        self._leaderships = leaderships
        self._member = member
        self._system: ActorSystem | None = None
        self._beat_began_s = clock.monotonic()
        self._sure_until_s = self._beat_began_s + settings.lease_ttl_s * _SURE_OF_TTL

    @property
    def member(self) -> "Member | None":
        """Its part in the cluster; None where it is alone."""
        return self._member

    @property
    def outbox(self) -> OutboxStatus | None:
        """How telling Kafka goes; None where there is none."""
        return None if self._member is None else self._member.outbox.status

    @property
    def system(self) -> ActorSystem:
        """The actors of this life."""
        assert self._system is not None, "a life begins with `run`"
        return self._system

    def lookup(self, name: str) -> Ref | None:
        """The living actor of that name, if the tree runs."""
        return None if self._system is None else self._system.lookup(name)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Run hosts and actors; stop the actors first, each part with its grace."""
        async with AsyncExitStack() as stack:
            await self._start_hosts(stack)
            coordinator, deliver = await self._enter_cluster(stack)
            parts = Parts(
                settings=self.settings,
                store=self._store,
                hints=self.hints,
                coordinator=coordinator,
                incarnation=self.incarnation,
                leaderships=self._leaderships,
                pools={n: PoolParts(self.executors[n], held) for n, held in self.held.items()},
                leads=self.leads,
                make_timer=self._make_timer,
                vital=self._vital,
                on_pulse=self._on_pulse,
                on_dispatch=self._health.dispatch,
                actors=self._actors,
                deliver=deliver,
                outbox=self._outbox(),
                subscriber=self._subscriber(),
            )
            self._system = ActorSystem(clock=self._clock, tree=node_tree(parts))
            await stack.enter_async_context(self._system)
            stack.callback(self._close_held)
            if self._member is None:
                self._health.begin(timers=range(self._leaderships), pools=self.held)
            else:
                self._health.begin(pools=self.held, led=self.leads)
                await stack.enter_async_context(self._member.reach(self._system, self.incarnation))
            stack.callback(self._health.end)
            yield

    async def _enter_cluster(
        self, stack: AsyncExitStack
    ) -> tuple[Coordinator, Callable[[Hint], None] | None]:
        """Stand among the other nodes, if there are any; what is said elsewhere is heard here."""
        if self._member is None:
            self._coordinator: Coordinator = SoleCoordinator()
            return self._coordinator, None
        hints = self.hints = self._member.hints(
            self._local,
            free={name: partial(getattr, held, "free") for name, held in self.held.items()},
        )
        self._coordinator = await stack.enter_async_context(self._member.run(self.incarnation))
        return self._coordinator, hints.deliver

    def _outbox(self) -> Callable[[], OutboxActor] | None:
        if self._member is None:
            return None
        return partial(self._member.outbox.actor, self._store.outbox, self.incarnation)

    def _subscriber(self) -> Subscriber | None:
        return None if self._member is None else self._member.subscriber(self._store, self.hints)

    def reach_database(self, yes: bool) -> None:  # noqa: FBT001 - the one thing it says
        """Say whether this node can do a leader's work."""
        if self._system is not None:
            self._coordinator.fit(yes)

    async def end_work(self) -> None:
        """End at once all that runs: it is not this incarnation's any more."""
        async with anyio.create_task_group() as group:
            for executor in self.executors.values():
                group.start_soon(executor.stop, 0.0)

    async def _start_hosts(self, stack: AsyncExitStack) -> None:
        """The guardian, the warm processes, and an executor per pool."""
        settings = self.settings
        group = await stack.enter_async_context(anyio.create_task_group())
        stack.callback(group.cancel_scope.cancel)
        guardian = Guardian(owner=f"{settings.node_name}-{settings.data_dir}")
        group.start_soon(guardian.run, name="guardian")
        await guardian.wait_up()
        hosts = HostSettings(
            cwd=str(settings.tasks_cwd),
            python_path=node_python_path(),
            url=self._url,
            kill_grace_s=settings.kill_grace_s,
        )
        reserve = Reserve(guardian, hosts)
        stack.callback(reserve.close)
        group.start_soon(self.locks.run, name="locks")
        stack.push_async_callback(self.locks.close)
        for name in self.held:
            executor = HostExecutor(
                pool=name,
                guardian=guardian,
                reserve=reserve,
                settings=hosts,
                now_ns=self._clock.now_ns,
                sink=self._sink(name),
                locks=self.locks,
                sure=self.sure,
                functions=self._functions,
            )
            group.start_soon(executor.run, name=f"executor {name}")
            stack.push_async_callback(executor.stop, 0.0)
            self.executors[name] = executor

    def _close_held(self) -> None:
        """From here on the end of a worker is the end of what it runs."""
        for held in self.held.values():
            held.closing = True

    def _sink(self, pool: str) -> Sink:
        """Reports are kept where no restart of the worker can lose them, then it is woken."""
        inbox, name, woken = self.held[pool].inbox, f"worker:{pool}", Reported()

        def sink(reports: Sequence[Report]) -> None:
            inbox.extend(reports)
            if (worker := self.lookup(name)) is not None:
                worker.tell(woken)

        return sink

    def _make_timer(self, term: Term, leadership: Leadership) -> TimerActor:
        return TimerActor(
            store=self._store,
            hints=self.hints,
            term=term,
            leadership=leadership,
            on_broken=_tell_broken,
            on_tick=partial(self._health.tick, term.number),
        )

    def sure(self) -> bool:
        """Whether nobody can have declared this life dead: it was heard of a moment ago."""
        return not self.declared_dead.is_set() and self._clock.monotonic() < self._sure_until_s

    def _vital(self) -> Vital:
        self._beat_began_s = self._clock.monotonic()  # one beat is under way at a time
        return Vital(
            running={name: len(held.running) for name, held in self.held.items()},
            leads=dict(self.leads),
            clock_offset_s=self._clock.offset_s,
        )

    def _on_pulse(self, pulse: Pulse) -> None:
        if pulse.state == "dead":
            self.declared_dead.set()
            return
        self._sure_until_s = self._beat_began_s + self.settings.lease_ttl_s * _SURE_OF_TTL
        if self._member is not None:
            self._member.see(self.incarnation, pulse.peers)
        if pulse.state == "draining":
            self._drain()
            return
        if pulse.leaderships != self._leaderships:
            log.info("leaderships regrouped", were=self._leaderships, are=pulse.leaderships)
            self._leaderships = pulse.leaderships
            self._local.cover(pulse.leaderships)
        # At every beat: whoever it was told may have been restarted, with the number of the start.
        self._tell("timing", Cover(pulse.leaderships))

    def _drain(self) -> None:
        """Lead nothing and claim nothing; done when nothing runs any more. Said at every beat."""
        self.draining = True
        self._health.idle("the node is draining")
        self._tell("timing", StepDown())
        self._tell("dags", Cease())
        self._tell("subscriptions", Cease())
        for pool in self.held:
            self._tell(f"dispatcher:{pool}", Cease())
        if not any(held.busy for held in self.held.values()):
            self.drained.set()

    def _tell(self, name: str, message: Any) -> None:
        if (ref := self.lookup(name)) is not None:
            ref.tell(message)


def node_info(settings: Settings, *, url: str) -> NodeInfo:
    """What this process says of itself when it joins."""
    return NodeInfo(
        name=settings.node_name,
        url=url,
        pid=os.getpid(),
        host=socket.gethostname(),
        version=version("tickwright"),
        level=PROTOCOL_LEVEL,
        pools=dict(settings.pools),
    )


def _tell_broken(job_key: int, error: Exception) -> None:
    log.error("a schedule cannot be evaluated", job_key=job_key, error=str(error))
