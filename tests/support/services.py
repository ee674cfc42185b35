"""Real etcd, Kafka and PostgreSQL for tests: one of each per session, through scripts/services.

A test asks for `etcd_server`, `kafka_server` or `database_server`, and may hurt it; who hurts one
mends it (`restart`, `resume`) before the test ends. Whatever becomes of the session, `kill -9`
included, the servers end and their folder goes.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import pytest

from tests.support.folders import walkable_folder

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "services"
MISSING = 3
VERB_S = 300.0
# Reads from a pipe that only the session holds: its end is the session's.
GUARDIAN = 'read -r never; "$1" down --purge --dir "$2"'


class Services:
    """A set of servers under a folder of its own; as a context manager it ends them."""

    def __init__(self, folder: Path, env: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self._env = dict(env or {})
        self._guardian: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._guardian = subprocess.Popen(
            ["/bin/sh", "-c", GUARDIAN, "guardian", SCRIPT, self.folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            env=self.environment(),
        )
        return self

    def __exit__(self, *exc: object) -> None:
        self._guardian.stdin.close()
        assert self._guardian.wait(VERB_S) == 0, "the servers were not ended"

    def environment(self) -> dict[str, str]:
        """What the script runs in: this Python is the first on the PATH."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path, **self._env}

    def command(self, *words: str) -> list[str]:
        """Spell a verb of this set."""
        return [str(SCRIPT), *words, "--dir", str(self.folder)]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a verb to its end; that of what it has started would be waited for as well."""
        done = subprocess.run(
            self.command(*words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=VERB_S,
            env=self.environment(),
            cwd="/",
        )
        assert "Traceback" not in done.stderr, f"a user was shown a traceback:\n{done.stderr}"
        return done

    def ok(self, *words: str) -> str:
        """Run a verb that has to end well; its stdout."""
        done = self.run(*words)
        if done.returncode == MISSING:
            skip_or_fail(done.stderr.strip())
        assert done.returncode == 0, done.stderr
        return done.stdout

    def up(self, *words: str) -> dict[str, str]:
        """Start servers; the settings that were printed, and nothing else may be."""
        settings = {}
        for line in self.ok("up", *words).splitlines():
            export, assignment = shlex.split(line)
            assert export == "export", line
            name, _, value = assignment.partition("=")
            settings[name] = value
        return settings

    def rows(self) -> dict[str, dict[str, Any]]:
        """What `status --json` says, by name."""
        return {row["name"]: row for row in json.loads(self.ok("status", "--json"))}

    def states(self) -> dict[str, str]:
        """The state of each server."""
        return {name: row["state"] for name, row in self.rows().items()}


class Server:
    """One server of a set; `address` is the value of its setting."""

    def __init__(self, services: Services, name: str, address: str) -> None:
        self._services = services
        self.name = name
        self.address = address

    @property
    def endpoint(self) -> str:
        """Of etcd: http://host:port."""
        return self.address

    @property
    def bootstrap(self) -> str:
        """Of Kafka: host:port."""
        return self.address

    @property
    def url(self) -> str:
        """Of PostgreSQL: postgresql://user:password@host:port/database."""
        return self.address

    def restart(self) -> None:
        """End it if it runs, start it, and wait until it answers."""
        self._services.ok("restart", self.name)

    def kill(self) -> None:
        """Kill -9."""
        self._services.ok("kill", self.name)

    def pause(self) -> None:
        """SIGSTOP."""
        self._services.ok("pause", self.name)

    def resume(self) -> None:
        """SIGCONT."""
        self._services.ok("resume", self.name)


def skip_or_fail(message: str) -> None:
    """Skip where a developer lacks a server, with the line that gets it; fail in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def service_set() -> Iterator[Services]:
    """Give the session's set of servers, none of which runs before it is asked for."""
    with walkable_folder() as folder, Services(folder / "services") as services:
        yield services


@pytest.fixture(scope="session")
def etcd_server(service_set: Services) -> Server:
    """Give the session's etcd."""
    return Server(service_set, "etcd", service_set.up("etcd")["RUNTIME_ETCD__ENDPOINTS"])


@pytest.fixture(scope="session")
def kafka_server(service_set: Services) -> Server:
    """Give the session's Kafka broker."""
    return Server(service_set, "kafka", service_set.up("kafka")["RUNTIME_KAFKA__BOOTSTRAP_SERVERS"])


@pytest.fixture(scope="session")
def database_server(service_set: Services) -> Server:
    """Give the session's PostgreSQL over TCP, with an empty database."""
    return Server(service_set, "postgres", service_set.up("postgres")["RUNTIME_DATABASE__URL"])
