"""The servers that tests run on: two of them, each test in a database of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runtime.postgres.embedded import ConnectionSettings
from tests.support.embedded import ROOT, ask, gone, wait_until
from tests.support.postgres import Server, fresh_database, settings_of

pytestmark = pytest.mark.postgres


@pytest.mark.asyncio
async def test_each_flavour_is_what_it_says(
    postgres_flavour: str, empty_database: ConnectionSettings
) -> None:
    number = int(str(await ask(empty_database, "SHOW server_version_num")))
    assert number >= 150_000
    if postgres_flavour == "embedded":
        assert number // 10_000 == 18
    tables = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    assert await ask(empty_database, tables) == 0


@pytest.mark.asyncio
async def test_a_migration_runs_once_and_every_test_starts_from_its_outcome(
    postgres_server: Server,
) -> None:
    runs = []

    async def migrate(settings: ConnectionSettings) -> None:
        runs.append(settings.database)
        await ask(settings, "CREATE TABLE migrated AS SELECT 1 AS n")

    for _ in range(2):
        async with fresh_database(postgres_server, migrate=migrate) as settings:
            await ask(settings, "INSERT INTO migrated VALUES (2)")
            assert await ask(settings, "SELECT sum(n) FROM migrated") == 3
    assert len(runs) == 1
    left = "SELECT count(*) FROM pg_database WHERE datname = $1"
    assert await ask(postgres_server.settings, left, settings.database) == 0


def test_a_server_goes_even_when_its_tests_are_killed() -> None:
    program = (
        "import os, signal\n"
        "from tests.support.postgres import Throwaway\n"
        "throwaway = Throwaway('embedded')\n"
        "server = throwaway.__enter__()\n"
        "print(throwaway._process.pid, throwaway._folder, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=False, capture_output=True, text=True
    )
    pid, folder = done.stdout.split()
    wait_until(lambda: gone(int(pid)), "the server is gone")
    wait_until(lambda: not Path(folder).exists(), "its folder is gone")


def test_a_url_is_read_with_its_quoting() -> None:
    settings = settings_of("postgresql://me:p%40ss@db.example:6432/things")
    assert settings.arguments() == {
        "host": "db.example",
        "port": 6432,
        "user": "me",
        "password": "p@ss",
        "database": "things",
    }
