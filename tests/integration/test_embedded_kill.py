"""Whatever is killed, nothing that was acknowledged is lost, and nothing runs on unattended."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import anyio
import psutil
import pytest

from runtime.postgres.embedded.process import kill_session, spawn
from runtime.postgres.errors import SAID
from tests.support.embedded import (
    Node,
    Told,
    ask,
    embedded,
    gone,
    server_processes,
    wait_until,
)
from tests.support.folders import walkable_folder

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def worn(reachable_wheel: None) -> Iterator[Path]:
    """Give a land whose one cluster goes through every kill in turn."""
    with walkable_folder() as land:
        yield land


async def numbers(land: Path, told: Told | None = None) -> set[int]:
    async with embedded(land, told=told) as server:
        found = "SELECT coalesce(array_agg(n), '{}') FROM numbers"
        return set(await ask(server.connection, found))


@pytest.mark.asyncio
async def test_kill_9_of_the_node_loses_nothing_acknowledged(worn: Path) -> None:
    chance = random.Random(20)
    acknowledged: set[int] = set()
    for _ in range(4):
        node = Node(worn)
        try:
            node.read_until(chance.randrange(1, 200))
            first = node.server_pid
        finally:
            node.kill()
        acknowledged.update(node.acknowledged)
    assert acknowledged <= await numbers(worn)
    assert gone(first)
    assert server_processes(worn) == []


def test_kill_9_of_the_node_ends_its_server_though_nobody_starts_again(worn: Path) -> None:
    node = Node(worn)
    try:
        node.read_until(5)
    finally:
        node.kill()
    wait_until(lambda: gone(node.server_pid), "the server follows its node")
    wait_until(lambda: not server_processes(worn), "nothing of it is left")


@pytest.mark.asyncio
@pytest.mark.parametrize("moved", [False, True])
async def test_a_server_that_outlived_node_and_watchdog_is_ended_by_the_next_start(
    worn: Path,
    moved: bool,
) -> None:
    node = Node(worn)
    try:
        node.read_until(5)
        for child in psutil.Process(node.pid).children():
            if child.pid != node.server_pid:
                child.kill()
    finally:
        node.kill()
    assert not gone(node.server_pid)
    told = Told()
    if moved:
        (worn / "data").rename(worn / "moved")
        (worn / "data").symlink_to(worn / "moved")
    assert set(node.acknowledged) <= await numbers(worn, told)
    assert told.facts("postgres_orphan_stopped") == {"pid": node.server_pid}
    assert gone(node.server_pid)
    assert server_processes(worn) == []


@pytest.mark.asyncio
@pytest.mark.parametrize("victim", ["postmaster", "backend", "all"])
async def test_kill_9_of_postgresql_under_a_running_node_is_mended(worn: Path, victim: str) -> None:
    told = Told()
    async with embedded(worn, told=told) as server, asyncio.TaskGroup() as group:
        supervisor = group.create_task(server.supervise())
        await ask(server.connection, "DROP TABLE IF EXISTS kept")
        await ask(server.connection, "CREATE TABLE kept (n int)")
        for number in range(20):
            await ask(server.connection, "INSERT INTO kept VALUES ($1)", number)
        postmaster = psutil.Process(server.pid)
        children = postmaster.children()
        if victim == "backend":
            children[0].kill()
            await asyncio.to_thread(
                wait_until, lambda: gone(children[0].pid), "the killed one is gone"
            )
        else:
            for process in [postmaster, *(children if victim == "all" else [])]:
                process.kill()
            await asyncio.to_thread(
                wait_until,
                lambda: told.names().count("postgres_started") == 2,
                "it is started again",
            )
            assert told.facts("postgres_died")["code"] == -signal.SIGKILL
        async with asyncio.timeout(60):
            while True:
                try:
                    count = await ask(server.connection, "SELECT count(*) FROM kept")
                    break
                except SAID:
                    await asyncio.sleep(0.05)
        assert count == 20
        supervisor.cancel()
    assert server_processes(worn) == []


@pytest.mark.asyncio
async def test_a_restart_that_fails_is_tried_again_until_its_cause_is_gone(worn: Path) -> None:
    told = Told()
    async with embedded(worn, told=told) as server, asyncio.TaskGroup() as group:
        group.create_task(server.supervise())
        local = server.place.home / "local.conf"
        local.write_text("no_such_setting = 1\n")
        os.kill(server.pid, signal.SIGKILL)
        await asyncio.to_thread(
            wait_until, lambda: "postgres_restart_failed" in told.names(), "a restart has failed"
        )
        assert "local.conf" in told.facts("postgres_restart_failed")["error"]
        local.unlink()
        await asyncio.to_thread(
            wait_until, lambda: told.names().count("postgres_started") == 2, "it is up again"
        )
        assert await ask(server.connection, "SELECT 1") == 1
        await server.stop()  # and supervise() returns by itself
    assert server_processes(worn) == []


@pytest.mark.asyncio
async def test_a_start_waits_for_a_recovery_and_has_everything_after_it(worn: Path) -> None:
    async with embedded(worn) as server:
        await ask(server.connection, "CREATE TABLE many (n int, filler text)")
        for _ in range(4):
            await ask(
                server.connection,
                "INSERT INTO many SELECT n, repeat('x', 200) FROM generate_series(1, 50000) n",
            )
        await server.stop(at_once=True)
    async with embedded(worn) as server:
        assert await ask(server.connection, "SELECT count(*) FROM many") == 200_000
        assert "redo done" in server.place.log.read_text()


@pytest.mark.asyncio
async def test_a_start_that_is_cancelled_leaves_nothing_running(land: Path) -> None:
    for delay_s in (0.0, 0.05, 0.3, 0.6, 0.9):
        server = embedded(land)
        with anyio.move_on_after(delay_s):  # not for a condition: any moment must do
            await server.start()
        await server.stop()
        assert server_processes(land) == []
    async with embedded(land) as server:
        assert await ask(server.connection, "SELECT 1") == 1
    assert not list((land / "data" / "postgres").glob("data.making-*"))


@pytest.mark.asyncio
async def test_numbers_that_are_somebody_elses_by_now_do_not_block_a_start(worn: Path) -> None:
    async with embedded(worn) as server:
        place = server.place
        files = [place.data / "postmaster.pid", place.run / ".s.PGSQL.5432.lock"]
        kept = [path.read_text() for path in files]
        owner = files[0].stat()
    # After a power cut both numbers may belong to any program of the same user.
    program = spawn(["/bin/sleep", "600"], account=place.account, output=subprocess.DEVNULL)
    try:
        for path, content in zip(files, kept, strict=True):
            rest = content.split("\n", 1)[1]
            path.write_text(f"{program.pid}\n{rest}")
            os.chown(path, owner.st_uid, owner.st_gid)
        async with embedded(worn) as server:
            assert await ask(server.connection, "SELECT 1") == 1
        assert program.poll() is None
    finally:
        kill_session(program)
