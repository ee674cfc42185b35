"""Settings: each by its path, its environment name, its rule; what is wrong has its place."""

import pytest

from runtime.hosts.environment import TASK_VARIABLES
from runtime.setting_rules import RULES
from runtime.settings import SettingsError, load_settings

GIVEN = {
    "data_dir": ("data", "data_dir"),
    "node.name": ("n1", "node_name"),
    "database.url": ("postgresql://u:p@h:5432/d", "database_url"),
    "database.owner_url": ("postgres://u@h/d", "database_owner_url"),
    "lease.ttl_s": ("3", "lease_ttl_s"),
    "timer.shards": ("4", "timer_shards"),
    "api.host": ("::1", "api_host"),
    "api.port": ("0", "api_port"),
    "api.token": ("x" * 16, "api_token"),
    "shutdown.grace_s": ("0", "shutdown_grace_s"),
    "tasks.cwd": ("/", "tasks_cwd"),
    "tasks.kill_grace_s": ("2s", "kill_grace_s"),
    "history.keep": ("2d", "history_keep_s"),
    "cluster.name": ("c1", "cluster_name"),
    "etcd.endpoints": ("e1:2379, e2:2379", "etcd_endpoints"),
    "etcd.user": ("u", "etcd_user"),
    "etcd.password": ("p", "etcd_password"),
    "etcd.ca": ("ca.pem", "etcd_ca"),
    "etcd.cert": ("cert.pem", "etcd_cert"),
    "etcd.key": ("key.pem", "etcd_key"),
    "kafka.bootstrap_servers": ("k1:9092,k2:9092", "kafka_bootstrap_servers"),
    "kafka.tls": ("true", "kafka_tls"),
    "kafka.ca": ("ca.pem", "kafka_ca"),
    "kafka.cert": ("cert.pem", "kafka_cert"),
    "kafka.key": ("key.pem", "kafka_key"),
    "kafka.sasl_mechanism": ("PLAIN", "kafka_sasl_mechanism"),
    "kafka.user": ("u", "kafka_user"),
    "kafka.password": ("p", "kafka_password"),
    "kafka.replication_factor": ("3", "kafka_replication_factor"),
    "kafka.inbox_retention": ("1h", "kafka_inbox_retention_s"),
    "kafka.events_retention": ("1d", "kafka_events_retention_s"),
    "kafka.format": ("msgpack", "kafka_format"),
}
CLUSTER = {
    "RUNTIME_DATABASE__URL": "postgresql://h/d",
    "RUNTIME_ETCD__ENDPOINTS": "h:2379",
    "RUNTIME_KAFKA__BOOTSTRAP_SERVERS": "h:9092",
}
TOGETHER = {
    "RUNTIME_KAFKA__TLS": "true",
    "RUNTIME_ETCD__USER": "u",
    "RUNTIME_ETCD__PASSWORD": "p",
    "RUNTIME_ETCD__CERT": "c",
    "RUNTIME_ETCD__KEY": "k",
    "RUNTIME_KAFKA__CERT": "c",
    "RUNTIME_KAFKA__KEY": "k",
    "RUNTIME_KAFKA__USER": "u",
    "RUNTIME_KAFKA__PASSWORD": "p",
    "RUNTIME_KAFKA__SASL_MECHANISM": "SCRAM-SHA-512",
}
"""Settings that are given together, or that need others beside them."""
ANY_TEXT = {path for path in GIVEN if path.rpartition(".")[2] in {"user", "password"}}
ANY_PATH = {"data_dir", "tasks.cwd"} | {
    path for path in GIVEN if path.rpartition(".")[2] in {"ca", "cert", "key"}
}


def load(tmp_path, *, text=None, environment=None, **options):
    config = None
    if text is not None:
        config = tmp_path / "node.yaml"
        config.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_settings(
        config=config, environment=environment or {}, options=options, cwd=tmp_path
    )


def wrong(tmp_path, **given) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, **given)
    return [line.replace(f"{tmp_path}/", "") for line in caught.value.lines]


def test_every_setting_is_tried_here():
    assert set(GIVEN) | {"actors"} == set(RULES)


