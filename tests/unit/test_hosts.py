"""The hosts of a database's URL, one by one, as they are asked."""

import pytest

from runtime.postgres.hosts import addresses_of, name_of
from runtime.settings import SettingsError, load_settings


@pytest.mark.parametrize(
    ("hosts", "names"),
    [
        ("a:1,b:2", ["a:1", "b:2"]),
        ("a,b:6432", ["a:5432", "b:6432"]),
        ("[::1]:1,[fe80::1]", ["[::1]:1", "[fe80::1]:5432"]),
    ],
)
def test_each_host_is_asked_by_itself(hosts, names):
    arguments = {"dsn": f"postgresql://user:p%2Cw@{hosts}/database?target_session_attrs=primary"}
    assert [name_of(address) for address in addresses_of(arguments)] == names


@pytest.mark.parametrize(
    "arguments",
    [
        {"dsn": "postgresql://user@host:5432/database"},
        {"dsn": "postgresql:///database?host=a,b"},
        {"host": "/run/postgresql", "port": 5432},
        {"dsn": "postgresql://a,b/database", "host": "c"},
    ],
)
def test_one_host_and_what_asyncpg_alone_reads_is_left_to_it(arguments):
    assert addresses_of(arguments) == ({},)


def test_a_port_that_is_none_is_refused_by_the_settings(tmp_path):
    for port in ("99999", "0"):
        with pytest.raises(SettingsError, match="port"):
            load_settings(
                config=None,
                environment={"RUNTIME_DATABASE__URL": f"postgresql://u@a:1,b:{port}/d"},
                options={},
                cwd=tmp_path,
            )
