"""The rule of each setting: what it may be, and the field of `Settings` that it fills."""

import ipaddress
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args
from urllib.parse import urlsplit

import msgspec

from protocols.actor import Restart
from protocols.durations import parse_duration

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ACTOR_FORM: Final = "{name, class: package.module:Class, args, restart, mailbox}"
_ADDRESS: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")
_MOST_ADDRESSES: Final = 32
_LAST_PORT: Final = 65535

EventFormat = Literal["json", "msgpack"]
KafkaMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


class UserActor(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    rename={"target": "class"},
):
    """An actor of the user's own: `class` is `package.module:Class`, called with `args`."""

    name: Annotated[str, msgspec.Meta(pattern=f"^{NAME.pattern}\\Z")]
    target: Annotated[str, msgspec.Meta(pattern=r"^[\w.]+:\w+\Z")]
    args: dict[str, Any] = {}
    restart: Restart = "permanent"
    mailbox: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 256


class Wrong(ValueError):  # noqa: N818 - a setting's error is told by its place
    """A value that breaks its rule; says what it should be."""


def _path(value: object) -> Path:
    try:
        return Path(_text(value)).expanduser()
    except RuntimeError:
        raise Wrong(f"{value}: there is no such home folder; give a whole path") from None


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise Wrong("this must be text")
    return value