@pytest.mark.parametrize("path", GIVEN)
def test_every_setting_has_an_environment_name(path, tmp_path):
    text, field = GIVEN[path]
    name = "RUNTIME_" + path.replace(".", "__").upper()
    beside = {**CLUSTER, **TOGETHER} if path.startswith(("etcd.", "kafka.")) else {}
    loaded = getattr(load(tmp_path, environment={**beside, name: text}), field)
    assert loaded != getattr(load(tmp_path), field)
    for bad in ("", "\0", "[1]", "nan"):
        if (bad == "[1]" and path in ANY_PATH | ANY_TEXT) or (
            bad == "nan" and path in ANY_PATH | ANY_TEXT | {"node.name", "cluster.name"}
        ):
            continue  # a strange name, and a name all the same
        (line,) = wrong(tmp_path, environment={**beside, name: bad})
        assert line.startswith(f"environment {name}: {path}: ")


@pytest.mark.parametrize("bad", [True, [], {}, {"a": {}}, -1, 10**400, 0.1])
def test_numbers_are_numbers(bad, tmp_path):
    for path in ("api.port", "timer.shards", "pools.default.slots", "lease.ttl_s"):
        assert wrong(tmp_path, **{path: bad})[0].startswith("--")
    if bad not in (0.1, 10**400):
        assert wrong(tmp_path, **{"shutdown.grace_s": bad})


def test_the_strongest_wins_and_the_default_pool_stays(tmp_path):
    text = "api: {port: 1}\nnode: {name: file}\npools:\n  heavy.io: {slots: 3}\n"
    settings = load(
        tmp_path,
        text=text,
        environment={"RUNTIME_API__PORT": "2", "RUNTIME_POOLS__MORE__SLOTS": "5"},
        **{"api.port": 3},
    )
    assert (settings.api_port, settings.node_name) == (3, "file")
    assert settings.pools == {"default": 64, "heavy.io": 3, "more": 5}


def test_variables_of_commands_and_tasks_are_no_settings_and_others_are_errors(tmp_path):
    load(
        tmp_path, environment=dict.fromkeys([*TASK_VARIABLES, "RUNTIME_URL", "RUNTIME_TOKEN"], "x")
    )
    lines = wrong(tmp_path, environment={"RUNTIME_API__PROT": "1", "RUNTIME_KAFKA__X": "1"})
    assert 'did you mean "api.port"?' in lines[0]
    assert "there is no such setting" in lines[1]


@pytest.mark.parametrize("missing", CLUSTER)
def test_a_cluster_needs_its_database_etcd_and_kafka(missing, tmp_path):
    assert load(tmp_path, environment=CLUSTER).clustered
    rest = {name: text for name, text in CLUSTER.items() if name != missing}
    path = missing.removeprefix("RUNTIME_").lower().replace("__", ".")
    (line,) = wrong(tmp_path, environment=rest)
    assert line.endswith(f"a cluster needs {path} as well")


def test_a_certificate_without_tls_is_refused_and_not_ignored(tmp_path):
    (line,) = wrong(tmp_path, environment={**CLUSTER, "RUNTIME_KAFKA__CA": "ca.pem"})
    assert line.endswith("kafka.ca: kafka.tls is missing")
    explicit = {"RUNTIME_KAFKA__CA": "ca.pem", "RUNTIME_KAFKA__TLS": "true"}
    assert load(tmp_path, environment={**CLUSTER, **explicit}).kafka_tls


@pytest.mark.parametrize("missing", TOGETHER)
def test_halves_of_a_key_and_of_a_login_need_each_other(missing, tmp_path):
    rest = {name: text for name, text in TOGETHER.items() if name != missing}
    lines = wrong(tmp_path, environment={**CLUSTER, **rest})
    path = missing.removeprefix("RUNTIME_").lower().replace("__", ".")
    assert any(line.endswith("is missing") and path in line for line in lines)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("RUNTIME_ETCD__ENDPOINTS", "ftp://h:1"),
        ("RUNTIME_ETCD__ENDPOINTS", "http://h:1,https://h:2"),
        ("RUNTIME_ETCD__ENDPOINTS", "http://u:p@h:1"),
        ("RUNTIME_ETCD__ENDPOINTS", "h"),
        ("RUNTIME_KAFKA__BOOTSTRAP_SERVERS", "h:0"),
        ("RUNTIME_KAFKA__BOOTSTRAP_SERVERS", "h:65536"),
        ("RUNTIME_KAFKA__BOOTSTRAP_SERVERS", "h:1,,h:2"),
        ("RUNTIME_KAFKA__TLS", "maybe"),
        ("RUNTIME_KAFKA__FORMAT", "xml"),
    ],
)
def test_what_no_server_could_be_reached_by_is_refused(name, text, tmp_path):
    (line,) = wrong(tmp_path, environment={**CLUSTER, name: text})
    assert line.startswith(f"environment {name}: ")


