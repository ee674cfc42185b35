"""The doctor's look at etcd and Kafka: each endpoint, its release, how it lets us in, its room.

Only for settings of a cluster, so that a single node's doctor needs neither client.
"""

import time
from typing import Final

import anyio
import msgspec
from aiokafka.admin import AIOKafkaAdminClient
from etcd3.errors import Etcd3Exception

from protocols.errors import InvalidError, UnavailableError
from runtime.cli.checks import Check
from runtime.cluster.member import etcd_settings, kafka_settings
from runtime.etcd.client import EtcdClient, trouble_of
from runtime.etcd.settings import EtcdSettings
from runtime.kafka.client import ERRORS, KafkaSettings, describe, new_admin, own_cancels_only
from runtime.kafka.topics import inbox_topic
from runtime.settings import Settings

_WITHIN_S: Final = 5.0
_SLOW_OF_TTL: Final = 0.1
_ETCD_MEND: Final = "check `etcd.endpoints`, `etcd.user` and the certificates, and that it runs"
_KAFKA_MEND: Final = (
    "check `kafka.bootstrap_servers`, `kafka.user` and the certificates, and that its brokers run"
)
_WITHOUT_ETCD: Final = "without etcd nothing fires; what runs goes on"
_WITHOUT_KAFKA: Final = "without Kafka work is found by polling"


async def check_cluster(settings: Settings) -> list[Check]:
    """Each endpoint of etcd, and Kafka."""
    if not settings.clustered:
        return []
    etcd, several = etcd_settings(settings), len(settings.etcd_endpoints) > 1
    checks = [await _endpoint(etcd, one, several=several) for one in settings.etcd_endpoints]
    if several:
        checks.append(_quorum(sum(check.state in {"ok", "warning"} for check in checks), checks))
    return [*checks, await _kafka(kafka_settings(settings), settings)]


async def _endpoint(settings: EtcdSettings, url: str, *, several: bool) -> Check:
    """One member: whether it lets us in and reads from a quorum, and how fast."""
    one = msgspec.structs.replace(settings, endpoints=(url,))
    try:
        with anyio.fail_after(_WITHIN_S):
            async with EtcdClient(one) as client:
                version = await client.learn_version()
                began = time.monotonic()
                await client.reach(lambda: client.range(f"{one.prefix}doctor".encode()))
                took_s = time.monotonic() - began
    except InvalidError as error:
        return Check(name="etcd", state="wrong", said=f"{url}: {error}", mend=_ETCD_MEND)
    except (UnavailableError, TimeoutError, OSError, Etcd3Exception) as error:
        why = "no answer in time" if isinstance(error, TimeoutError) else str(error)
        said = f"{url}: {why}; {_WITHOUT_ETCD}" if not several else f"{url}: {why}"
        return Check(name="etcd", state="degraded", said=said, mend=_ETCD_MEND)
    said = f"{url}: etcd {version}, {_secured(one)}, a read took {took_s * 1000:.1f} ms"
    trouble = trouble_of(version)
    if trouble is not None:
        return Check(name="etcd", state="warning", said=f"{said}; {trouble}", mend="upgrade it")
    if took_s > settings.ttl_s * _SLOW_OF_TTL:
        mend = "give etcd a faster disk, or raise `lease.ttl_s`"
        return Check(name="etcd", state="warning", said=f"{said}, which is slow", mend=mend)
    return Check(name="etcd", state="ok", said=said)


def _secured(settings: EtcdSettings) -> str:
    tls = "TLS" if settings.endpoints[0].startswith("https") else "no TLS"
    return f"{tls}, user {settings.user}" if settings.user else f"{tls}, no user"


def _quorum(well: int, checks: list[Check]) -> Check:
    said = f"{well} of {len(checks)} endpoints answer"
    if well == len(checks):
        return Check(name="etcd", state="ok", said=said)
    if well:
        return Check(name="etcd", state="warning", said=said, mend="start the others")
    return Check(name="etcd", state="degraded", said=f"{said}; {_WITHOUT_ETCD}", mend=_ETCD_MEND)


async def _kafka(settings: KafkaSettings, of: Settings) -> Check:
    """Its brokers, against what topics ask for, and this node's inbox."""
    topic = inbox_topic(of.cluster_name, of.node_name)
    try:
        with own_cancels_only(), anyio.fail_after(_WITHIN_S):
            brokers, topics = await _look(settings)
    except ValueError as error:
        return Check(name="kafka", state="wrong", said=str(error), mend=_KAFKA_MEND)
    except ERRORS as error:
        said = f"{','.join(settings.bootstrap_servers)}: {describe(error)}; {_WITHOUT_KAFKA}"
        return Check(name="kafka", state="degraded", said=said, mend=_KAFKA_MEND)
    secured = settings.security_protocol
    inbox = f"inbox {topic}" if topic in topics else f"inbox {topic} (made at the node's start)"
    said = (
        f"{brokers} brokers, {secured}, {inbox}"
        if brokers != 1
        else f"1 broker, {secured}, {inbox}"
    )
    if brokers < settings.replication_factor:
        said = f"{said}; `kafka.replication_factor` is {settings.replication_factor}"
        mend = "start more brokers, or lower it: topics cannot be made"
        return Check(name="kafka", state="degraded", said=said, mend=mend)
    return Check(name="kafka", state="ok", said=said)


async def _look(settings: KafkaSettings) -> tuple[int, frozenset[str]]:
    """How many brokers there are, and which topics."""
    admin: AIOKafkaAdminClient = new_admin(settings)
    try:
        await admin.start()
        cluster = await admin.describe_cluster()
        return len(cluster["brokers"]), frozenset(await admin.list_topics())
    finally:
        with anyio.move_on_after(_WITHIN_S, shield=True):
            await admin.close()
