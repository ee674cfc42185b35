"""A node's membership: its way to the others, and its standing for election, for one life."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
import structlog

from actors.records import RecordTriggers
from actors.relay import RELAY
from protocols.errors import InvalidError
from protocols.messages import Hint
from protocols.ports.hints import Hints
from protocols.ports.records import Record
from protocols.ports.store import Peer, RecordStore
from runtime.clock import DatabaseClock
from runtime.cluster.hints import ClusterHints
from runtime.cluster.living import Living
from runtime.cluster.outbox import Outbox
from runtime.etcd.coordinator import EtcdCoordinator
from runtime.etcd.settings import EtcdSettings, endpoints, tls
from runtime.health import Health
from runtime.kafka.client import KafkaSettings, Protocol, connection
from runtime.kafka.publisher import KafkaPublisher
from runtime.kafka.subscriber import KafkaSubscriber
from runtime.kafka.transport import KafkaTransport
from runtime.kernel.remote import Remoting
from runtime.kernel.system import ActorSystem
from runtime.peers import Peers
from runtime.settings import Settings, SettingsError

log = structlog.get_logger("tickwright.cluster")

_PROTOCOLS: Final[dict[tuple[bool, bool], Protocol]] = {
    (False, False): "PLAINTEXT",
    (False, True): "SSL",
    (True, False): "SASL_PLAINTEXT",
    (True, True): "SASL_SSL",
}
"""By whether there is a login, and whether there is TLS."""
_DRAIN_S: Final = 1.0
"""For what was said last to leave; a poll stands behind all of it."""


class Member:
    """One life's part in the cluster.

    `prepare` before the node joins, so that no message to it can be missed; then `run`.
    """

    def __init__(self, settings: Settings, *, clock: DatabaseClock, health: Health) -> None:
        self._settings = settings
        self._clock = clock
        self._health = health
        self.peers = Peers()
        self._living = Living(settings.lease_ttl_s)
        self.remoting: Remoting | None = None
        self.transport = KafkaTransport(
            kafka_settings(settings),
            cluster=settings.cluster_name,
            name=settings.node_name,
            now_ns=clock.now_ns,
            on_state=self._teller("kafka"),
        )
        self.outbox = Outbox(
            KafkaPublisher(
                kafka_settings(settings),
                cluster=settings.cluster_name,
                form=settings.kafka_format,
                retention_s=settings.kafka_events_retention_s,
            ),
            ttl_s=settings.lease_ttl_s,
            tell=self._teller("outbox"),
        )
        self.records: RecordTriggers | None = None
        self._subscriber: KafkaSubscriber | None = None

    async def prepare(self) -> None:
        """Mark where the inbox ends; with Kafka away, it is read from where it is found later."""
        await self.transport.prepare()

    @asynccontextmanager
    async def run(self, incarnation: int) -> AsyncIterator[EtcdCoordinator]:
        """Stand for election and carry messages, until the block is left."""
        coordinator = EtcdCoordinator(
            etcd_settings(self._settings),
            name=self._settings.node_name,
            incarnation=incarnation,
            on_state=self._teller("etcd"),
        )
        async with anyio.create_task_group() as group:
            group.start_soon(coordinator.run, name="coordinator")
            group.start_soon(self.transport.run, name="transport")
            try:
                yield coordinator
                await self.transport.drain(_DRAIN_S)
            finally:
                group.cancel_scope.cancel()
        for part in ("etcd", "kafka", "outbox", "kafka_triggers"):
            self._health.mend(part)

    @asynccontextmanager
    async def reach(self, system: ActorSystem, incarnation: int) -> AsyncIterator[None]:
        """Let this system's actors and those of other nodes reach each other, and read topics."""
        with Remoting(
            system,
            node=incarnation,
            name=self._settings.node_name,
            peers=self.peers,
            transport=self.transport,
        ) as remoting:
            self.remoting = remoting
            async with anyio.create_task_group() as group:
                if self._subscriber is not None:
                    group.start_soon(self._subscriber.run, name="subscriber")
                try:
                    yield
                finally:
                    group.cancel_scope.cancel()
        self.remoting = None

    def subscriber(self, store: RecordStore, hints: Hints) -> KafkaSubscriber:
        """What reads topics for the jobs of `store`; it does so while `reach` lasts."""
        self.records = RecordTriggers(
            store=store,
            hints=hints,
            cluster=self._settings.cluster_name,
            now=self._clock.now,
            on_omitted=_tell_omitted,
        )
        self._subscriber = KafkaSubscriber(
            kafka_settings(self._settings),
            take=self.records.take,
            since=self.records.since,
            on_state=self._teller("kafka_triggers"),
        )
        return self._subscriber

    def hints(self, local: Hints, *, free: Mapping[str, Callable[[], int]]) -> ClusterHints:
        """Hints that reach other nodes; `free` tells of each pool here how many slots are free."""
        return ClusterHints(
            local, peers=self.peers, post=self.post, free=free, now_s=self._clock.monotonic
        )

    def see(self, incarnation: int, living: tuple[Peer, ...]) -> None:
        """Take over who lives, as the last beat was told."""
        others = (peer for peer in living if peer.incarnation != incarnation)
        self.peers.update(self._living.judge(others, self._clock.monotonic()))

    def post(self, node: int | None, hint: Hint) -> None:
        """Send a hint to another node, or to all of them; it may be lost."""
        if self.remoting is not None:
            self.remoting.post(node, RELAY, hint)

    def _teller(self, part: str) -> Callable[[str | None], None]:
        def tell(reason: str | None) -> None:
            if reason is None:
                if self._health.mend(part):
                    log.info("back", part=part)
            elif self._health.trouble(part, reason):
                log.warning("away", part=part, error=reason)

        return tell


