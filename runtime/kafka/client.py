"""How this node connects to Kafka: settings, and the clients made of them; the one way in."""

import logging
import ssl
from typing import Any, Final, Literal

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

REQUEST_TIMEOUT_MS: Final = 8_000
"""No single request to a broker takes longer; a batch that has not left by then is given up."""

RETRY_BACKOFF_MS: Final = 100

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
            context.load_cert_chain(settings.cert, settings.key)
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
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:300]