def _secret(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[\x21-\x7e]{16,512}", value):
        raise Wrong("a token is 16 to 512 visible ASCII characters")
    return value


def _url(value: object) -> str:
    """A URL of PostgreSQL; never shown, since it may hold a password."""
    form = "this must be a URL such as postgresql://user:password@host:5432/database"
    if not isinstance(value, str) or not re.fullmatch(r"postgres(ql)?://[!-~]*", value):
        raise Wrong(form)
    hosts = urlsplit(value).netloc.rpartition("@")[2]
    if any(not re.fullmatch(r"(\[[^]]*\]|[^:]*)(:[0-9]{0,5})?", host) for host in hosts.split(",")):
        raise Wrong(f"{form}; in a password `@`, `:`, `/` and `%` are written %40, %3A, %2F, %25")
    ports = [host.rpartition("]")[2].rpartition(":")[2] for host in hosts.split(",") if ":" in host]
    if any(port and not 1 <= int(port) <= _LAST_PORT for port in ports):
        raise Wrong(f"{form}; a port is a number from 1 to {_LAST_PORT}")
    return value


def _name(value: object) -> str:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise Wrong("a name is a letter or digit, then up to 99 letters, digits, `.`, `_` or `-`")
    return value


def _loopback(value: object) -> str:
    host = _text(value)
    try:
        ok = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        ok = False
    if not ok:
        raise Wrong("the API listens on loopback only: 127.0.0.1, ::1 or localhost")
    return host


def _number(value: object, least: int, most: int, what: str) -> int:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise Wrong(f"{what} is a whole number from {least} to {most}")
    return value


def slots(value: object) -> int:
    """How many executions a pool runs at once."""
    return _number(value, 1, 100_000, "slots")


def _seconds(least: float, most: float = math.inf) -> Callable[[object], float]:
    def parse(value: object) -> float:
        if value in (0, "0") and least == 0 and not isinstance(value, bool):
            return 0.0
        seconds = parse_duration(value)
        if not least <= seconds <= most:
            bounds = f"{least:g} s or more" if most == math.inf else f"{least:g} s to {most:g} s"
            raise Wrong(f"this is {seconds:g} s; it must be {bounds}")
        return seconds

    return parse


def _actors(value: object) -> tuple[UserActor, ...]:
    if not isinstance(value, list):
        raise Wrong(f"actors are a list of {_ACTOR_FORM}")
    found: dict[str, UserActor] = {}
    for number, entry in enumerate(value):
        try:
            actor = msgspec.convert(entry, UserActor)
        except msgspec.ValidationError as error:
            raise Wrong(f"actor {number + 1}: {error}; one is {_ACTOR_FORM}") from None
        if actor.name in found:
            raise Wrong(f"actor {number + 1}: the name {actor.name} is taken by another")
        found[actor.name] = actor
    return tuple(found.values())


def _addresses(value: object) -> tuple[str, ...]:
    """Several `host:port`: a list, or text with commas between."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list) or not 1 <= len(parts) <= _MOST_ADDRESSES:
        raise Wrong(f"this is 1 to {_MOST_ADDRESSES} addresses, host:port, with commas between")
    found = []
    for part in parts:
        match = _ADDRESS.fullmatch(part.strip()) if isinstance(part, str) else None
        if match is None or not 1 <= int(match[2]) <= _LAST_PORT:
            raise Wrong(f"{part!r} is not an address such as host:9092")
        found.append(match[0])
    return tuple(dict.fromkeys(found))


def _endpoints(value: object) -> tuple[str, ...]:
    """Several URLs of etcd: all by http or all by https."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise Wrong("these are URLs such as http://host:2379, with commas between")
    schemes, bare = set(), []
    for part in parts:
        scheme, found, address = part.strip().rstrip("/").rpartition("://")
        if found and scheme not in {"http", "https"}:
            raise Wrong(f"{part!r} is not a URL such as http://host:2379")
        schemes.add(scheme or "http")
        bare.append(address)
    addresses = _addresses(bare)
    if len(schemes) > 1:
        raise Wrong("these are all http or all https")
    return tuple(f"{next(iter(schemes))}://{address}" for address in addresses)


def _password(value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise Wrong("this must be text")
    return value


def _flag(value: object) -> bool:
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in known:
        return known[value.lower()]
    raise Wrong("this is true or false")


def _one_of(words: tuple[str, ...]) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if value not in words:
            raise Wrong(f"this is one of {', '.join(words)}")
        return str(value)

    return parse


def _cluster(value: object) -> str:
    """Also a part of Kafka topics' names, which may be 249 characters long."""
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise Wrong(
            "a cluster's name is a letter or digit, then up to 99 letters, digits, `.`, `_` or `-`"
        )
    return value


RULES: Final[dict[str, tuple[str, Callable[[object], Any]]]] = {
    "data_dir": ("data_dir", _path),
    "node.name": ("node_name", _name),
    "database.url": ("database_url", _url),
    "database.owner_url": ("database_owner_url", _url),
    "lease.ttl_s": ("lease_ttl_s", _seconds(1.5, 300)),
    "timer.shards": ("timer_shards", lambda value: _number(value, 1, 256, "timer.shards")),
    "api.host": ("api_host", _loopback),
    "api.port": ("api_port", lambda value: _number(value, 0, _LAST_PORT, "a port")),
    "api.token": ("api_token", _secret),
    "shutdown.grace_s": ("shutdown_grace_s", _seconds(0)),
    "tasks.cwd": ("tasks_cwd", _path),
    "tasks.kill_grace_s": ("kill_grace_s", _seconds(0.1)),
    "history.keep": ("history_keep_s", _seconds(86400)),
    "actors": ("actors", _actors),
    "cluster.name": ("cluster_name", _cluster),
    "etcd.endpoints": ("etcd_endpoints", _endpoints),
    "etcd.user": ("etcd_user", _text),
    "etcd.password": ("etcd_password", _password),
    "etcd.ca": ("etcd_ca", _path),
    "etcd.cert": ("etcd_cert", _path),
    "etcd.key": ("etcd_key", _path),
    "kafka.bootstrap_servers": ("kafka_bootstrap_servers", _addresses),
    "kafka.tls": ("kafka_tls", _flag),
    "kafka.ca": ("kafka_ca", _path),
    "kafka.cert": ("kafka_cert", _path),
    "kafka.key": ("kafka_key", _path),
    "kafka.sasl_mechanism": ("kafka_sasl_mechanism", _one_of(get_args(KafkaMechanism))),
    "kafka.user": ("kafka_user", _text),
    "kafka.password": ("kafka_password", _password),
    "kafka.replication_factor": (
        "kafka_replication_factor",
        lambda value: _number(value, 1, 100, "kafka.replication_factor"),
    ),
    "kafka.inbox_retention": ("kafka_inbox_retention_s", _seconds(60)),
    "kafka.events_retention": ("kafka_events_retention_s", _seconds(60)),
    "kafka.format": ("kafka_format", _one_of(get_args(EventFormat))),
}
