"""What a member of a cluster refuses at once: clients not installed, files of no use for TLS."""

import sys
from pathlib import Path

import pytest

from runtime.node import open_node
from runtime.settings import Settings, SettingsError

pytestmark = pytest.mark.asyncio

CLUSTER = {
    "database_url": "postgresql://127.0.0.1:1/none",
    "etcd_endpoints": ("http://127.0.0.1:1",),
    "kafka_bootstrap_servers": ("127.0.0.1:1",),
}


def settings(tmp_path: Path, **more: object) -> Settings:
    given = {**CLUSTER, **more}
    return Settings(data_dir=tmp_path, node_name="a", tasks_cwd=tmp_path, api_port=0, **given)


async def refused(wrong: Settings) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        async with open_node(wrong):
            pytest.fail("it started")
    return caught.value.lines


@pytest.mark.parametrize("client", ["etcd3", "aiokafka"])
async def test_clients_that_are_not_installed_are_asked_for_by_name(tmp_path, monkeypatch, client):
    for name in [n for n in sys.modules if n.startswith((client, "runtime.cluster", "runtime.e"))]:
        monkeypatch.delitem(sys.modules, name)
    for name in [n for n in sys.modules if n.startswith("runtime.kafka")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, client, None)
    (line,) = await refused(settings(tmp_path))
    assert "pip install 'tickwright[cluster]'" in line
    assert client in line


async def test_files_of_no_use_for_tls_are_refused_before_anything_is_waited_for(tmp_path):
    (tmp_path / "ca.pem").write_text("no certificate")
    wrong = settings(
        tmp_path,
        etcd_endpoints=("https://127.0.0.1:1",),
        etcd_ca=tmp_path / "ca.pem",
        kafka_tls=True,
        kafka_ca=tmp_path / "missing.pem",
    )
    etcd, kafka = await refused(wrong)
    assert etcd.startswith("etcd.ca: this cannot be used for TLS")
    assert kafka.startswith("kafka: the certificates cannot be read")
