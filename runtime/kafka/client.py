"""How this node connects to Kafka: settings, and the clients made of them; the one way in."""

import asyncio
import logging
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, Literal

import anyio
import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.cluster import ClusterMetadata
from aiokafka.errors import KafkaError

REQUEST_TIMEOUT_MS: Final = 8_000
"""No single request to a broker takes longer; a batch that has not left by then is given up."""

RETRY_BACKOFF_MS: Final = 100

STOP_S: Final = 2.0
"""A client that cannot say good-bye in this time is left without one."""

CANCEL_AGAIN_S: Final = 0.1
"""A task that goes on after a cancel (a loop that took it for a part's) is cancelled again."""

ERRORS: Final = (KafkaError, OSError, TimeoutError, AssertionError)
"""What aiokafka raises when a broker, a topic or the way there is the matter.

An assertion among them: a partition that a topic does not have (any more) is one in `_partition`.
"""

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


class KafkaSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the brokers are, and how they are spoken to.

    Certificates are paths of PEM files. A replication factor of 0 is the broker's default.
    """

    bootstrap_servers: tuple[str, ...]
    security_protocol: Protocol = "PLAINTEXT"
    sasl_mechanism: Mechanism = "PLAIN"
    user: str | None = None
    password: str | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    replication_factor: int = 0
    inbox_retention_s: float = 600.0

    def __repr__(self) -> str:
        return f"KafkaSettings({','.join(self.bootstrap_servers)}, {self.security_protocol})"


def connection(settings: KafkaSettings) -> dict[str, Any]:
    """What every client of aiokafka takes alike.

    Raises:
        ValueError: A certificate or key cannot be read, or user and password are missing.
    """
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it repeats each failed try; we tell
    options: dict[str, Any] = {
        "bootstrap_servers": list(settings.bootstrap_servers),
        "security_protocol": settings.security_protocol,
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
        "retry_backoff_ms": RETRY_BACKOFF_MS,
    }
    if settings.security_protocol in ("SSL", "SASL_SSL"):
        options["ssl_context"] = _tls(settings)
    if settings.security_protocol in ("SASL_PLAINTEXT", "SASL_SSL"):
        if not settings.user or not settings.password:
            raise ValueError(f"kafka: {settings.security_protocol} needs a user and a password")
        options["sasl_mechanism"] = settings.sasl_mechanism
        options["sasl_plain_username"] = settings.user
        options["sasl_plain_password"] = settings.password
    return options


def _tls(settings: KafkaSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca)
        if settings.cert is not None:
            # Asked for on the terminal, a passphrase would hold the start for ever.
            context.load_cert_chain(settings.cert, settings.key, password="")
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"kafka: the certificates cannot be read: {error}") from error
    return context


def new_producer(settings: KafkaSettings, **options: Any) -> AIOKafkaProducer:
    """An idempotent producer that waits for all replicas and lingers for nobody; not started."""
    return AIOKafkaProducer(
        **connection(settings), acks="all", enable_idempotence=True, linger_ms=0, **options
    )


def new_consumer(settings: KafkaSettings, **options: Any) -> AIOKafkaConsumer:
    """A consumer that commits only what it is told to; not started."""
    return AIOKafkaConsumer(**connection(settings), enable_auto_commit=False, **options)


def new_admin(settings: KafkaSettings) -> AIOKafkaAdminClient:
    """A client that makes topics; not started."""
    return AIOKafkaAdminClient(**connection(settings))


def describe(error: BaseException) -> str:
    """An error of Kafka's in one line for a person."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    text = " ".join(str(error).split()).removeprefix("KafkaError: ")
    return (text or type(error).__name__)[:300]


@contextmanager
def own_cancels_only() -> Iterator[None]:
    """Turn a cancel that nobody asked for into an error.

    aiokafka cancels what waits on a connection that was closed, and a task that let that out would
    end as if it had been cancelled itself: without a word, and for ever.

    Raises:
        KafkaError: A connection was closed under what was awaited.
    """
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise KafkaError("the connection was closed") from None


async def probe(consumer: AIOKafkaConsumer, topic: str) -> None:
    """Ask the brokers whether they are there, and the topic with them; of that topic only.

    Raises:
        KafkaError: None answers, or the topic is gone.
    """
    found = ClusterMetadata()
    client = consumer._client  # noqa: SLF001 - its public question is for all topics there are
    if not await client._metadata_update(found, [topic]):  # noqa: SLF001
        raise KafkaError("no broker answers")
    if not found.partitions_for_topic(topic):
        raise KafkaError(f"topic {topic} is gone")


async def stop_consumer(consumer: AIOKafkaConsumer) -> None:
    """Let it go, whether or not the broker hears of it.

    Its own `stop` ends half way: where a fetch that waits to be tried again is cancelled, the
    client stays; where it is cut short, so does the membership in the group, whose heartbeats keep
    partitions from everybody else.
    """
    brief = anyio.move_on_after(STOP_S, shield=True)
    try:
        with suppress(*ERRORS), own_cancels_only(), brief:
            await consumer.stop()
    finally:
        await _end(consumer._client, consumer._coordinator, consumer._fetcher)  # noqa: SLF001


async def abandon_producer(producer: AIOKafkaProducer) -> None:
    """End it at once, with what it has in hand; whoever gave it that still has it.

    Its own `stop` waits for batches to leave, which they may never do, and cutting that short
    leaves its tasks behind.
    """
    producer._closed = True  # noqa: SLF001 - what `stop` would set
    await _end(producer.client, producer._sender)  # noqa: SLF001


async def _end(client: AIOKafkaClient, *parts: object) -> None:
    """End every task of a client and of what uses it, then its connections.

    aiokafka has no public way to end what does not answer.
    """
    owners = [owner for owner in (client, *parts) if owner is not None]
    brief = anyio.move_on_after(STOP_S, shield=True)
    with suppress(*ERRORS), own_cancels_only(), brief:
        while left := [task for task in asyncio.all_tasks() if _is_one_of(_self_of(task), owners)]:
            for task in left:
                task.cancel()
                task.add_done_callback(_look_at)
            await asyncio.wait(left, timeout=CANCEL_AGAIN_S)
        for connection in list(client._conns.values()):  # noqa: SLF001
            writer = connection._writer  # noqa: SLF001
            connection.close()
            if writer is not None:  # what a broker that stands still never reads would keep it open
                writer.transport.abort()
        await client.close()


def _self_of(task: "asyncio.Task[Any]") -> object:
    """Whose method a task runs."""
    frame = getattr(task.get_coro(), "cr_frame", None)
    return None if frame is None else frame.f_locals.get("self")


def _is_one_of(thing: object, things: Iterable[object]) -> bool:
    return any(thing is one for one in things)


def _look_at(task: "asyncio.Task[Any]") -> None:
    """What a task that was ended has to say, nobody wants to know; the loop would tell it."""
    if not task.cancelled():
        task.exception()
