"""A node's settings: the command line, the environment, a file, the default; strongest first.

Every setting has one path (`lease.ttl_s`), one environment name (`RUNTIME_LEASE__TTL_S`), and one
rule. What is unknown or wrong is an error that names its place, and all errors are told at once.
"""

import difflib
import re
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

import msgspec

from protocols.durations import DurationError
from protocols.errors import TickwrightError
from runtime.files.places import InvalidFileError
from runtime.files.yaml import read_yaml
from runtime.hosts.environment import TASK_VARIABLES
from runtime.setting_rules import (
    NAME,
    RULES,
    EventFormat,
    KafkaMechanism,
    UserActor,
    Wrong,
    slots,
)

NOT_SETTINGS: Final = TASK_VARIABLES | {"RUNTIME_URL", "RUNTIME_TOKEN", "RUNTIME_TENANT"}
"""Variables of the commands and of tasks, which no node reads."""

_DATA_DIR: Final = Path("~/.local/share/tickwright")
_POOL_START: Final = "pools."
_POOL_END: Final = ".slots"
_CLUSTER_NEEDS: Final = ("database.url", "etcd.endpoints", "kafka.bootstrap_servers")


class SettingsError(TickwrightError):
    """Settings are wrong; one line for each."""

    code: ClassVar[str] = "invalid_settings"
    status: ClassVar[int] = 422

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = tuple(lines)


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
    cluster_name: str = "tickwright"
    etcd_endpoints: tuple[str, ...] = ()
    etcd_user: str | None = None
    etcd_password: str | None = None
    etcd_ca: Path | None = None
    etcd_cert: Path | None = None
    etcd_key: Path | None = None
    kafka_bootstrap_servers: tuple[str, ...] = ()
    kafka_tls: bool = False
    kafka_ca: Path | None = None
    kafka_cert: Path | None = None
    kafka_key: Path | None = None
    kafka_sasl_mechanism: KafkaMechanism | None = None
    kafka_user: str | None = None
    kafka_password: str | None = None
    kafka_replication_factor: int | None = None
    """None: the brokers' own default."""
    kafka_inbox_retention_s: float = 600.0
    kafka_events_retention_s: float = 7 * 86400.0
    kafka_format: EventFormat = "json"

    @property
    def clustered(self) -> bool:
        """Whether this node shares its database with others, by etcd and Kafka."""
        return bool(self.etcd_endpoints)


class _Given(msgspec.Struct, frozen=True):
    """A value and the words for where it came from."""

    value: object
    place: str


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
    _check_whole(given, errors)
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
    rule = _rule(path)
    if rule is None:
        errors.append(f"{item.place}: {path}: {_unknown(path)}")
        return
    field, parse = rule
    try:
        value = parse(item.value)
    except (Wrong, DurationError) as error:
        errors.append(f"{item.place}: {path}: {error}")
        return
    if field == "pools":
        pools[_pool(path)] = value
    elif isinstance(value, Path):
        values[field] = (cwd / value).absolute()
    else:
        values[field] = value


def _check_whole(given: Mapping[str, _Given], errors: list[str]) -> None:
    """What only makes sense together: the parts of a cluster, the halves of a key and a login."""
    chosen = [path for path in given if path.startswith(("etcd.", "kafka."))]
    if chosen:
        missing = [path for path in _CLUSTER_NEEDS if path not in given]
        if missing:
            errors.append(
                f"{given[chosen[0]].place}: {chosen[0]}: a cluster needs {' and '.join(missing)} "
                "as well"
            )
    for first, second in (
        ("etcd.user", "etcd.password"),
        ("etcd.cert", "etcd.key"),
        ("kafka.cert", "kafka.key"),
        ("kafka.user", "kafka.password"),
        ("kafka.user", "kafka.sasl_mechanism"),
    ):
        if (first in given) != (second in given):
            there, lacking = (first, second) if first in given else (second, first)
            errors.append(f"{given[there].place}: {there}: {lacking} is missing")
    errors += [
        f"{given[path].place}: {path}: kafka.tls is missing"  # all would go out in the open
        for path in ("kafka.ca", "kafka.cert")
        if path in given and "kafka.tls" not in given
    ]


def _rule(path: str) -> tuple[str, Callable[[object], Any]] | None:
    if path.startswith(_POOL_START) and path.endswith(_POOL_END):
        return ("pools", slots) if NAME.fullmatch(_pool(path)) else None
    return RULES.get(path)


def _pool(path: str) -> str:
    """The pool in `pools.NAME.slots`; a name may hold dots."""
    return path[len(_POOL_START) : -len(_POOL_END)]


def _unknown(path: str) -> str:
    near = difflib.get_close_matches(path, [*RULES, "pools.default.slots"], n=1)
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
        known = spelled in RULES
        found += _leaves(value, here) if isinstance(value, dict) and not known else [(here, value)]
    return found


def _from_environment(
    environment: Mapping[str, str], given: dict[str, _Given], errors: list[str]
) -> None:
    for name in sorted(environment):
        if (
            not name.startswith("RUNTIME_")
            or name in NOT_SETTINGS
            or name.startswith("RUNTIME_REF_")
        ):
            continue
        path = name.removeprefix("RUNTIME_").lower().replace("__", ".")
        if _rule(path) is None:
            errors.append(f"environment {name}: {_unknown(path)}")
        elif path == "actors":
            errors.append(f"environment {name}: actors are declared in the settings file")
        else:
            given[path] = _Given(environment[name], f"environment {name}")


def _host_name() -> str:
    name = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:100].lstrip("._-")
    return name or "node"


_SECTIONS: Final = frozenset({*(path.split(".")[0] for path in RULES), "pools"})