def _tell_omitted(record: Record) -> None:
    log.warning(
        "a record is larger than an input may be: its value is left out",
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        value_bytes=len(record.value or b""),
    )


def check_settings(settings: Settings) -> None:
    """Read the files that TLS needs, before anything waits for a server.

    Raises:
        SettingsError: One is of no use.
    """
    lines, etcd = [], etcd_settings(settings)
    try:
        if any(endpoint.protocol == "https" for endpoint in endpoints(etcd)):
            tls(etcd)
    except InvalidError as error:
        lines += [f"{'.'.join(map(str, p.path))}: {p.message}" for p in error.problems]
    try:
        connection(kafka_settings(settings))
    except ValueError as error:
        lines.append(str(error))
    if lines:
        raise SettingsError(lines)


def etcd_settings(settings: Settings) -> EtcdSettings:
    """The part of a node's settings that is etcd's."""
    return EtcdSettings(
        endpoints=settings.etcd_endpoints,
        cluster=settings.cluster_name,
        ttl_s=settings.lease_ttl_s,
        user=settings.etcd_user,
        password=settings.etcd_password,
        ca=_path(settings.etcd_ca),
        cert=_path(settings.etcd_cert),
        key=_path(settings.etcd_key),
    )


def kafka_settings(settings: Settings) -> KafkaSettings:
    """The part of a node's settings that is Kafka's."""
    return KafkaSettings(
        bootstrap_servers=settings.kafka_bootstrap_servers,
        security_protocol=_PROTOCOLS[settings.kafka_sasl_mechanism is not None, settings.kafka_tls],
        sasl_mechanism=settings.kafka_sasl_mechanism or "PLAIN",
        user=settings.kafka_user,
        password=settings.kafka_password,
        ca=_path(settings.kafka_ca),
        cert=_path(settings.kafka_cert),
        key=_path(settings.kafka_key),
        replication_factor=settings.kafka_replication_factor or 0,
        inbox_retention_s=settings.kafka_inbox_retention_s,
    )


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path)
