"""A PostgreSQL of the node's own: started, watched, restarted and stopped with it.

    async with EmbeddedPostgres(data_dir, node_name="n1", incarnation="7") as server:
        pool = await asyncpg.create_pool(**server.connection.arguments())

Whatever is killed, nothing that was acknowledged is lost: PostgreSQL runs with fsync and
synchronous_commit on, and every start waits for its recovery.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

import anyio
import anyio.to_thread
import asyncpg

from runtime.postgres.embedded import binaries, cluster, credentials
from runtime.postgres.embedded.connection import ConnectionSettings
from runtime.postgres.embedded.credentials import Credentials
from runtime.postgres.embedded.errors import (
    DataDirUnusableError,
    EmbeddedPostgresError,
    StartFailedError,
)
from runtime.postgres.embedded.launch import Launcher
from runtime.postgres.embedded.lock import DataDirLock, Holder
from runtime.postgres.embedded.place import OUTSIDE, Place, prepare_data_dir, settle
from runtime.postgres.errors import SAID

# How long a start may stand perfectly still: no log line, no CPU, no disk. Recovery may take hours.
STALL_S = 300.0
RESTART_DELAY_MIN_S = 0.1
RESTART_DELAY_MAX_S = 30.0
# A server that ran this long was well: the next restart is at once again.
RESTART_FORGIVEN_S = 60.0
# sun_path: 108 bytes with its NUL on Linux, 104 elsewhere.
_SOCKET_PATH_BYTES_MAX = 107 if sys.platform == "linux" else 103


OnEvent = Callable[[str, Mapping[str, object]], None]


class EmbeddedPostgres:
    """One node's PostgreSQL.

    Events, told to `on_event(name, facts)` for logs and health: `postgres_created`,
    `postgres_orphan_stopped`, `postgres_recovering`, `postgres_started`, `postgres_died`,
    `postgres_restart_failed`, `postgres_stopped`.

    Args:
        data_dir: the node's data directory, made where there is none.
        node_name: who holds it, for the one who is refused.
        incarnation: which life of that node.
        on_event: called from the event loop; must not block.
        outside: the one other place that may be written, and only as root.
        stall_s: how long a start may stand still before it is given up.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        node_name: str,
        incarnation: str = "",
        on_event: OnEvent | None = None,
        outside: Path = OUTSIDE,
        stall_s: float = STALL_S,
    ) -> None:
        self._asked_dir = data_dir
        self._holder = Holder.this_process(node=node_name, incarnation=incarnation)
        self._on_event = on_event
        self._outside = outside
        self._stall_s = stall_s
        self._locks: list[DataDirLock] = []
        self._place: Place | None = None
        self._launcher: Launcher | None = None
        self._socket_folder: int | None = None
        self._credentials: Credentials | None = None
        self._connection: ConnectionSettings | None = None
        self._stop_asked = anyio.Event()

    @property
    def connection(self) -> ConnectionSettings:
        """The bootstrap superuser's settings; they stay the same over restarts."""
        assert self._connection is not None, "start() comes first"
        return self._connection

    @property
    def credentials(self) -> Credentials:
        """The kept passwords of the roles owner, node and api."""
        assert self._credentials is not None, "start() comes first"
        return self._credentials

    @property
    def place(self) -> Place:
        """Where everything is kept."""
        assert self._place is not None, "start() comes first"
        return self._place

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return None if self._launcher is None else self._launcher.pid

    async def start(self) -> ConnectionSettings:
        """Take the data directory, make what is missing, start, and wait until it answers.

        Returns:
            How the bootstrap superuser, who owns the database, connects.

        Raises:
            EmbeddedPostgresError: it cannot; one sentence says why. Nothing is left running.
        """
        assert self._launcher is None, "started already"
        self._stop_asked = anyio.Event()
        try:
            self._launcher = await self._prepare()
            await self._launcher.launch()
            await self._open_database()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self.stop(at_once=True)
            raise
        self._tell("postgres_started", pid=self.pid, home=str(self.place.home))
        return self.connection

    async def supervise(self) -> None:
        """Restart the server whenever it dies, for ever; returns after `stop`.

        A restart that fails is tried again with growing delays: a full disk may become free.
        The log is kept within its bound meanwhile.
        """
        assert self._launcher is not None, "start() comes first"
        launcher, delay_s = self._launcher, RESTART_DELAY_MIN_S
        while not self._stop_asked.is_set():
            started_s = anyio.current_time()
            code = await launcher.watch()
            if self._stop_asked.is_set():
                return
            self._tell("postgres_died", code=code, said=launcher.last_words())
            if anyio.current_time() - started_s > RESTART_FORGIVEN_S:
                delay_s = RESTART_DELAY_MIN_S
            while not self._stop_asked.is_set():
                with anyio.move_on_after(delay_s):
                    await self._stop_asked.wait()
                    return
                delay_s = min(delay_s * 2, RESTART_DELAY_MAX_S)
                try:
                    await launcher.launch()
                except EmbeddedPostgresError as error:
                    self._tell("postgres_restart_failed", error=str(error), retry_in_s=delay_s)
                else:
                    self._tell("postgres_started", pid=self.pid, home=str(self.place.home))
                    break

    async def stop(self, *, at_once: bool = False) -> None:
        """End the server and give the data directory back; may be called twice.

        Args:
            at_once: without the checkpoint; the next start recovers. Neither way loses anything.
        """
        self._stop_asked.set()
        with anyio.CancelScope(shield=True):
            launcher = self._launcher
            if launcher is not None and await launcher.close(at_once=at_once):
                self._tell("postgres_stopped", at_once=at_once)
            self._launcher = None
        if self._socket_folder is not None:
            os.close(self._socket_folder)
            self._socket_folder = None
        while self._locks:
            self._locks.pop().release()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def _prepare(self) -> Launcher:
        data_dir = prepare_data_dir(self._asked_dir)
        self._lock(data_dir)
        place = settle(data_dir, outside=self._outside)
        self._place = place
        if place.home.parent != data_dir:
            self._lock(place.home)  # a copied data directory is a second way to the same home
        made = place.data.exists()
        self._credentials = credentials.load_or_make(data_dir, may_make=not made)
        installation = await anyio.to_thread.run_sync(
            lambda: binaries.reachable(place.account, outside=self._outside)
        )
        password = self._credentials.owner
        if await cluster.ensure(place, installation, password=password):
            self._tell("postgres_created", home=str(place.home))
        self._connection = cluster.settings(host=self._host(place.run), password=password)
        return Launcher(place, installation, stall_s=self._stall_s, tell=self._tell)

    def _lock(self, folder: Path) -> None:
        lock = DataDirLock(folder, self._holder)
        lock.acquire()
        self._locks.append(lock)

    def _host(self, run: Path) -> str:
        """Name the socket's folder in a way that fits into a socket address.

        Where the path is too long we hold the folder open and go through /proc, rather than put a
        socket outside the data directory.
        """
        if len(os.fsencode(run / f".s.PGSQL.{cluster.PORT}")) <= _SOCKET_PATH_BYTES_MAX:
            return str(run)
        if sys.platform != "linux":
            raise DataDirUnusableError(
                f"{run} is too long for the socket that belongs there "
                f"({_SOCKET_PATH_BYTES_MAX} bytes): choose a shorter --data-dir"
            )
        if self._socket_folder is None:
            self._socket_folder = os.open(run, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/{os.getpid()}/fd/{self._socket_folder}"

    async def _open_database(self) -> None:
        """Prove that it answers to our password, and make the database where there is none."""
        try:
            try:
                session = await asyncpg.connect(**self.connection.arguments())
            except asyncpg.InvalidCatalogNameError:
                session = await asyncpg.connect(
                    **self.connection.on_database("postgres").arguments()
                )
                with suppress(asyncpg.DuplicateDatabaseError):
                    await session.execute(f'CREATE DATABASE "{cluster.DATABASE}"')
            await session.close()
        except asyncpg.InvalidPasswordError as error:
            raise DataDirUnusableError(
                f"the PostgreSQL in {self.place.home} does not know the password in "
                f"{credentials.FILE_NAME}: put back the file that belongs to it"
            ) from error
        except SAID as error:
            raise StartFailedError(
                f"PostgreSQL started and then did not answer: {error} ({self.place.log})"
            ) from error

    def _tell(self, name: str, **facts: object) -> None:
        if self._on_event is not None:
            self._on_event(name, facts)
