"""Where etcd is and how to be let in; says what is wrong with that before anything is asked."""

import ssl
from typing import Final
from urllib.parse import urlsplit

import msgspec

from protocols.errors import InvalidError, Problem

_DEFAULT_PORT: Final = 2379
_CALLS_PER_TTL: Final = 5
_CALL_S_MIN: Final = 0.4
_CALL_S_MAX: Final = 3.0


class Endpoint(msgspec.Struct, frozen=True):
    """One member of etcd, as reached from here."""

    protocol: str
    host: str
    port: int

    @property
    def url(self) -> str:
        """Without a slash at its end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.protocol}://{host}:{self.port}"


class EtcdSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the coordinator needs to know.

    `ca`, `cert` and `key` are paths of PEM files: whom to believe, and who we are.
    """

    endpoints: tuple[str, ...]
    """URLs, or `host:port` for plain HTTP."""
    cluster: str = "tickwright"
    """All keys begin with `/{cluster}/`."""
    ttl_s: float = 5.0
    """The lease asked for; what etcd grants is what is trusted."""
    user: str | None = None
    password: str | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    def __repr__(self) -> str:
        """Without the password, since what is shown ends in a log one day."""
        return f"EtcdSettings({', '.join(self.endpoints)}; {self.cluster})"

    @property
    def prefix(self) -> str:
        """What all keys begin with."""
        return f"/{self.cluster}/"

    @property
    def call_s(self) -> float:
        """How long one member may take to answer before another is asked, in seconds."""
        return min(_CALL_S_MAX, max(_CALL_S_MIN, self.ttl_s / _CALLS_PER_TTL))


def endpoints(settings: EtcdSettings) -> tuple[Endpoint, ...]:
    """Read the endpoints.

    Raises:
        InvalidError: One is no address, or there is none.
    """
    problems, found = [], []
    for index, text in enumerate(settings.endpoints):
        try:
            found.append(_endpoint(text))
        except ValueError as error:
            problems.append(Problem(("etcd", "endpoints", index), str(error)))
    if not found and not problems:
        problems.append(Problem(("etcd", "endpoints"), "name at least one etcd endpoint"))
    if problems:
        raise InvalidError(tuple(problems))
    return tuple(found)


def _endpoint(text: str) -> Endpoint:
    parts = urlsplit(text if "://" in text else f"http://{text}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("an etcd endpoint is http://host:port, https://host:port or host:port")
    if parts.username or parts.password or parts.path.strip("/") or parts.query:
        raise ValueError("an etcd endpoint is an address only; user and password are settings")
    return Endpoint(parts.scheme, parts.hostname, parts.port or _DEFAULT_PORT)


def tls(settings: EtcdSettings) -> ssl.SSLContext:
    """Believe the CA given (else the machine's), check the server's name, and show who we are.

    Raises:
        InvalidError: A file cannot be read, or is not what it should be.
    """
    field = "ca"
    try:
        context = ssl.create_default_context(cafile=settings.ca)
        if settings.cert:
            field = "cert"
            # Asked for on the terminal, a passphrase would hold the start for ever.
            context.load_cert_chain(settings.cert, settings.key, password="")
    except (OSError, ValueError) as error:
        message = f"this cannot be used for TLS: {error}"
        raise InvalidError((Problem(("etcd", field), message),)) from error
    return context
