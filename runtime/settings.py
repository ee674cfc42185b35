"""A node's settings: the command line, the environment, a file, the default; strongest first.

Every setting has one path (`lease.ttl_s`), one environment name (`RUNTIME_LEASE__TTL_S`), and one
rule. What is unknown or wrong is an error that names its place, and all errors are told at once.
"""

import difflib
import ipaddress
import math
import re
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final
from urllib.parse import urlsplit

import msgspec

from protocols.actor import Restart
from protocols.durations import DurationError, parse_duration
from protocols.errors import TickwrightError
from runtime.files.places import InvalidFileError
from runtime.files.yaml import read_yaml
from runtime.hosts.environment import TASK_VARIABLES

NOT_SETTINGS: Final = TASK_VARIABLES | {"RUNTIME_URL", "RUNTIME_TOKEN", "RUNTIME_TENANT"}
"""Variables of the commands and of tasks, which no node reads."""

_LATER: Final = {
    "etcd": "etcd (a cluster of nodes)",
    "kafka": "Kafka (a cluster of nodes)",
    "cluster": "a cluster of nodes",
}
_DATA_DIR: Final = Path("~/.local/share/tickwright")
_ACTOR_FORM: Final = "{name, class: package.module:Class, args, restart, mailbox}"
_POOL_START: Final = "pools."
_POOL_END: Final = ".slots"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class SettingsError(TickwrightError):
    """Settings are wrong; one line for each."""

    code: ClassVar[str] = "invalid_settings"
    status: ClassVar[int] = 422

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = tuple(lines)


