"""An embedded PostgreSQL keeps its data, keeps to its folder, and keeps others out."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import asyncpg
import psutil
import pytest

from runtime.postgres.embedded import binaries, place
from tests.support.embedded import (
    Node,
    Told,
    as_root,
    ask,
    embedded,
    gone,
    server_processes,
    wait_until,
)

pytestmark = pytest.mark.postgres


def shape(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid


def mode(path: Path) -> int:
    return shape(path)[0]


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def kernel_says(pid: int, field: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":", 1) for line in lines)[field].strip()


@pytest.mark.asyncio
async def test_what_was_committed_is_there_after_a_stop_and_a_start(land: Path) -> None:
    told = Told()
    async with embedded(land, told=told) as server:
        await ask(server.connection, "CREATE TABLE kept AS SELECT 7 AS n")
        first_pid, first_settings = server.pid, server.connection
    async with embedded(land, told=told) as server:
        assert await ask(server.connection, "SELECT n FROM kept") == 7
        assert server.connection == first_settings
        assert server.pid != first_pid
    assert told.names() == [
        "postgres_created",
        "postgres_started",
        "postgres_stopped",
        "postgres_started",
        "postgres_stopped",
    ]
    assert server_processes(land) == []


@pytest.mark.asyncio
async def test_a_stop_at_once_loses_nothing_either(land: Path) -> None:
    server = embedded(land)
    settings = await server.start()
    await ask(settings, "CREATE TABLE kept AS SELECT 7 AS n")
    await server.stop(at_once=True)
    await server.stop()
    async with embedded(land) as again:
        assert await ask(again.connection, "SELECT n FROM kept") == 7
    assert server_processes(land) == []


@pytest.mark.asyncio
async def test_the_settings_that_promises_rest_on(land: Path) -> None:
    (land / "data" / "postgres").mkdir(parents=True)
    # Neither the user's file nor ALTER SYSTEM takes durability away, or opens a port.
    (land / "data" / "postgres" / "local.conf").write_text(
        "fsync = off\nfull_page_writes = off\nlisten_addresses = '*'\nwork_mem = '9MB'\n"
    )
    (land / "data").chmod(0o711)
    (land / "data" / "postgres").chmod(0o711)
    expected = {
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        "listen_addresses": "",
        "data_checksums": "on",
        "jit": "off",
        "TimeZone": "UTC",
        "password_encryption": "scram-sha-256",
        "idle_in_transaction_session_timeout": "1min",
        "work_mem": "9MB",
        "server_encoding": "UTF8",
    }
    async with embedded(land) as server:
        for name, value in expected.items():
            assert await ask(server.connection, "SELECT current_setting($1)", name) == value, name
        locale = "SELECT datlocprovider::text || datlocale FROM pg_database WHERE datname = $1"
        assert await ask(server.connection, locale, "tickwright") == "bC.UTF-8"


@pytest.mark.asyncio
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
async def test_modes_do_not_depend_on_the_umask_and_nothing_outside_is_touched(
    land: Path, umask: int
) -> None:
    parents = [*land.parents, land]
    before = {path: shape(path) for path in parents}
    earlier = os.umask(umask)
    try:
        async with embedded(land) as server:
            home = server.place.home
            assert home == land / "data" / "postgres"
            assert mode(home / "data") == mode(home / "run") == 0o700
            assert mode(land / "data" / "secrets.json") == 0o600
            assert mode(land / "data" / "node.lock") == 0o600
            assert mode(home / "postgres.log") == 0o600
            assert mode(home / "run" / ".s.PGSQL.5432") == 0o700
            assert mode(land / "data") == (0o711 if os.geteuid() == 0 else 0o700)
            password = server.credentials.owner
            readable = [path for path in files(land) if mode(path) & 0o077]
            assert not [p for p in readable if password.encode() in p.read_bytes()]
    finally:
        os.umask(earlier)
    assert {path: shape(path) for path in parents} == before
    assert names(land) == {"data"}
    assert names(land / "data") == {"node.lock", "postgres", "secrets.json"}
    assert Path("/var/lib/tickwright") == place.OUTSIDE


@pytest.mark.asyncio
async def test_only_the_password_opens_it_and_no_port_does(land: Path) -> None:
    async with embedded(land) as server:
        right = server.connection
        assert right.password not in repr(right)
        assert right.password not in repr(server.credentials)
        for user, password in (("tickwright", "wrong"), ("tickwright", ""), ("postgres", "wrong")):
            with pytest.raises(asyncpg.InvalidPasswordError):
                await ask(right.as_role(user, password), "SELECT 1")
        processes = [psutil.Process(server.pid), *psutil.Process(server.pid).children()]
        assert [c for process in processes for c in process.net_connections("inet")] == []
        assert right.password not in " ".join(psutil.Process(server.pid).cmdline())
        verifier = "SELECT rolpassword FROM pg_authid WHERE rolname = 'tickwright'"
        assert str(await ask(right, verifier)).startswith("SCRAM-SHA-256$")


@pytest.mark.asyncio
async def test_nothing_of_the_nodes_environment_reaches_it(
    land: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME_TOKEN", "a-secret")
    monkeypatch.setenv("PGPORT", "6543")
    monkeypatch.setenv("PGDATA", "/nowhere")
    async with embedded(land) as server:
        environment = psutil.Process(server.pid).environ()
    assert set(environment) == {"PATH", "LC_ALL", "TZ"}


@pytest.mark.asyncio
async def test_a_path_too_long_for_a_socket_address_is_no_obstacle(land: Path) -> None:
    deep = land / ("d" * 120) / ("e 'quoted', " * 4) / "data"
    deep.parent.mkdir(parents=True)
    for folder in (deep.parent, deep.parent.parent):
        folder.chmod(0o711)
    async with embedded(land, data=deep) as server:
        assert len(str(server.place.run)) > 107
        assert await ask(server.connection, "SELECT 1") == 1
        assert (server.place.run / ".s.PGSQL.5432").is_socket()
    assert server_processes(land) == []


@as_root
@pytest.mark.asyncio
async def test_as_root_a_user_that_exists_runs_it_with_none_of_roots_groups(land: Path) -> None:
    users = pwd.getpwall()
    async with embedded(land) as server:
        process = psutil.Process(server.pid)
        uid = process.uids().real
        assert uid != 0
        assert set(process.uids()) == {uid}
        assert kernel_says(server.pid, "Groups") == ""
        assert int(kernel_says(server.pid, "CapEff"), 16) == 0
        home = server.place.home
        assert shape(home / "data")[1] == shape(home / "run")[1] == uid
        # What says how it is run is out of its hands.
        for ours in (home, home / "postgresql.conf", home / "pg_hba.conf", land / "data"):
            assert shape(ours)[1] == 0
    assert pwd.getpwall() == users


@as_root
@pytest.mark.asyncio
async def test_a_data_directory_out_of_that_users_reach_has_its_cluster_elsewhere(
    land: Path,
) -> None:
    closed = land / "closed"
    closed.mkdir(mode=0o700)
    data = closed / "data"
    data.mkdir(mode=0o700)
    before = [shape(path) for path in (closed, data)]
    async with embedded(land, data=data) as server:
        await ask(server.connection, "CREATE TABLE kept AS SELECT 7 AS n")
        home = server.place.home
        assert home.parent == land / "outside" / "nodes"
        assert (data / "postgres").readlink() == home
        assert mode(home / "data") == mode(home / "run") == 0o700
    assert [shape(path) for path in (closed, data)] == before
    # The record moves with the data directory.
    moved = closed / "moved"
    data.rename(moved)
    async with embedded(land, data=moved) as server:
        assert server.place.home == home
        assert await ask(server.connection, "SELECT n FROM kept") == 7


@as_root
@pytest.mark.asyncio
async def test_programs_out_of_that_users_reach_are_copied_once(
    land: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = binaries.locate().parent
    closed = land / "closed"
    closed.mkdir(mode=0o700)
    (closed / wheel.name).symlink_to(wheel)
    libraries = wheel.parent / f"{wheel.name}.libs"
    (closed / libraries.name).symlink_to(libraries)
    monkeypatch.setattr(binaries, "locate", lambda: closed / wheel.name / binaries.INSTALLATION)
    (land / "outside" / "binaries" / ".18-0123456789abcdef.part").mkdir(parents=True)
    copies = []
    for _ in range(2):
        async with embedded(land) as server:
            copies.append(Path(psutil.Process(server.pid).exe()))
            assert await ask(server.connection, "SELECT 1") == 1
    assert copies[0] == copies[1]
    assert copies[0].is_relative_to(land / "outside" / "binaries")
    assert shape(copies[0]) == (0o755, 0, 0)
    copied = files(land / "outside" / "binaries")
    assert {shape(path)[1] for path in copied} == {0}
    assert not [path for path in copied if mode(path) & 0o022]


@as_root
def test_an_ordinary_user_runs_it_as_itself(land: Path) -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    # The interpreter often lies in root's home: it may be read there, and no more than that.
    ordinary = ["setpriv", f"--reuid={nobody}", f"--regid={nobody}", "--clear-groups"]
    ordinary += ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
    ordinary += ["--bounding-set=-all,+dac_read_search"]
    try:
        subprocess.run([*ordinary, sys.executable, "-c", ""], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no ordinary user can run this interpreter: {error}")
    data = land / "data"
    data.mkdir(mode=0o700)
    os.chown(data, nobody, nobody)
    node = Node(land, prefix=ordinary)
    try:
        node.read_until(3)
        assert psutil.Process(node.server_pid).uids().real == nobody
        owners = {path.lstat().st_uid for path in data.rglob("*")}
        assert owners == {nobody}
        assert not (land / "outside").exists()
    finally:
        node.kill()
    wait_until(lambda: gone(node.server_pid), "the server follows its node")
    shutil.rmtree(data)


@as_root
@pytest.mark.asyncio
async def test_root_takes_over_what_an_ordinary_user_made_and_leaves_it_to_that_user(
    land: Path,
) -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    data = land / "data"
    data.mkdir(mode=0o700)
    os.chown(data, nobody, nobody)
    async with embedded(land) as server:
        assert psutil.Process(server.pid).uids().real == nobody
        assert shape(server.place.data)[1] == nobody
