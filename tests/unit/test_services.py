"""The rules of scripts/services that need no server: versions, ports, jars, roles, answers."""

from __future__ import annotations

import os
import socket
import struct
import tempfile
import threading
from pathlib import Path

import pytest

from scripts.serving import jars, pairs, teams
from scripts.serving.etcd import bears_kills
from scripts.serving.kafka import alive_brokers
from scripts.serving.processes import ServiceError


@pytest.fixture(autouse=True)
def claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep claims of ports in a folder of the test's own."""
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path / f"tickwright-ports-{os.geteuid()}"


def made(folder: Path, kind: str, count: int | None = None) -> teams.Team:
    folder.mkdir(exist_ok=True)
    return teams.load_or_make(folder, kind, count)


@pytest.mark.parametrize(
    ("version", "bears"),
    [
        ("3.3.27", False),
        ("3.4.21", False),
        ("3.4.22", True),
        ("3.4.23", True),
        ("3.5.1", False),
        ("3.5.5", False),
        ("3.5.6", True),
        ("3.6.5", True),
        ("3.6.0-rc.1", True),
    ],
)
def test_which_etcd_keeps_what_it_acknowledged(version: str, bears: bool):
    assert bears_kills(version) is bears


def test_names_and_ports_are_kept(tmp_path: Path):
    team = made(tmp_path / "a", "etcd", 3)
    assert [member.name for member in team.members] == ["etcd-1", "etcd-2", "etcd-3"]
    assert made(tmp_path / "a", "etcd") == team
    assert made(tmp_path / "a", "kafka").members[0].name == "kafka"
    with pytest.raises(ServiceError, match="has 3 of etcd, not 1"):
        made(tmp_path / "a", "etcd", 1)


def test_no_port_is_given_twice(tmp_path: Path):
    ports = [
        port
        for folder in "abcd"
        for kind, count in teams.MOST.items()
        for member in made(tmp_path / folder, kind, count).members
        for port in (member.port, member.peer_port)
    ]
    assert len(ports) == len(set(ports)) == 4 * 2 * sum(teams.MOST.values())


def test_a_released_or_removed_set_gives_its_ports_back(
    tmp_path: Path, claims: Path, monkeypatch: pytest.MonkeyPatch
):
    start = made(tmp_path / "a", "postgres").members[0].port
    monkeypatch.setattr(teams, "PORTS", range(start, start + teams.BLOCK))
    with pytest.raises(ServiceError, match="no 16 free ports"):
        made(tmp_path / "b", "postgres")
    teams.release(tmp_path / "a")
    assert made(tmp_path / "b", "postgres").members[0].port == start
    (tmp_path / "b" / "ports").unlink()
    assert made(tmp_path / "c", "postgres").members[0].port == start
    assert [claim.readlink() for claim in claims.iterdir()] == [tmp_path / "c"]
    teams.release(tmp_path / "c")
    assert not claims.exists()
    made(tmp_path / "d", "postgres")
    (claims / str(start)).unlink()
    teams.release(tmp_path / "d")
    assert not claims.exists()


def test_a_damaged_set_is_told_with_its_file(tmp_path: Path):
    (tmp_path / "etcd.json").write_text("{")
    with pytest.raises(ServiceError, match=r"etcd\.json cannot be read"):
        teams.load(tmp_path, "etcd")


def test_jars_are_told_from_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    listed = tmp_path / "list"
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    listed.write_text(f"{empty}  a.jar\n{empty}  b.jar\n{empty}  c.jar\n")
    monkeypatch.setattr(jars, "HASHES", listed)
    folder = tmp_path / "libs"
    folder.mkdir()
    (folder / "a.jar").touch()
    (folder / "b.jar").write_text("changed")
    (folder / "d.jar").touch()
    wrong = jars.differences(folder)
    assert wrong == ["c.jar is missing", "b.jar differs", "d.jar is unknown"]


def test_every_jar_has_one_hash():
    lines = [line.split() for line in jars.HASHES.read_text().splitlines()]
    assert len({name for _, name in lines}) == len(lines) == 46
    assert all(len(digest) == 64 for digest, _ in lines)


def test_only_the_primary_waits_and_only_the_other_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pairs, "_password", lambda _: "secret")
    team = made(tmp_path / "a", "postgres", 2)
    first, second = team.members
    roles = pairs.load_roles(tmp_path / "a", team)
    assert roles == pairs.Roles(primary="postgres-1")
    alone = pairs.settings(tmp_path / "a", team, first, roles)
    assert alone == {"synchronous_standby_names": "''"}
    roles = pairs.Roles(primary="postgres-2", synchronous="postgres-1")
    pairs.save_roles(tmp_path / "a", roles)
    assert pairs.load_roles(tmp_path / "a", team) == roles
    waits = pairs.settings(tmp_path / "a", team, second, roles)
    assert waits == {"synchronous_standby_names": "'\"postgres-1\"'"}
    follows = pairs.settings(tmp_path / "a", team, first, roles)
    assert f"port={second.port} " in follows["primary_conninfo"]
    assert "application_name=postgres-1" in follows["primary_conninfo"]


def metadata(*brokers: tuple[int, str | None]) -> bytes:
    body = struct.pack(">iii", 1, 0, len(brokers))
    for number, rack in brokers:
        body += struct.pack(">ih", number, 4) + b"host" + struct.pack(">i", 9092)
        body += struct.pack(">h", -1) if rack is None else struct.pack(">h", len(rack))
        body += (rack or "").encode()
    return struct.pack(">i", len(body)) + body


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (metadata((1, None), (3, "rack"), (2, None)), {1, 2, 3}),
        (metadata(), set()),
        (b"", struct.error),
        (metadata((1, None))[:20], struct.error),
    ],
    ids=["three", "none", "hung up", "cut short"],
)
def test_brokers_are_read_from_an_answer(answer: bytes, found):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            talk, _ = server.accept()
            with talk:
                talk.recv(1024)
                talk.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        port = server.getsockname()[1]
        try:
            if isinstance(found, set):
                assert alive_brokers(port) == found
            else:
                with pytest.raises(found):
                    alive_brokers(port)
        finally:
            thread.join()