def test_addresses_are_a_list_in_a_file_and_are_spelled_out(tmp_path):
    text = (
        "database: {url: postgresql://h/d}\netcd: {endpoints: [h:1, 'http://[::1]:2']}\n"
        "kafka: {bootstrap_servers: [h:1, h:1]}\n"
    )
    settings = load(tmp_path, text=text)
    assert settings.etcd_endpoints == ("http://h:1", "http://[::1]:2")
    assert settings.kafka_bootstrap_servers == ("h:1",)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("- a\n", "node.yaml:1:1: settings are a mapping"),
        ("5", "node.yaml:1:1: settings are a mapping"),
        ("api: {port: x}", "node.yaml:1:13: api.port: a port is a whole number from 0 to 65535"),
        ("apis:\n", "node.yaml:1:6: apis: there is no such setting"),
        ("api:\n  port:\n   a: 1\n", "node.yaml:3:4: api.port: a port is a whole number"),
        (b"a: \xff", "node.yaml:1:1: this is not UTF-8 text"),
        ("pools: {'a b': {slots: 1}}", "node.yaml:1:24: pools.a b.slots: there is no such"),
        ("database: {url: 'mysql://x'}", "node.yaml:1:17: database.url: this must be a URL"),
        ("etcd: {endpoints: x}", "node.yaml:1:19: etcd.endpoints: 'x' is not an address"),
        ("actors: {}", "node.yaml:1:9: actors: actors are a list of {name, class"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_place(text, line, tmp_path):
    assert wrong(tmp_path, text=text)[0].startswith(line)


def test_a_section_that_is_all_commented_out_is_no_error(tmp_path):
    settings = load(tmp_path, text="api:\n#  port: 1\ndatabase:\n  url:\npools:\n")
    assert (settings.api_port, settings.database_url) == (8700, None)


@pytest.mark.parametrize("url", ["postgresql://u:p:w@h:x/d", "postgresql://u:p@h:99999999/d"])
def test_a_wrong_url_is_refused_and_never_shown(url, tmp_path):
    (line,) = wrong(tmp_path, **{"database.url": url})
    assert "this must be a URL" in line
    assert "p:w" not in line
    assert "u:p@" not in line


def test_a_home_that_is_not_there_is_told(tmp_path, monkeypatch):
    (line,) = wrong(tmp_path, environment={"RUNTIME_DATA_DIR": "~nobody-of-that-name/x"})
    assert "no such home folder" in line


@pytest.mark.parametrize(
    ("actor", "said"),
    [
        ("{name: a}", "missing required field `class`"),
        ("{name: a b, class: 'm:C'}", "$.name"),
        ("{name: a, class: m}", "$.class"),
        ("{name: a, class: 'm:C', restart: always}", "'always'"),
        ("{name: a, class: 'm:C', mailbox: 0}", ">= 1"),
        ("{name: a, class: 'm:C', mailbox: x}", "$.mailbox"),
        ("{name: a, class: 'm:C', args: [1]}", "$.args"),
        ("{name: a, class: 'm:C', arg: {}}", "unknown field `arg`"),
        ("5", "Expected `object`"),
    ],
)
def test_an_actor_is_held_to_its_form(actor, said, tmp_path):
    good = "{name: one, class: 'm.n:Good', args: {x: 1}, restart: transient, mailbox: 9}"
    (line,) = wrong(tmp_path, text=f"actors:\n  - {good}\n  - {actor}\n")
    assert line.startswith("node.yaml:2:3: actors: actor 2: ")
    assert said in line


def test_actors_are_read_and_their_names_are_their_own(tmp_path):
    text = "actors: [{name: one, class: 'm.n:Good', args: {x: 1}, restart: transient}]"
    (actor,) = load(tmp_path, text=text).actors
    assert (actor.name, actor.target, actor.args, actor.restart) == (
        "one",
        "m.n:Good",
        {"x": 1},
        "transient",
    )
    twice = "actors: [{name: a, class: 'm:C'}, {name: a, class: 'm:D'}]"
    assert "is taken by another" in wrong(tmp_path, text=twice)[0]
