"""`scripts/services`, as a user and the fault harness run it: real servers, hurt and mended."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import asyncpg
import httpx
import psutil
import pytest

from runtime.postgres.errors import SAID
from tests.support.embedded import gone, wait_until
from tests.support.folders import walkable_folder
from tests.support.services import MISSING, SCRIPT, Services

pytestmark = pytest.mark.slow
SETTINGS = {
    "RUNTIME_DATABASE__URL",
    "RUNTIME_ETCD__ENDPOINTS",
    "RUNTIME_KAFKA__BOOTSTRAP_SERVERS",
}
NAMES = ("postgres", "etcd", "kafka")
KEY, VALUE = "a2V5", "dmFsdWU="  # base64, as etcd's gateway wants it


@pytest.fixture(scope="module")
def one() -> Iterator[tuple[Services, dict[str, str]]]:
    """A set of one server of each kind."""
    with walkable_folder() as folder, Services(folder / "set") as services:
        yield services, services.up()


@pytest.fixture
def fresh() -> Iterator[Services]:
    """A folder for a set of the test's own."""
    with walkable_folder() as folder, Services(folder / "set") as services:
        yield services


def processes_of(folder: Path) -> list[psutil.Process]:
    """Every server on this folder, or on the home that root's PostgreSQL has outside of it."""
    homes = [str(link.readlink()) for link in folder.glob("*/postgres") if link.is_symlink()]
    found = []
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline())
        except psutil.Error:
            continue
        served = any(home in words for home in [f"{folder}/", *homes])
        if served and "guardian" not in words:
            found.append(process)
    return found


def fetch(url: str, question: str, *values: object) -> object:
    async def ask() -> object:
        session = await asyncpg.connect(url)
        try:
            return await session.fetchval(question, *values)
        finally:
            await session.close()

    return asyncio.run(ask())


def etcd(endpoint: str, verb: str, **body: str) -> dict:
    answer = httpx.post(f"{endpoint}/v3/kv/{verb}", json=body, trust_env=False, timeout=10)
    return answer.raise_for_status().json()


def test_up_prints_the_settings_to_use_and_nothing_else(one):
    _, settings = one
    assert set(settings) == SETTINGS
    assert fetch(settings["RUNTIME_DATABASE__URL"], "SELECT current_database()") == "tickwright"


def test_a_shell_evaluates_what_up_prints(one):
    services, settings = one
    spelled = " ".join(services.command("up", "etcd", "postgres"))
    script = f'eval "$({spelled})"; echo "$RUNTIME_ETCD__ENDPOINTS"; echo "$RUNTIME_DATABASE__URL"'
    said = subprocess.run(
        ["/bin/sh", "-euc", script],
        capture_output=True,
        text=True,
        check=True,
        env=services.environment(),
    )
    assert said.stdout.splitlines() == [
        settings["RUNTIME_ETCD__ENDPOINTS"],
        settings["RUNTIME_DATABASE__URL"],
    ]


def test_up_again_changes_nothing(one):
    services, settings = one
    before = services.rows()
    assert services.up() == settings
    assert services.rows() == before


@pytest.mark.parametrize("name", NAMES)
def test_a_killed_server_is_dead_until_it_is_restarted_on_its_port(one, name: str):
    services, _ = one
    before = services.rows()[name]
    services.ok("kill", name)
    assert services.rows()[name] == {**before, "pid": None, "state": "dead"}
    assert gone(before["pid"])
    services.ok("restart", name)
    after = services.rows()[name]
    assert after == {**before, "pid": after["pid"]}
    assert after["pid"] != before["pid"]


@pytest.mark.parametrize("name", NAMES)
def test_a_running_server_is_another_one_after_restart(one, name: str):
    services, _ = one
    before = services.rows()[name]
    services.ok("restart", name)
    after = services.rows()[name]
    assert (after["state"], after["port"]) == ("running", before["port"])
    assert after["pid"] != before["pid"]


@pytest.mark.parametrize("name", NAMES)
def test_a_paused_server_is_told_as_such_with_all_its_processes(one, name: str):
    services, _ = one
    pid = services.rows()[name]["pid"]
    services.ok("pause", name)
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        assert {process.status() for process in family} == {psutil.STATUS_STOPPED}
        assert services.rows()[name]["state"] == "paused"
    finally:
        services.ok("resume", name)
    wait_until(lambda: services.rows()[name]["state"] == "running", f"{name} answers again")
    assert services.rows()[name]["pid"] == pid