class UserActor(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    rename={"target": "class"},
):
    """An actor of the user's own: `class` is `package.module:Class`, called with `args`."""

    name: Annotated[str, msgspec.Meta(pattern=f"^{_NAME.pattern}\\Z")]
    target: Annotated[str, msgspec.Meta(pattern=r"^[\w.]+:\w+\Z")]
    args: dict[str, Any] = {}
    restart: Restart = "permanent"
    mailbox: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 256


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a node runs by; durations in seconds, paths absolute."""

    data_dir: Path
    node_name: str
    tasks_cwd: Path
    database_url: str | None = None
    database_owner_url: str | None = None
    lease_ttl_s: float = 5.0
    timer_shards: int = 1
    api_host: str = "127.0.0.1"
    api_port: int = 8700
    api_token: str | None = None
    pools: dict[str, int] = msgspec.field(default_factory=lambda: {"default": 64})
    shutdown_grace_s: float = 10.0
    kill_grace_s: float = 5.0
    history_keep_s: float = 30 * 86400.0
    actors: tuple[UserActor, ...] = ()


class _Given(msgspec.Struct, frozen=True):
    """A value and the words for where it came from."""

    value: object
    place: str


class _Wrong(ValueError):  # noqa: N818 - never leaves this module
    """A value that breaks its rule; says what it should be."""


def default_data_dir() -> Path:
    """Where a node keeps its data unless told otherwise: the same from every folder."""
    return _DATA_DIR.expanduser()


def load_settings(
    *,
    config: Path | None,
    environment: Mapping[str, str],
    options: Mapping[str, object],
    cwd: Path,
) -> Settings:
    """Settings from a file, the environment, and options by their path (`api.port`).

    Raises:
        SettingsError: Any of it is unknown or wrong.
    """
    given: dict[str, _Given] = {}
    errors: list[str] = []
    if config is not None:
        _from_file(config, given, errors)
    _from_environment(environment, given, errors)
    for path, value in options.items():
        if value is not None:
            given[path] = _Given(value, f"--{path.rsplit('.', 1)[-1].replace('_', '-')}")
    values: dict[str, Any] = {}
    pools: dict[str, int] = {}
    for path, item in given.items():
        _take(path, item, cwd, values, pools, errors)
    if "data_dir" not in given:
        _take("data_dir", _Given(str(_DATA_DIR), "default"), cwd, values, pools, errors)
    if errors:
        raise SettingsError(errors)
    values.setdefault("node_name", _host_name())
    values.setdefault("tasks_cwd", cwd)
    if pools:
        values["pools"] = {"default": 64, **pools}
    return Settings(**values)


def _take(
    path: str,
    item: _Given,
    cwd: Path,
    values: dict[str, Any],
    pools: dict[str, int],
    errors: list[str],
) -> None:
    section = path.split(".", 1)[0]
    if section in _LATER:
        errors.append(f"{item.place}: {path}: {_LATER[section]} is not built yet; leave it out")
        return
    rule = _rule(path)
    if rule is None:
        errors.append(f"{item.place}: {path}: {_unknown(path)}")
        return
    field, parse = rule
    try:
        value = parse(item.value)
    except (_Wrong, DurationError) as error:
        errors.append(f"{item.place}: {path}: {error}")
        return
    if field == "pools":
        pools[_pool(path)] = value
    elif isinstance(value, Path):
        values[field] = (cwd / value).absolute()
    else:
        values[field] = value


def _rule(path: str) -> tuple[str, Callable[[object], Any]] | None:
    if path.startswith(_POOL_START) and path.endswith(_POOL_END):
        return ("pools", _slots) if _NAME.fullmatch(_pool(path)) else None
    return _RULES.get(path)


def _pool(path: str) -> str:
    """The pool in `pools.NAME.slots`; a name may hold dots."""
    return path[len(_POOL_START) : -len(_POOL_END)]


def _unknown(path: str) -> str:
    near = difflib.get_close_matches(path, [*_RULES, "pools.default.slots"], n=1)
    hint = f'; did you mean "{near[0]}"?' if near else ""
    return f"there is no such setting{hint}"


def _from_file(config: Path, given: dict[str, _Given], errors: list[str]) -> None:
    try:
        document = read_yaml(str(config), config.read_bytes())
    except OSError as error:
        errors.append(f"{config}: cannot be read: {error.strerror}")
        return
    except InvalidFileError as error:
        errors.extend(str(problem) for problem in error.problems)
        return
    if document.data is None:
        return
    if not isinstance(document.data, dict):
        errors.append(f"{config}:1:1: settings are a mapping, such as `api: {{port: 8700}}`")
        return
    for path, value in _leaves(document.data, ()):
        place = document.place(path)
        given[".".join(map(str, path))] = _Given(value, f"{config}:{place.line}:{place.column}")


def _leaves(data: dict[str, Any], path: tuple[str, ...]) -> list[tuple[tuple[str, ...], object]]:
    found: list[tuple[tuple[str, ...], object]] = []
    for key, value in data.items():
        here = (*path, key)
        spelled = ".".join(here)
        if value is None and (spelled in _SECTIONS or _rule(spelled) is not None):
            continue  # all below it is commented out
        known = spelled in _RULES
        found += _leaves(value, here) if isinstance(value, dict) and not known else [(here, value)]
    return found


def _from_environment(
    environment: Mapping[str, str], given: dict[str, _Given], errors: list[str]
) -> None:
    for name in sorted(environment):
        if not name.startswith("RUNTIME_") or name in NOT_SETTINGS:
            continue
        path = name.removeprefix("RUNTIME_").lower().replace("__", ".")
        if _rule(path) is None and path.split(".", 1)[0] not in _LATER:
            errors.append(f"environment {name}: {_unknown(path)}")
        elif path == "actors":
            errors.append(f"environment {name}: actors are declared in the settings file")
        else:
            given[path] = _Given(environment[name], f"environment {name}")


def _host_name() -> str:
    name = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:100].lstrip("._-")
    return name or "node"


def _path(value: object) -> Path:
    try:
        return Path(_text(value)).expanduser()
    except RuntimeError:
        raise _Wrong(f"{value}: there is no such home folder; give a whole path") from None


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise _Wrong("this must be text")
    return value


def _secret(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[\x21-\x7e]{16,512}", value):
        raise _Wrong("a token is 16 to 512 visible ASCII characters")
    return value


def _url(value: object) -> str:
    """A URL of PostgreSQL; never shown, since it may hold a password."""
    form = "this must be a URL such as postgresql://user:password@host:5432/database"
    if not isinstance(value, str) or not re.fullmatch(r"postgres(ql)?://[!-~]*", value):
        raise _Wrong(form)
    hosts = urlsplit(value).netloc.rpartition("@")[2]
    if any(not re.fullmatch(r"(\[[^]]*\]|[^:]*)(:[0-9]{0,5})?", host) for host in hosts.split(",")):
        raise _Wrong(f"{form}; in a password `@`, `:`, `/` and `%` are written %40, %3A, %2F, %25")
    return value


def _name(value: object) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise _Wrong("a name is a letter or digit, then up to 99 letters, digits, `.`, `_` or `-`")
    return value


def _loopback(value: object) -> str:
    host = _text(value)
    try:
        ok = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        ok = False
    if not ok:
        raise _Wrong("the API listens on loopback only: 127.0.0.1, ::1 or localhost")
    return host


def _number(value: object, least: int, most: int, what: str) -> int:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise _Wrong(f"{what} is a whole number from {least} to {most}")
    return value


def _slots(value: object) -> int:
    return _number(value, 1, 100_000, "slots")


def _seconds(least: float, most: float = math.inf) -> Callable[[object], float]:
    def parse(value: object) -> float:
        if value in (0, "0") and least == 0 and not isinstance(value, bool):
            return 0.0
        seconds = parse_duration(value)
        if not least <= seconds <= most:
            bounds = f"{least:g} s or more" if most == math.inf else f"{least:g} s to {most:g} s"
            raise _Wrong(f"this is {seconds:g} s; it must be {bounds}")
        return seconds

    return parse


def _actors(value: object) -> tuple[UserActor, ...]:
    if not isinstance(value, list):
        raise _Wrong(f"actors are a list of {_ACTOR_FORM}")
    found: dict[str, UserActor] = {}
    for number, entry in enumerate(value):
        try:
            actor = msgspec.convert(entry, UserActor)
        except msgspec.ValidationError as error:
            raise _Wrong(f"actor {number + 1}: {error}; one is {_ACTOR_FORM}") from None
        if actor.name in found:
            raise _Wrong(f"actor {number + 1}: the name {actor.name} is taken by another")
        found[actor.name] = actor
    return tuple(found.values())


_RULES: Final[dict[str, tuple[str, Callable[[object], Any]]]] = {
    "data_dir": ("data_dir", _path),
    "node.name": ("node_name", _name),
    "database.url": ("database_url", _url),
    "database.owner_url": ("database_owner_url", _url),
    "lease.ttl_s": ("lease_ttl_s", _seconds(1.5, 300)),
    "timer.shards": ("timer_shards", lambda value: _number(value, 1, 256, "timer.shards")),
    "api.host": ("api_host", _loopback),
    "api.port": ("api_port", lambda value: _number(value, 0, 65535, "a port")),
    "api.token": ("api_token", _secret),
    "shutdown.grace_s": ("shutdown_grace_s", _seconds(0)),
    "tasks.cwd": ("tasks_cwd", _path),
    "tasks.kill_grace_s": ("kill_grace_s", _seconds(0.1)),
    "history.keep": ("history_keep_s", _seconds(86400)),
    "actors": ("actors", _actors),
}

_SECTIONS: Final = frozenset({*(path.split(".")[0] for path in _RULES), "pools"})