def test_what_was_acknowledged_is_there_after_a_kill(one):
    services, settings = one
    url, endpoint = settings["RUNTIME_DATABASE__URL"], settings["RUNTIME_ETCD__ENDPOINTS"]
    fetch(url, "CREATE TABLE IF NOT EXISTS kept AS SELECT 42 AS answer")
    etcd(endpoint, "put", key=KEY, value=VALUE)
    for name in ("postgres", "etcd"):
        services.ok("kill", name)
        services.ok("restart", name)
    assert fetch(url, "SELECT answer FROM kept") == 42
    assert etcd(endpoint, "range", key=KEY)["kvs"][0]["value"] == VALUE


def test_the_database_takes_its_password_only(one):
    _, settings = one
    url = settings["RUNTIME_DATABASE__URL"]
    password = url.partition("tickwright:")[2].partition("@")[0]
    with pytest.raises(asyncpg.InvalidPasswordError):
        fetch(url.replace(password, "another"), "SELECT 1")


def test_two_sets_live_side_by_side(one, fresh):
    services, settings = one
    other = fresh.up("etcd", "postgres")
    assert set(other) == SETTINGS - {"RUNTIME_KAFKA__BOOTSTRAP_SERVERS"}
    assert not set(other.values()) & set(settings.values())
    fresh.ok("down")
    assert set(fresh.states().values()) == {"stopped"}
    assert set(services.states().values()) == {"running"}
    assert fresh.up("etcd", "postgres") == other


def test_down_leaves_no_process_and_nobody_elses_is_touched(fresh):
    fresh.up("etcd", "postgres")
    log = fresh.rows()["etcd"]["log"]
    reader = subprocess.Popen(["tail", "-f", log], stdout=subprocess.DEVNULL)
    try:
        assert len(processes_of(fresh.folder)) >= 3
        fresh.ok("down")
        assert [process.pid for process in processes_of(fresh.folder)] == [reader.pid]
    finally:
        reader.kill()
        reader.wait()
    homes = [link.readlink() for link in fresh.folder.glob("*/postgres") if link.is_symlink()]
    fresh.ok("down", "--purge")
    assert not fresh.folder.exists()
    assert not any(home.exists() for home in homes)


@pytest.mark.parametrize(
    ("kinds", "landmark"),
    [
        (["postgres"], "postgres/log"),
        (["postgres", "--postgres", "2"], "postgres-2/postgres"),
        (["kafka"], "kafka/data.making"),
        (["kafka"], "kafka/data"),
        (["etcd", "--etcd", "3"], "etcd-2/log"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_down_ends_what_a_killed_up_has_left(fresh, kinds: list[str], landmark: str):
    up = subprocess.Popen(
        fresh.command("up", *kinds),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=fresh.environment(),
    )
    wait_until(lambda: (fresh.folder / landmark).exists() or up.poll() is not None, landmark)
    up.send_signal(signal.SIGKILL)
    assert up.wait() == -signal.SIGKILL, "up was to be killed before its end"
    fresh.ok("down")
    wait_until(lambda: not processes_of(fresh.folder), "the last process has gone")
    if landmark != "kafka/data":
        fresh.up(*kinds)
        assert set(fresh.states().values()) == {"running"}


def test_each_sentence_that_refuses(one, fresh):
    services, _ = one
    unknown = services.run("restart", "redis")
    assert unknown.returncode == 1
    assert "has no server redis (it has: postgres, etcd, kafka)" in unknown.stderr
    grown = services.run("up", "etcd", "--etcd", "3")
    assert grown.returncode == 1
    assert "has 1 of etcd, not 3" in grown.stderr
    alone = services.run("promote")
    assert alone.returncode == 1
    assert "there is no standby" in alone.stderr
    assert fresh.run("kill", "etcd").returncode == 1
    assert fresh.states() == {}


@pytest.mark.parametrize(
    ("kind", "line"),
    [("etcd", "apt-get install etcd-server"), ("kafka", "apt-get install default-jre-headless")],
)
def test_a_missing_program_is_named_with_the_line_that_gets_it(kind: str, line: str):
    with walkable_folder() as folder:
        for name in ("sh", "dirname"):
            (folder / name).symlink_to(f"/bin/{name}" if name == "sh" else "/usr/bin/dirname")
        bare = {"PATH": f"{folder}:{Path(sys.executable).parent}", "HOME": str(folder)}
        said = subprocess.run(
            [SCRIPT, "up", "postgres", kind, "--dir", folder / "set"],
            capture_output=True,
            text=True,
            check=False,
            env=bare,
        )
        assert said.returncode == MISSING, said.stderr
        assert line in said.stderr
        assert said.stdout == ""
        assert not processes_of(folder), "nothing is started where something is missing"


def test_three_of_each_bear_the_loss_of_one(fresh):
    settings = fresh.up("etcd", "kafka", "--etcd", "3", "--kafka", "3")
    endpoints = settings["RUNTIME_ETCD__ENDPOINTS"].split(",")
    assert len(endpoints) == len(settings["RUNTIME_KAFKA__BOOTSTRAP_SERVERS"].split(",")) == 3
    for name in ("etcd-1", "kafka-1"):
        fresh.ok("kill", name)
    wait_until(
        lambda: sorted(fresh.states().values()) == ["dead"] * 2 + ["running"] * 4,
        "the others go on",
    )
    etcd(endpoints[1], "put", key=KEY, value=VALUE)
    for name in ("etcd-1", "kafka-1"):
        fresh.ok("restart", name)
    assert etcd(endpoints[0], "range", key=KEY)["kvs"][0]["value"] == VALUE


class Writer:
    """Commits 1, 2, 3, ... on the primary, and knows what was acknowledged."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.acknowledged = 0
        self.some = asyncio.Event()

    async def write(self) -> None:
        """Write until the server is gone."""
        session = await asyncpg.connect(self._url)
        while True:
            try:
                await session.execute("INSERT INTO written VALUES ($1)", self.acknowledged + 1)
            except SAID:
                session.terminate()
                return
            self.acknowledged += 1
            if self.acknowledged == 200:
                self.some.set()


def follows(url: str) -> bool:
    """Whether a standby has what the primary acknowledges."""
    found: int = fetch(url, "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'")
    return found == 1


def test_a_promoted_standby_has_all_that_was_acknowledged(fresh):
    url = fresh.up("postgres", "--postgres", "2")["RUNTIME_DATABASE__URL"]
    fetch(url, "CREATE TABLE written (number bigint)")
    seen = 0
    for old, new in (("postgres-1", "postgres-2"), ("postgres-2", "postgres-1")):
        writer = Writer(url)

        async def kill_while_it_writes(writer: Writer = writer, old: str = old) -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(writer.write())
                await writer.some.wait()
                await asyncio.to_thread(fresh.ok, "kill", old)

        asyncio.run(kill_while_it_writes())
        fresh.ok("promote")
        count = fetch(url, "SELECT count(*) FROM written")
        assert seen + writer.acknowledged <= count <= seen + writer.acknowledged + 1
        seen = count
        refused = fresh.run("promote")
        assert refused.returncode == 1
        assert f"{old} may lack what {new} has acknowledged" in refused.stderr
        fresh.ok("restart", old)
        assert set(fresh.states().values()) == {"running"}
        wait_until(partial(follows, url), "the old primary follows the new one")


def test_nothing_is_acknowledged_while_the_standby_is_away(fresh):
    url = fresh.up("postgres", "--postgres", "2")["RUNTIME_DATABASE__URL"]
    fetch(url, "CREATE TABLE written (number bigint)")
    fresh.ok("kill", "postgres-2")

    async def write() -> None:
        writing, looking = await asyncpg.connect(url), await asyncpg.connect(url)
        query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(writing.execute("INSERT INTO written VALUES (1)"))
            while await looking.fetchval(query) == 0:
                assert not waiting.done(), "a commit that only one has was acknowledged"
            await asyncio.to_thread(fresh.ok, "restart", "postgres-2")
        await writing.close()
        await looking.close()

    asyncio.run(write())
    assert fetch(url, "SELECT count(*) FROM written") == 1
